//! "Are you there?" over UDP: a sealed acknowledgement that names the node and a number nobody can guess. The node sends it back
//! with the incarnation it is in, so that an answer recorded earlier is worth nothing.

use std::{io, time::Duration};

use tokio::{
    net::{UdpSocket, lookup_host},
    time::{Instant, timeout_at},
};

use crate::{
    auth::Keys,
    frame::{sign_ack, verify_ack},
    message::Ack,
};

/// Longer than any probe of ours.
const DATAGRAM_BYTES: usize = 256;
/// Datagrams in the time that one may take: the loss of one is not the loss of the probe.
const REPETITIONS: u32 = 3;

/// Answers probes of this node for ever. `incarnation` is asked at each: it grows when a incarnation was failed.
///
/// # Errors
/// The socket's, other than of a peer that is gone.
pub async fn answer(
    socket: &UdpSocket,
    keys: &Keys,
    node: &str,
    incarnation: impl Fn() -> u64,
) -> io::Result<std::convert::Infallible> {
    let (mut datagram, mut reply) = ([0; DATAGRAM_BYTES], Vec::new());
    loop {
        let (length, peer) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            // An earlier answer found nobody.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        // What is not authentic or meant for another node gets no answer.
        let Some(asked) = verify_ack(keys, &datagram[..length]).filter(|asked| asked.of == node) else { continue };
        reply.clear();
        sign_ack(keys, &Ack { incarnation: incarnation(), ..asked }, &mut reply);
        // No room for it: as if it had been lost on the way.
        socket.try_send_to(&reply, peer).ok();
    }
}

/// The incarnation that the node at `address` (`host:port`) is in; `None`: no answer in time.
pub async fn ask(keys: &Keys, address: &str, node: &str, wait: Duration) -> Option<u64> {
    let start = Instant::now();
    let exchange = async {
        let address = lookup_host(address).await?.next().ok_or(io::ErrorKind::NotFound)?;
        let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
        socket.connect(address).await?;
        let asked = Ack { of: node.to_owned(), incarnation: 0, sequence: rand::random() };
        let mut probe = Vec::new();
        sign_ack(keys, &asked, &mut probe);
        for repetition in 1..=REPETITIONS {
            // A port that nobody listens on is refused at the next call: no answer, like any other.
            socket.send(&probe).await.ok();
            let until = start + wait * repetition / REPETITIONS;
            if let Some(incarnation) = answered(&socket, keys, &asked, until).await {
                return Ok(Some(incarnation));
            }
        }
        Ok::<_, io::Error>(None)
    };
    timeout_at(start + wait, exchange).await.ok()?.ok()?
}

async fn answered(socket: &UdpSocket, keys: &Keys, asked: &Ack, until: Instant) -> Option<u64> {
    let mut datagram = [0; DATAGRAM_BYTES];
    loop {
        match timeout_at(until, socket.recv(&mut datagram)).await {
            Ok(Ok(length)) => {
                let answer = verify_ack(keys, &datagram[..length]);
                let ours = answer.filter(|answer| answer.of == asked.of && answer.sequence == asked.sequence);
                if let Some(answer) = ours {
                    return Some(answer.incarnation);
                }
            }
            Ok(Err(_)) => {
                tokio::time::sleep_until(until).await;
                return None;
            }
            Err(_) => return None,
        }
    }
}
