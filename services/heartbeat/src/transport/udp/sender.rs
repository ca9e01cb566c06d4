//! Sends one node's heartbeats over UDP with acknowledgement and repetitions.

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

/// More than an acknowledgement needs.
const ACK_BYTES: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Repetitions after the first datagram.
    pub count: u32,
    /// How long each waits for its acknowledgement.
    pub wait: Duration,
}

impl Default for Retries {
    /// Four datagrams within 800 ms: at a loss of 50 %, one heartbeat in 16 does not arrive.
    fn default() -> Self {
        Self { count: 3, wait: Duration::from_millis(200) }
    }
}

/// The monitor has acknowledged the heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// From the first datagram to the acknowledgement.
    pub after: Duration,
    /// Datagrams sent.
    pub tries: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("no acknowledgement of {tries} datagrams")]
    Unanswered { tries: u32 },
    #[error("cannot encode the heartbeat")]
    Encode(#[from] crate::codec::EncodeError),
    #[error("cannot send the heartbeat")]
    Socket(#[from] io::Error),
}

/// A socket that sends heartbeats to one monitor and waits for each acknowledgement.
pub struct ReliableSender {
    socket: UdpSocket,
    keys: Keys,
    codec: Box<dyn Codec>,
    retries: Retries,
    datagram: Vec<u8>,
}

impl ReliableSender {
    /// # Errors
    /// A socket cannot be opened.
    pub async fn connect(monitor: SocketAddr, keys: Keys, codec: Box<dyn Codec>, retries: Retries) -> io::Result<Self> {
        let any = if monitor.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(monitor).await?;
        Ok(Self { socket, keys, codec, retries, datagram: Vec::new() })
    }

    /// Sends the heartbeat until it is acknowledged: always the same bytes, so that the monitor sees one heartbeat.
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

    /// Waits for this acknowledgement; late ones of earlier heartbeats are ignored.
    async fn answered(&self, wanted: &Ack, until: tokio::time::Instant) -> bool {
        let mut buffer = [0; ACK_BYTES];
        loop {
            match timeout_at(until, self.socket.recv(&mut buffer)).await {
                Ok(Ok(length)) if verify_ack(&self.keys, &buffer[..length]).as_ref() == Some(wanted) => return true,
                Ok(Ok(_)) => {}
                // The port does not listen now; the monitor may return before the next repetition.
                Ok(Err(_)) => {
                    tokio::time::sleep_until(until).await;
                    return false;
                }
                Err(_) => return false,
            }
        }
    }
}
