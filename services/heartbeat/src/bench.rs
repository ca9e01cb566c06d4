//! Benchmarks behind `testbed bench heartbeats`: authenticated heartbeats go from one thread's socket through the table of a second thread to
//! the observer of a third, as in a monitor.

pub mod codecs;
mod observing;
mod sending;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use quinn_udp::{UdpSockRef, UdpSocketState};
use xxhash_rust::xxh3::xxh3_64;

use self::{
    observing::Observing,
    sending::{Sender, Totals},
};
use crate::{
    auth::{Keys, Reject},
    clock::Clock,
    codec::Corpus,
    message::Beat,
    table::{Observation, Recorded, Table},
    transport::{Ingest, udp::Inbox},
};

/// Silence after the sender has ended that ends the receiver.
const QUIET_MS: u8 = 50;

/// How heartbeats are packed and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One heartbeat per datagram, each datagram separately through the network stack (`sendmmsg`, `recvmmsg`).
    Single,
    /// One heartbeat per datagram; the kernel carries up to 64 of them as one message (`UDP_SEGMENT`, `UDP_GRO`).
    SingleSegmented,
    /// As many heartbeats per datagram as 1400 bytes hold.
    Batched,
    /// The same, with datagrams carried as one message.
    BatchedSegmented,
}

impl Mode {
    pub const ALL: [Self; 4] = [Self::Single, Self::SingleSegmented, Self::Batched, Self::BatchedSegmented];

    /// The modes that this kernel supports.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub fn available() -> io::Result<Vec<Self>> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let segments = state.max_gso_segments() > 1 && state.gro_segments() > 1;
        Ok(Self::ALL.into_iter().filter(|mode| segments || !mode.segmented()).collect())
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "one beat per datagram",
            Self::SingleSegmented => "one beat per datagram, UDP_SEGMENT + UDP_GRO",
            Self::Batched => "batches",
            Self::BatchedSegmented => "batches, UDP_SEGMENT + UDP_GRO",
        }
    }

    fn batched(self) -> bool {
        matches!(self, Self::Batched | Self::BatchedSegmented)
    }

    fn segmented(self) -> bool {
        matches!(self, Self::SingleSegmented | Self::BatchedSegmented)
    }
}

/// Result of one run of `ingest`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// Heartbeats authenticated, decoded, recorded in the table and handled by the observer, per second.
    pub beats_per_s: f64,
    /// Percentage of sent heartbeats that were lost because the socket's buffer or the observer's queue was full.
    pub lost_pct: f64,
    pub beats_per_datagram: f64,
    /// UDP payload per heartbeat, MAC included.
    pub bytes_per_beat: f64,
}

/// Sends for `length` from one thread, receives on a second and observes on a third, all on the same two cores. A sender that is ahead of the
/// observer slows down, because lost heartbeats would only waste CPU.
///
/// # Errors
/// Sockets cannot be opened, or the receiver rejected valid heartbeats.
pub fn ingest(mode: Mode, length: Duration, nodes: u64) -> io::Result<Run> {
    // In a separate thread, which passes its CPU affinity on, so that the caller keeps its own.
    let both = thread::spawn(move || {
        stay_on_two_cores()?;
        send_and_receive(mode, length, nodes)
    });
    both.join().map_err(|_| io::Error::other("the sender has panicked"))?
}

fn stay_on_two_cores() -> io::Result<()> {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let mut two = CpuSet::new();
    for cpu in (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true)).take(2) {
        two.set(cpu)?;
    }
    Ok(sched_setaffinity(this_thread, &two)?)
}

fn send_and_receive(mode: Mode, length: Duration, nodes: u64) -> io::Result<Run> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    let state = UdpSocketState::new(UdpSockRef::from(&receiver))?;
    state.set_recv_buffer_size(UdpSockRef::from(&receiver), 4 << 20)?;
    let keys = Keys::new(b"bench");
    let table = Arc::new(Table::new(nodes as usize));
    let clock = Clock::start();
    let beats: Vec<Beat> = (0..nodes).map(|n| Corpus::held_out().beat(n)).collect();
    let (sink, observing) = Observing::start(clock, &beats)?;
    let ingest = Arc::new(Ingest::new(clock, keys.clone(), table, Some(Arc::new(sink))));
    let done = Arc::new(AtomicBool::new(false));
    let monitor = receiver.local_addr()?;
    let receiving = {
        let (ingest, done) = (Arc::clone(&ingest), Arc::clone(&done));
        thread::spawn(move || receive(&receiver, &state, &ingest, &done))
    };
    let start = Instant::now();
    let sent = send(mode, monitor, keys, observing.observed(), length, beats);
    done.store(true, Relaxed);
    receiving.join().map_err(|_| io::Error::other("the receiver has panicked"))??;
    let sent = sent?;
    let wrong = ingest.counts().rejected_total() - ingest.counts().rejected(Reject::TooOld);
    // The last sender to the observer's queue: the observer ends.
    drop(ingest);
    let (received, last) = observing.join()?;
    if wrong > 0 || received == 0 {
        return Err(io::Error::other(format!("{wrong} of {} beats were rejected, {received} observed", sent.beats)));
    }
    let seconds = last.duration_since(start).as_secs_f64();
    Ok(Run {
        beats_per_s: received as f64 / seconds,
        lost_pct: 100.0 * (1.0 - received as f64 / sent.beats as f64),
        beats_per_datagram: sent.beats as f64 / sent.datagrams as f64,
        bytes_per_beat: sent.bytes as f64 / sent.beats as f64,
    })
}

