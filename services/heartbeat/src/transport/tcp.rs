//! Heartbeats over TCP: frames, each after its length (2 bytes, big-endian), on one connection per sender.

mod sender;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::sender::{Handle, Sender, Settings};
use super::{Ingest, Scratch};
use crate::{auth::Reject, frame::sign_ack};

/// The article's interval.
pub const INTERVAL: Duration = Duration::from_secs(3);
/// The kernel probes an idle connection every interval, and closes it after three unanswered probes.
const PROBES: u32 = 3;
const LENGTH_BYTES: usize = 2;
/// Pause after a failed accept (out of descriptors).
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Further connections are closed immediately.
    pub max_connections: usize,
    /// A connection without a complete frame for this long is closed.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_connections: 65_536, idle: Duration::from_secs(60) }
    }
}

/// Sets `SO_KEEPALIVE` with probes at the heartbeat's interval, and sends small frames at once.
///
/// # Errors
/// The kernel refuses an option.
pub fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let probing = TcpKeepalive::new().with_time(INTERVAL).with_interval(INTERVAL).with_retries(PROBES);
    SockRef::from(stream).set_tcp_keepalive(&probing)?;
    stream.set_nodelay(true)
}

/// Accepts until `stop`, then ends its connections.
pub async fn receive(listener: TcpListener, ingest: Arc<Ingest>, limits: Limits, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(limits.max_connections));
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a heartbeat connection");
                sleep(RETRY).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(%peer, "heartbeat connection refused: the limit is reached");
            continue;
        };
        let (ingest, stop) = (Arc::clone(&ingest), stop.clone());
        connections.spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled(connection(stream, peer, &ingest, limits.idle)).await {
                tracing::debug!(%peer, %error, "heartbeat connection ended");
            }
            drop(permit);
        });
    }
    connections.close();
    connections.wait().await;
}

/// Serves one connection until it ends. A frame that is not authentic ends it: the framing cannot be trusted any more.
async fn connection(mut stream: TcpStream, peer: SocketAddr, ingest: &Ingest, idle: Duration) -> io::Result<()> {
    keep_alive(&stream)?;
    let (mut reader, mut scratch, mut answer) = (FrameReader::default(), Scratch::default(), Vec::new());
    while let Some(frame) = timeout(idle, reader.next(&mut stream)).await.map_err(|_| io::ErrorKind::TimedOut)?? {
        match ingest.frame(&mut scratch, ingest.clock().now(), peer, frame) {
            Ok(Some(ack)) => {
                answer.clear();
                sign_ack(ingest.keys(), &ack, &mut answer);
                // A peer that does not read is closed like one that does not send.
                timeout(idle, write_frame(&mut stream, &answer)).await.map_err(|_| io::ErrorKind::TimedOut)??;
            }
            Ok(None) => {}
            Err(Reject::Frame | Reject::Key | Reject::Mac) => return Err(io::ErrorKind::InvalidData.into()),
            // One invalid message of a key holder; counted.
            Err(_) => {}
        }
    }
    Ok(())
}

/// Splits a stream into frames. Cancel safe.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// Bytes read; the frame returned last is at the beginning.
    bytes: Vec<u8>,
    answered: usize,
}

impl FrameReader {
    /// The next frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// The connection's, or an end inside a frame.
    pub async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<&[u8]>> {
        self.bytes.drain(..std::mem::take(&mut self.answered));
        while self.complete().is_none() {
            if stream.read_buf(&mut self.bytes).await? == 0 {
                let clean = self.bytes.is_empty();
                return if clean { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        self.answered = self.complete().unwrap_or(0);
        Ok(self.bytes.get(LENGTH_BYTES..self.answered))
    }

    /// Length of the first frame with its prefix, if it is complete.
    fn complete(&self) -> Option<usize> {
        let length = self.bytes.first_chunk::<LENGTH_BYTES>()?;
        let end = LENGTH_BYTES + usize::from(u16::from_be_bytes(*length));
        (self.bytes.len() >= end).then_some(end)
    }
}

/// # Errors
/// The connection's, or a frame longer than 65,535 bytes.
pub async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    let length = u16::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // One write, one segment.
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + frame.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes).await
}
