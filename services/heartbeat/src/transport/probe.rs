//! Liveness probes: an authentic question with the node's name and a random number. The node returns the number with its incarnation, so
//! that a recorded answer is none to a later question. Question and answer are the same bytes over UDP and HTTP; another worker can pass
//! them on.

use std::{io, time::Duration};

use tokio::{
    net::{UdpSocket, lookup_host},
    time::{Instant, timeout_at},
};

use crate::{
    auth::{FrameKind, Keys},
    clock::{latest_incarnation, wall_ms},
    frame::{sign_protobuf, verify_protobuf},
    message::{Ack, Alive, ProbeAnswer},
};

/// Longer than any question or answer.
pub const MAX_BYTES: usize = 256;
/// Datagrams per probe: the loss of one does not fail the probe.
const REPETITIONS: u32 = 3;

/// A question that a node answers once.
#[derive(Debug, Clone)]
pub struct Question {
    asked: Ack,
    frame: Vec<u8>,
}

impl Question {
    /// A question for this node.
    pub fn new(keys: &Keys, node: &str) -> Self {
        let asked = Ack { of: node.to_owned(), incarnation: 0, sequence: rand::random() };
        let mut frame = Vec::new();
        sign_protobuf(keys, FrameKind::Probe, &asked, &mut frame);
        Self { asked, frame }
    }

    /// An authentic question of a monitor; `None`: it is not.
    pub fn read(keys: &Keys, frame: &[u8]) -> Option<Self> {
        let asked = verify_protobuf(keys, FrameKind::Probe, frame)?;
        Some(Self { asked, frame: frame.to_vec() })
    }

    pub fn node(&self) -> &str {
        &self.asked.of
    }

    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The answer of this node, in this incarnation.
    pub fn answer(&self, keys: &Keys, incarnation: u64) -> Vec<u8> {
        let ack = Ack { incarnation, ..self.asked.clone() };
        let (answer, mut frame) = (ProbeAnswer { ack, sent_ms: wall_ms() }, Vec::new());
        sign_protobuf(keys, FrameKind::Alive, &answer, &mut frame);
        frame
    }

    /// What the node's answer says; `None`: it is not authentic, not the answer to this question, or its incarnation is too far in the
    /// future.
    pub fn alive(&self, keys: &Keys, answer: &[u8]) -> Option<Alive> {
        let ProbeAnswer { ack: Ack { of, incarnation, sequence }, sent_ms } =
            verify_protobuf(keys, FrameKind::Alive, answer)?;
        let is_ours = of == self.asked.of && sequence == self.asked.sequence;
        (is_ours && incarnation <= latest_incarnation()).then_some(Alive { incarnation, sent_ms })
    }

    /// Asks the node at `address` (`host:port`) over UDP; `None`: no authentic answer in time. Returns the answer's bytes.
    pub async fn ask(&self, keys: &Keys, address: &str, wait: Duration) -> Option<Vec<u8>> {
        let start = Instant::now();
        let exchange = async {
            let address = lookup_host(address).await?.next().ok_or(io::ErrorKind::NotFound)?;
            let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
            socket.connect(address).await?;
            for repetition in 1..=REPETITIONS {
                // A closed port is reported by the next call and counts as no answer.
                socket.send(&self.frame).await.ok();
                let until = start + wait * repetition / REPETITIONS;
                if let Some(answer) = self.answered(&socket, keys, until).await {
                    return Ok(Some(answer));
                }
            }
            Ok::<_, io::Error>(None)
        };
        timeout_at(start + wait, exchange).await.ok()?.ok()?
    }

    async fn answered(&self, socket: &UdpSocket, keys: &Keys, until: Instant) -> Option<Vec<u8>> {
        let mut datagram = [0; MAX_BYTES];
        loop {
            match timeout_at(until, socket.recv(&mut datagram)).await {
                Ok(Ok(length)) => {
                    let answer = &datagram[..length];
                    if self.alive(keys, answer).is_some() {
                        return Some(answer.to_vec());
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
}

/// Answers probes of this node over UDP for ever. `incarnation` is called for each, since it can change.
///
/// # Errors
/// The socket's, except for an unreachable peer.
pub async fn answer(
    socket: &UdpSocket,
    keys: &Keys,
    node: &str,
    incarnation: impl Fn() -> u64,
) -> io::Result<std::convert::Infallible> {
    let mut datagram = [0; MAX_BYTES];
    loop {
        let (length, peer) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            // The peer of an earlier answer was gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        // Frames that are not authentic or for another node get no answer.
        let question = Question::read(keys, &datagram[..length]);
        let Some(question) = question.filter(|question| question.node() == node) else { continue };
        // No room in the socket counts as a loss.
        socket.try_send_to(&question.answer(keys, incarnation()), peer).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_nodes_own_answer_to_this_question_counts() {
        let keys = Keys::new(b"of this test");
        let (question, later) = (Question::new(&keys, "w"), Question::new(&keys, "w"));
        let answer = question.answer(&keys, 7);
        let alive = question.alive(&keys, &answer).unwrap();
        assert!(alive.incarnation == 7 && alive.sent_ms > 0);
        assert_eq!(later.alive(&keys, &answer), None, "a recorded answer");
        assert_eq!(question.alive(&keys, question.frame()), None, "the question itself");
        assert_eq!(question.alive(&keys, &question.answer(&keys, u64::MAX)), None);
        assert_eq!(question.alive(&keys, &question.answer(&Keys::new(b"another"), 7)), None);
        assert!(Question::read(&keys, &answer).is_none() && Question::read(&keys, question.frame()).is_some());
    }
}