fn send(
    mode: Mode,
    monitor: SocketAddr,
    keys: Keys,
    observed: &AtomicU64,
    length: Duration,
    mut beats: Vec<Beat>,
) -> io::Result<Totals> {
    let mut sender = Sender::connect(monitor, keys, mode.batched(), mode.segmented())?;
    let start = Instant::now();
    while start.elapsed() < length {
        for beat in &mut beats {
            beat.sequence += 1;
            sender.push(beat)?;
            if sender.totals().beats % 64 == 0 {
                if start.elapsed() >= length {
                    break;
                }
                wait_for(observed, sender.totals().beats, mode);
            }
        }
    }
    sender.flush()?;
    Ok(*sender.totals())
}

/// Limits the datagrams in flight to what the receiver's buffer holds.
fn wait_for(observed: &AtomicU64, sent: u64, mode: Mode) {
    // A datagram takes at least 770 bytes of the 208 KB buffer. Datagrams that wait for others of their length are in flight too.
    let under_way = match mode {
        Mode::Single => 192,
        Mode::Batched => 1_024,
        Mode::SingleSegmented | Mode::BatchedSegmented => 4_096,
    };
    let mut spins = 0;
    while sent.saturating_sub(observed.load(Relaxed)) > under_way && spins < 20_000 {
        std::hint::spin_loop();
        spins += 1;
    }
}

fn receive(socket: &UdpSocket, state: &UdpSocketState, ingest: &Ingest, done: &AtomicBool) -> io::Result<()> {
    let mut inbox = Inbox::new()?;
    loop {
        match inbox.fill(UdpSockRef::from(socket), state) {
            Ok(messages) => inbox.deliver(messages, ingest, |_, _| {}),
            // Not a blocking socket: `recvmmsg` would wait until all its buffers are full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                if poll(&mut wanted, PollTimeout::from(QUIET_MS))? == 0 && done.load(Relaxed) {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Result of one run of `table`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TableRun {
    /// Bytes allocated for slots and ids.
    pub bytes_per_node: f64,
    /// A heartbeat of a random node, id hashing included, in groups as a receiver has them.
    pub ns_per_beat: f64,
    /// The same with one call per heartbeat.
    pub ns_per_beat_alone: f64,
}

/// A table of `nodes`, then `rounds` heartbeats of each in random order.
///
/// # Errors
/// A heartbeat was refused.
pub fn table(nodes: u64, rounds: u64) -> io::Result<TableRun> {
    const GROUP: usize = 512;
    let table = Table::new(nodes as usize);
    let ids: Vec<String> = (0..nodes).map(|n| Corpus::held_out().beat(n).node_id).collect();
    let observation =
        |n: usize, sequence| Observation { node_id: &ids[n], at: sequence, incarnation: 1, sequence, load: 0.5 };
    let mut outcomes = Vec::new();
    let mut record = |observations: &[Observation<'_>]| {
        table.record_all(observations, &mut outcomes);
        if outcomes.iter().all(|outcome: &Recorded| outcome.accepted()) {
            Ok(())
        } else {
            Err(io::Error::other("a beat was refused"))
        }
    };
    // In random order. Duplicate names in the corpus are one node, whose second heartbeat would be a repetition.
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by_key(|&n| xxh3_64(ids[n].as_bytes()));
    order.dedup_by_key(|&mut n| ids[n].as_str());
    order.sort_by_cached_key(|n| xxh3_64(&n.to_le_bytes()));
    let mut group = Vec::with_capacity(GROUP);
    let (mut grouped, mut alone) = (Duration::ZERO, Duration::ZERO);
    for sequence in 1..=1 + 2 * rounds {
        for part in order.chunks(GROUP) {
            group.clear();
            // Reads the ids before the clock starts: that cost belongs to the datagram.
            group.extend(part.iter().map(|&n| observation(n, sequence)));
            std::hint::black_box(
                group.iter().map(|each| each.node_id.bytes().map(u64::from).sum::<u64>()).sum::<u64>(),
            );
            let start = Instant::now();
            if sequence % 2 == 1 {
                record(&group)?;
                // The first round builds the table.
                grouped += if sequence == 1 { Duration::ZERO } else { start.elapsed() };
            } else {
                for each in &group {
                    table.record(each);
                }
                alone += start.elapsed();
            }
        }
    }
    let beats = (rounds * order.len() as u64) as f64;
    Ok(TableRun {
        bytes_per_node: table.bytes() as f64 / table.len() as f64,
        ns_per_beat: grouped.as_secs_f64() * 1e9 / beats,
        ns_per_beat_alone: alone.as_secs_f64() * 1e9 / beats,
    })
}
