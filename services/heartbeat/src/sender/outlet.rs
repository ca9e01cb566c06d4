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

use crate::{
    auth::{Header, Keys, Kind, MAC_BYTES},
    codec::{CodecId, Protobuf, protobuf},
    message::{Beat, MAX_BATCH},
    transport::seal_beat,
};

/// Payload that passes an Ethernet of 1500 bytes without fragments, IPv6 and some tunnel headers allowed for.
pub const DATAGRAM_BYTES: usize = 1400;
/// Room for the end of a batch beside the sender's name: its key and length, two numbers, MAC.
const TAIL_BYTES: usize = 2 + 2 * 11 + MAC_BYTES;
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
        if seal_beat(&self.keys, &mut Protobuf, beat, false, &mut datagram).is_ok() {
            self.sent.note(self.socket.try_send(&datagram));
        }
    }

    fn sent(&self) -> &Sent {
        &self.sent
    }
}

/// Packs beats into one datagram after the other. Pure but for the numbers it draws.
pub struct BatchWriter {
    keys: Keys,
    sender: String,
    incarnation: u64,
    sequence: u64,
    limit: usize,
    padded: bool,
    datagram: Vec<u8>,
    beats: usize,
}

impl BatchWriter {
    /// `sender` by the rule of ids; `limit` in bytes of a datagram, MAC included.
    pub fn new(keys: Keys, sender: String, incarnation: u64, limit: usize) -> Self {
        let datagram = Vec::with_capacity(limit.max(DATAGRAM_BYTES));
        Self { keys, sender, incarnation, sequence: 0, limit, padded: false, datagram, beats: 0 }
    }

    /// Makes every full datagram exactly `limit` bytes long: `UDP_SEGMENT` wants one length for all.
    pub fn padded(self) -> Self {
        Self { padded: true, ..self }
    }

    /// Adds a beat. If it finds no room, the datagram before it is finished and given to `full` first. A beat longer than a
    /// datagram gets one of its own, which is too long for `limit`.
    pub fn push(&mut self, beat: &Beat, full: impl FnOnce(&[u8])) {
        if self.beats == 0 {
            self.begin();
        }
        let before = self.datagram.len();
        protobuf::append_to_batch(beat, &mut self.datagram);
        let crowded = self.datagram.len() + TAIL_BYTES + self.sender.len() > self.limit || self.beats == MAX_BATCH;
        if crowded && self.beats > 0 {
            // Rare (once per datagram): the beat is written a second time.
            self.datagram.truncate(before);
            self.finish(full, self.padded);
            self.begin();
            protobuf::append_to_batch(beat, &mut self.datagram);
        }
        self.beats += 1;
    }

    /// Gives what is there to `full`, if anything is.
    pub fn flush(&mut self, full: impl FnOnce(&[u8])) {
        if self.beats > 0 {
            self.finish(full, false);
        }
    }

    fn begin(&mut self) {
        self.datagram.clear();
        let header = Header { kind: Kind::Batch, codec: CodecId::Protobuf, ack_wanted: false };
        self.keys.begin(header, &mut self.datagram);
    }

    fn finish(&mut self, full: impl FnOnce(&[u8]), padded: bool) {
        self.sequence += 1;
        protobuf::finish_batch(&self.sender, self.incarnation, self.sequence, &mut self.datagram);
        if padded {
            protobuf::pad_batch(self.limit - MAC_BYTES, &mut self.datagram);
        }
        self.keys.finish(0, &mut self.datagram);
        full(&self.datagram);
        self.beats = 0;
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
