//! Sends heartbeats as datagrams. `SingleSender` sends one per datagram, `BatchSender` packs those of many nodes.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{net::UdpSocket, time::interval};
use tokio_util::sync::CancellationToken;

use super::BatchWriter;
use crate::{auth::Keys, codec::Protobuf, frame::sign_beat, message::Beat};

/// Maximum wait in a batch, plus a turn of the timer.
const FLUSH_EVERY: Duration = Duration::from_millis(1);

/// Datagrams so far.
#[derive(Debug, Default)]
pub struct SendCounts {
    datagrams: AtomicU64,
    refused: AtomicU64,
}

impl SendCounts {
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Relaxed)
    }

    /// The socket had no room, or the port does not listen. Not repeated: the next heartbeat replaces it.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn note(&self, result: io::Result<usize>) {
        let count = if result.is_ok() { &self.datagrams } else { &self.refused };
        count.fetch_add(1, Relaxed);
    }
}

/// Sends heartbeats without acknowledgement.
pub trait DatagramSender: Send + Sync {
    fn send(&self, beat: &Beat);
    fn counts(&self) -> &SendCounts;
}

/// # Errors
/// A socket cannot be opened.
async fn connected(monitor: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(if monitor.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
    socket.connect(monitor).await?;
    Ok(socket)
}

/// One Protobuf heartbeat per datagram, over a socket that all nodes of the process share.
pub struct SingleSender {
    socket: UdpSocket,
    keys: Keys,
    counts: SendCounts,
}

impl SingleSender {
    /// # Errors
    /// A socket cannot be opened.
    pub async fn connect(monitor: SocketAddr, keys: Keys) -> io::Result<Self> {
        Ok(Self { socket: connected(monitor).await?, keys, counts: SendCounts::default() })
    }

    /// Sends to another address from now on.
    ///
    /// # Errors
    /// The socket cannot reach addresses of this kind.
    pub async fn redirect(&self, monitor: SocketAddr) -> io::Result<()> {
        self.socket.connect(monitor).await
    }
}

impl DatagramSender for SingleSender {
    fn send(&self, beat: &Beat) {
        let mut datagram = Vec::with_capacity(256);
        if sign_beat(&self.keys, &mut Protobuf, beat, false, &mut datagram).is_ok() {
            self.counts.note(self.socket.try_send(&datagram));
        }
    }

    fn counts(&self) -> &SendCounts {
        &self.counts
    }
}

/// Heartbeats of many nodes per datagram, flushed every millisecond.
pub struct BatchSender {
    socket: UdpSocket,
    writer: Mutex<BatchWriter>,
    counts: SendCounts,
}

impl BatchSender {
    /// # Errors
    /// A socket cannot be opened.
    pub async fn connect(monitor: SocketAddr, writer: BatchWriter) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            socket: connected(monitor).await?,
            writer: Mutex::new(writer),
            counts: SendCounts::default(),
        }))
    }

    /// Flushes until `stop`, and once more then.
    pub async fn keep_flushing(&self, stop: CancellationToken) {
        let mut ticks = interval(FLUSH_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.lock().flush(|datagram| self.note(datagram));
        }
        self.lock().flush(|datagram| self.note(datagram));
    }

    fn note(&self, datagram: &[u8]) {
        self.counts.note(self.socket.try_send(datagram));
    }

    fn lock(&self) -> MutexGuard<'_, BatchWriter> {
        // After a panic, a half-written datagram fails its MAC, and the next one starts again.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DatagramSender for BatchSender {
    fn send(&self, beat: &Beat) {
        self.lock().push(beat, |datagram| self.note(datagram));
    }

    fn counts(&self) -> &SendCounts {
        &self.counts
    }
}
