//! From beats to datagrams. `Single` sends each beat by itself, `Batched` packs those of many nodes: every beat is written once,
//! into the datagram that leaves.

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

/// What waits in a batch waits at most so long, and a turn of the timer.
const FLUSH_EVERY: Duration = Duration::from_millis(1);

/// Datagrams so far.
#[derive(Debug, Default)]
pub struct Sent {
    datagrams: AtomicU64,
    refused: AtomicU64,
}

impl Sent {
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Relaxed)
    }

    /// The socket had no room or the port nobody listening. A beat is not worth waiting for: the next one says more.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn note(&self, result: io::Result<usize>) {
        let count = if result.is_ok() { &self.datagrams } else { &self.refused };
        count.fetch_add(1, Relaxed);
    }
}

/// Where beats go that nobody waits for.
pub trait Outlet: Send + Sync {
    fn send(&self, beat: &Beat);
    fn sent(&self) -> &Sent;
}

/// # Errors
/// No socket can be had.
async fn connected(monitor: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(if monitor.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
    socket.connect(monitor).await?;
    Ok(socket)
}

/// One Protobuf beat per datagram, over a socket that all nodes of the process share.
pub struct Single {
    socket: UdpSocket,
    keys: Keys,
    sent: Sent,
}

impl Single {
    /// # Errors
    /// No socket can be had.
    pub async fn connect(monitor: SocketAddr, keys: Keys) -> io::Result<Self> {
        Ok(Self { socket: connected(monitor).await?, keys, sent: Sent::default() })
    }

    /// Sends there from now on: the monitor has another address.
    ///
    /// # Errors
    /// The socket cannot reach addresses of this kind.
    pub async fn redirect(&self, monitor: SocketAddr) -> io::Result<()> {
        self.socket.connect(monitor).await
    }
}

impl Outlet for Single {
    fn send(&self, beat: &Beat) {
        let mut datagram = Vec::with_capacity(256);
        if sign_beat(&self.keys, &mut Protobuf, beat, false, &mut datagram).is_ok() {
            self.sent.note(self.socket.try_send(&datagram));
        }
    }

    fn sent(&self) -> &Sent {
        &self.sent
    }
}

/// Beats of many nodes per datagram, flushed every millisecond.
pub struct Batched {
    socket: UdpSocket,
    writer: Mutex<BatchWriter>,
    sent: Sent,
}

impl Batched {
    /// # Errors
    /// No socket can be had.
    pub async fn connect(monitor: SocketAddr, writer: BatchWriter) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { socket: connected(monitor).await?, writer: Mutex::new(writer), sent: Sent::default() }))
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
        self.sent.note(self.socket.try_send(datagram));
    }

    fn lock(&self) -> MutexGuard<'_, BatchWriter> {
        // A datagram that a panic left half written fails its MAC, and the next one begins anew.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet for Batched {
    fn send(&self, beat: &Beat) {
        self.lock().push(beat, |datagram| self.note(datagram));
    }

    fn sent(&self) -> &Sent {
        &self.sent
    }
}
