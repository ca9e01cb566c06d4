//! What `testbed bench heartbeats` measures: authenticated beats from one thread's socket into the table on another's. Here and not
//! in the testbed, as it is all made of this crate's parts.

pub mod codecs;
mod sending;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
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

use self::sending::{Sender, Totals};
use crate::{
    auth::{Keys, Reject},
    clock::Clock,
    codec::Corpus,
    table::{Observation, Recorded, Table},
    transport::{Ingest, udp::Inbox},
};

/// After the sender has ended, this long without a datagram is the end.
const QUIET_MS: u8 = 50;

/// How beats become datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One beat per datagram, each datagram by itself through the network stack (`sendmmsg`, `recvmmsg`).
    Single,
    /// One beat per datagram; the kernel carries up to 64 of them as one message (`UDP_SEGMENT`, `UDP_GRO`).
    SingleSegmented,
    /// As many beats as 1400 bytes hold per datagram.
    Batched,
    /// The same, carried as one message.
    BatchedSegmented,
}

impl Mode {
    pub const ALL: [Self; 4] = [Self::Single, Self::SingleSegmented, Self::Batched, Self::BatchedSegmented];

    /// Those that this kernel can do.
    ///
    /// # Errors
    /// No socket can be had.
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

/// One run of `ingest`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// Beats that were authenticated, decoded and recorded, per second from the first to the last.
    pub beats_per_s: f64,
    /// Of those sent, these never came: the socket's buffer was full.
    pub lost_pct: f64,
    pub beats_per_datagram: f64,
    /// Payload of UDP, MAC included.
    pub bytes_per_beat: f64,
}

/// Sends for `length` from one thread and receives on another, both on the same two cores; a sender that runs ahead of the
/// receiver is slowed down, as beats lost in a full buffer would only waste what both share.
///
/// # Errors
/// No sockets, or the receiver dropped what it should not have.
pub fn ingest(mode: Mode, length: Duration, nodes: u64) -> io::Result<Run> {
    // A thread of its own: the caller's keeps its cores. What it starts inherits these.
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
    let keys = Keys::new(1, b"bench");
    let table = Arc::new(Table::new(nodes as usize));
    let ingest = Arc::new(Ingest::new(Clock::start(), keys.clone(), table, None));
    let done = Arc::new(AtomicBool::new(false));
    let monitor = receiver.local_addr()?;
    let receiving = {
        let (ingest, done) = (Arc::clone(&ingest), Arc::clone(&done));
        thread::spawn(move || receive(&receiver, &state, &ingest, &done))
    };
    let start = Instant::now();
    let sent = send(mode, monitor, keys, &ingest, length, nodes);
    done.store(true, Relaxed);
    let last = receiving.join().map_err(|_| io::Error::other("the receiver has panicked"))??;
    let sent = sent?;
    let received = ingest.counts().accepted();
    let wrong = ingest.counts().rejected_total() - ingest.counts().rejected(Reject::TooOld);
    if wrong > 0 || received == 0 {
        return Err(io::Error::other(format!("{wrong} of {} beats were rejected, {received} accepted", sent.beats)));
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
    ingest: &Ingest,
    length: Duration,
    nodes: u64,
) -> io::Result<Totals> {
    let mut sender = Sender::connect(monitor, keys, mode.batched(), mode.segmented())?;
    let mut beats: Vec<_> = (0..nodes).map(|n| Corpus::held_out().beat(n)).collect();
    let start = Instant::now();
    while start.elapsed() < length {
        for beat in &mut beats {
            beat.sequence += 1;
            sender.push(beat)?;
            if sender.totals().beats % 64 == 0 {
                if start.elapsed() >= length {
                    break;
                }
                wait_for(ingest, sender.totals().beats, mode);
            }
        }
    }
    sender.flush()?;
    Ok(*sender.totals())
}

/// At most so many datagrams are under way that the receiver's buffer holds them.
fn wait_for(ingest: &Ingest, sent: u64, mode: Mode) {
    // A datagram takes some 770 bytes of the buffer's 208 KB at the least, however short it is. Datagrams that wait for others of
    // their length are under way, too.
    let under_way = match mode {
        Mode::Single => 192,
        Mode::Batched => 1_024,
        Mode::SingleSegmented | Mode::BatchedSegmented => 4_096,
    };
    let mut spins = 0;
    while sent.saturating_sub(ingest.counts().accepted()) > under_way && spins < 20_000 {
        std::hint::spin_loop();
        spins += 1;
    }
}

fn receive(socket: &UdpSocket, state: &UdpSocketState, ingest: &Ingest, done: &AtomicBool) -> io::Result<Instant> {
    let mut inbox = Inbox::new()?;
    let mut last = Instant::now();
    loop {
        match inbox.fill(UdpSockRef::from(socket), state) {
            Ok(messages) => {
                inbox.deliver(messages, ingest, |_, _| {});
                last = Instant::now();
            }
            // Not a blocking socket: `recvmmsg` would wait until all its buffers are full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                if poll(&mut wanted, PollTimeout::from(QUIET_MS))? == 0 && done.load(Relaxed) {
                    return Ok(last);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// One run of `table`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TableRun {
    /// Slots and ids, as allocated.
    pub bytes_per_node: f64,
    /// A beat of a node at random, with its id hashed, in groups as a receiver sees them.
    pub ns_per_beat: f64,
    /// The same, one call per beat.
    pub ns_per_beat_alone: f64,
}

/// A table of `nodes`, then `rounds` beats of each in random order.
///
/// # Errors
/// A beat was refused.
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
    // In random order; names that the corpus made twice stand for one node, whose second beat would be a repetition.
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by_key(|&n| xxh3_64(ids[n].as_bytes()));
    order.dedup_by_key(|&mut n| ids[n].as_str());
    order.sort_by_cached_key(|n| xxh3_64(&n.to_le_bytes()));
    let mut group = Vec::with_capacity(GROUP);
    let (mut grouped, mut alone) = (Duration::ZERO, Duration::ZERO);
    for sequence in 1..=1 + 2 * rounds {
        for part in order.chunks(GROUP) {
            group.clear();
            // Reading the ids is the datagram's cost, not the table's: it is done before the clock starts.
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
