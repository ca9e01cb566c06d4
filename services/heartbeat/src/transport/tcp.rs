//! Heartbeats over TCP: frames, each after its length (2 bytes, big-endian), on one connection per sender.

mod sender;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::sender::{Handle, Sender, Settings};
use super::{
    Ingest, Scratch,
    connections::{Connection, Connections},
};
use crate::{auth::Reject, frame::sign_ack};

/// The article's interval.
pub const INTERVAL: Duration = Duration::from_secs(3);
/// The kernel probes an idle connection every interval, and closes it after three unanswered probes.
const PROBES: u32 = 3;
const LENGTH_BYTES: usize = 2;
/// Pause after a failed accept (out of descriptors).
const RETRY: Duration = Duration::from_millis(100);

/// A buffer of a connection with a longer frame counts against `Limits::unfinished_bytes`, and shrinks afterwards.
const SMALL_FRAME_BYTES: usize = 4 * 1024;
/// First allocation of a connection's buffer.
const BUFFER_BYTES: usize = 256;
/// Longest frame of an unauthenticated connection: one heartbeat with the longest names, as JSON.
const FIRST_FRAME_BYTES: usize = 8 * 1024;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections that have sent an authentic heartbeat. Further ones are closed.
    pub max_connections: usize,
    /// Connections that have not. The oldest gives way to a new one.
    pub max_unauthenticated: usize,
    /// Time in which a new connection must send its first authentic heartbeat.
    pub first_frame: Duration,
    /// A connection without a complete frame for this long is closed.
    pub idle: Duration,
    /// Bytes in buffers of frames above 4 KiB, of all connections; more than the longest frame, 64 KiB. Further frames wait.
    pub unfinished_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_unauthenticated: 1_024,
            first_frame: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            unfinished_bytes: 16 << 20,
        }
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
    let open = Connections::new(limits.max_connections, limits.max_unauthenticated);
    let buffers = Arc::new(Semaphore::new(limits.unfinished_bytes.min(Semaphore::MAX_PERMITS)));
    let tasks = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a heartbeat connection");
                sleep(RETRY).await;
                continue;
            }
        };
        let (ingest, stop, buffers, admitted) =
            (Arc::clone(&ingest), stop.clone(), Arc::clone(&buffers), open.admit(peer.ip()));
        tasks.spawn(async move {
            let served = tokio::select! {
                () = stop.cancelled() => return,
                () = admitted.must_close() => Err(io::ErrorKind::ConnectionAborted.into()),
                served = connection(stream, peer, &ingest, &limits, &admitted, buffers) => served,
            };
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "heartbeat connection ended");
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// Serves one connection until it ends. A frame that is not authentic ends it: the framing cannot be trusted any more.
async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    ingest: &Ingest,
    limits: &Limits,
    admitted: &Connection,
    buffers: Arc<Semaphore>,
) -> io::Result<()> {
    keep_alive(&stream)?;
    let (mut reader, mut scratch, mut answer) = (FrameReader::new(buffers), Scratch::default(), Vec::new());
    let (idle, authenticated_by) = (limits.idle, Instant::now() + limits.first_frame);
    loop {
        let deadline = if admitted.is_authenticated() { Instant::now() + idle } else { authenticated_by };
        let Some(frame) =
            timeout_at(deadline, reader.next(&mut stream)).await.map_err(|_| io::ErrorKind::TimedOut)??
        else {
            return Ok(());
        };
        match ingest.frame(&mut scratch, ingest.clock().now(), peer, frame) {
            Ok(handled) => {
                // A recorded frame is authentic too: only a new one shows that the peer has the key.
                if handled.is_new {
                    admitted.authenticate();
                    reader.accept_long_frames();
                }
                if let Some(ack) = handled.ack {
                    answer.clear();
                    sign_ack(ingest.keys(), &ack, &mut answer);
                    // A peer that does not read is closed like one that does not send.
                    timeout(idle, write_frame(&mut stream, &answer)).await.map_err(|_| io::ErrorKind::TimedOut)??;
                }
            }
            Err(Reject::Frame | Reject::Key | Reject::Mac) => return Err(io::ErrorKind::InvalidData.into()),
            // One invalid message of a key holder; counted.
            Err(_) => {}
        }
    }
}

/// Splits a stream into frames. Cancel safe.
#[derive(Debug)]
pub struct FrameReader {
    /// Bytes read; the frame returned last is at the beginning.
    bytes: Vec<u8>,
    answered: usize,
    /// Longest accepted frame, its length included.
    max_bytes: usize,
    /// Room for buffers above `SMALL_FRAME_BYTES`, in bytes, and the part of it in use.
    room: Arc<Semaphore>,
    reserved: Option<OwnedSemaphorePermit>,
}

impl FrameReader {
    /// Accepts frames of at most 8 KiB until `accept_long_frames`. `room`: bytes for buffers above 4 KiB, shared by all readers.
    pub fn new(room: Arc<Semaphore>) -> Self {
        Self { bytes: Vec::new(), answered: 0, max_bytes: FIRST_FRAME_BYTES, room, reserved: None }
    }

    /// Accepts frames up to 65,535 bytes from now on.
    pub fn accept_long_frames(&mut self) {
        self.max_bytes = LENGTH_BYTES + usize::from(u16::MAX);
    }

    /// The next frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// The connection's, an end inside a frame, or a frame that is too long.
    pub async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<&[u8]>> {
        self.bytes.drain(..std::mem::take(&mut self.answered));
        self.shrink();
        loop {
            let end = self.end()?;
            if self.bytes.len() >= end {
                self.answered = end;
                return Ok(self.bytes.get(LENGTH_BYTES..end));
            }
            self.grow(end).await?;
            if stream.read_buf(&mut self.bytes).await? == 0 {
                let clean = self.bytes.is_empty();
                return if clean { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Bytes up to the end of the first frame. An unknown length counts as one byte more than was read.
    fn end(&self) -> io::Result<usize> {
        let Some(length) = self.bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(self.bytes.len() + 1) };
        let end = LENGTH_BYTES + usize::from(u16::from_be_bytes(*length));
        if end > self.max_bytes { Err(io::ErrorKind::InvalidData.into()) } else { Ok(end) }
    }

    async fn grow(&mut self, end: usize) -> io::Result<()> {
        if self.bytes.capacity() >= end {
            return Ok(());
        }
        let reserved = self.reserved.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if end > SMALL_FRAME_BYTES && end > reserved {
            let missing = u32::try_from(end - reserved).map_err(|_| io::ErrorKind::InvalidData)?;
            let more = Arc::clone(&self.room).acquire_many_owned(missing).await.map_err(io::Error::other)?;
            match &mut self.reserved {
                Some(reserved) => reserved.merge(more),
                none => *none = Some(more),
            }
        }
        self.bytes.reserve_exact(end.max(BUFFER_BYTES) - self.bytes.len());
        Ok(())
    }

    fn shrink(&mut self) {
        if self.bytes.capacity() > SMALL_FRAME_BYTES && self.bytes.len() <= SMALL_FRAME_BYTES {
            self.bytes.shrink_to(BUFFER_BYTES);
            self.reserved = None;
        }
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
