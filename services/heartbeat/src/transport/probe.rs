//! Liveness probes over UDP: an authenticated `Ack` with the node's name and a random number. The node returns it with its incarnation, so
//! that a recorded answer cannot be replayed.

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

/// Longer than any probe.
const DATAGRAM_BYTES: usize = 256;
/// Datagrams per probe: the loss of one does not fail the probe.
const REPETITIONS: u32 = 3;

/// Answers probes of this node for ever. `incarnation` is called for each, since it can change.
///
/// # Errors
/// The socket's, except for an unreachable peer.
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
            // The peer of an earlier answer was gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        // Frames that are not authentic or for another node get no answer.
        let Some(asked) = verify_ack(keys, &datagram[..length]).filter(|asked| asked.of == node) else { continue };
        reply.clear();
        sign_ack(keys, &Ack { incarnation: incarnation(), ..asked }, &mut reply);
        // No room in the socket counts as a loss.
        socket.try_send_to(&reply, peer).ok();
    }
}

/// The incarnation of the node at `address` (`host:port`); `None`: no answer in time.
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
            // A closed port is reported by the next call and counts as no answer.
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
