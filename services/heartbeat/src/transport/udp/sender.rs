//! The sending side of one node: a beat, an acknowledgement, N repetitions.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, time::timeout_at};

use crate::{
    auth::Keys,
    codec::Codec,
    frame::{sign_beat, verify_ack},
    message::{Ack, Beat},
};

/// An acknowledgement is much shorter.
const ACK_BYTES: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Repetitions after the first datagram.
    pub count: u32,
    /// How long each waits for its answer.
    pub wait: Duration,
}

impl Default for Retries {
    /// Four datagrams within 800 ms: a loss of half of them loses one beat in 16 on the way there.
    fn default() -> Self {
        Self { count: 3, wait: Duration::from_millis(200) }
    }
}

/// The monitor has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// From the first datagram to the answer.
    pub after: Duration,
    /// Datagrams sent.
    pub tries: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("no answer to {tries} datagrams")]
    Unanswered { tries: u32 },
    #[error("cannot write the heartbeat")]
    Encode(#[from] crate::codec::EncodeError),
    #[error("cannot send the heartbeat")]
    Socket(#[from] io::Error),
}

/// A socket that sends beats to one monitor and waits for each one's answer.
pub struct ReliableSender {
    socket: UdpSocket,
    keys: Keys,
    codec: Box<dyn Codec>,
    retries: Retries,
    datagram: Vec<u8>,
}

impl ReliableSender {
    /// # Errors
    /// No socket can be had.
    pub async fn connect(monitor: SocketAddr, keys: Keys, codec: Box<dyn Codec>, retries: Retries) -> io::Result<Self> {
        let any = if monitor.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(monitor).await?;
        Ok(Self { socket, keys, codec, retries, datagram: Vec::new() })
    }

    /// Sends it, and again until it is answered: the same bytes, so that the monitor sees them as one beat.
    ///
    /// # Errors
    /// `Unanswered` after the last repetition; a refused port (ICMP) counts as no answer.
    pub async fn send(&mut self, beat: &Beat) -> Result<Acknowledged, SendError> {
        self.datagram.clear();
        sign_beat(&self.keys, &mut *self.codec, beat, true, &mut self.datagram)?;
        let wanted = Ack { of: beat.node_id.clone(), incarnation: beat.incarnation, sequence: beat.sequence };
        let start = Instant::now();
        for tries in 1..=self.retries.count + 1 {
            let until = tokio::time::Instant::now() + self.retries.wait;
            match self.socket.send(&self.datagram).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error.into()),
            }
            if self.answered(&wanted, until).await {
                return Ok(Acknowledged { after: start.elapsed(), tries });
            }
        }
        Err(SendError::Unanswered { tries: self.retries.count + 1 })
    }

    /// Waits for that answer; others (of beats given up) are passed over.
    async fn answered(&self, wanted: &Ack, until: tokio::time::Instant) -> bool {
        let mut buffer = [0; ACK_BYTES];
        loop {
            match timeout_at(until, self.socket.recv(&mut buffer)).await {
                Ok(Ok(length)) if verify_ack(&self.keys, &buffer[..length]).as_ref() == Some(wanted) => return true,
                Ok(Ok(_)) => {}
                // Nobody listens there now; the monitor may be back before the next repetition.
                Ok(Err(_)) => {
                    tokio::time::sleep_until(until).await;
                    return false;
                }
                Err(_) => return false,
            }
        }
    }
}
