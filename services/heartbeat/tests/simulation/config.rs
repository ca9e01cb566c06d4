//! What a run simulates, and the mutants: defects in the shells of the simulation. None of them is in the product's code.

use heartbeat::{Nanos, assign::PARTITIONS, detector::AnyDetector, vote};

use crate::faults::{Fault, Kind};

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MS;
/// All partitions, as a bit mask.
pub const ALL_PARTITIONS: u32 = (1 << PARTITIONS) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// One monitor decides alone.
    QuorumOfOne,
    /// The registry accepts the commit of every leader of any term, on any table.
    AnyCommit,
    /// The store accepts every epoch.
    AnyFence,
    /// The store does not compare the processes of two writers in one epoch, and workers do not compare theirs with the table's.
    AnyProcess,
    /// Workers answer clients before the store has accepted the write.
    AcknowledgedBeforeStored,
    /// A leader without the quorum does not resign.
    LeaderWithoutQuorum,
    /// Only the silence of heartbeats counts as evidence.
    HeartbeatsAlone,
    /// Complaints of requesters are not reported.
    NoComplaints,
    /// A worker sets all fences of one table before it reads the next.
    SerialTakeover,
    /// A worker ignores that its registration was refused.
    IgnoresRefusal,
    /// Workers do not report epochs, neither the table's nor later ones in the store.
    SilentOverrule,
    /// Votes of any age count.
    AgelessVotes,
    /// Heartbeats of any age are signs of life.
    AgelessBeats,
    /// Registrations are removed although their worker may still write.
    ForgetsEarly,
    /// Workers that come back get partitions immediately.
    NoDamping,
    /// The store accepts batches of every epoch and process.
    UnfencedBatch,
    /// The store accepts batches that begin at any offset.
    AnyOffset,
    /// Workers fold actions that the log has.
    KeepsLogged,
    /// Workers fold an action as often as a batch has it.
    KeepsRepeated,
    /// Workers do not wait until the broker has their dead letters.
    ForgetsDeadLetters,
}

impl Mutant {
    pub const ALL: [Self; 20] = [
        Self::QuorumOfOne,
        Self::AnyCommit,
        Self::AnyFence,
        Self::AnyProcess,
        Self::AcknowledgedBeforeStored,
        Self::LeaderWithoutQuorum,
        Self::HeartbeatsAlone,
        Self::NoComplaints,
        Self::SerialTakeover,
        Self::IgnoresRefusal,
        Self::SilentOverrule,
        Self::AgelessVotes,
        Self::AgelessBeats,
        Self::ForgetsEarly,
        Self::NoDamping,
        Self::UnfencedBatch,
        Self::AnyOffset,
        Self::KeepsLogged,
        Self::KeepsRepeated,
        Self::ForgetsDeadLetters,
    ];
}

#[derive(Clone)]
pub struct Config {
    pub seed: u64,
    pub monitors: usize,
    /// Workers that run from the beginning.
    pub workers: usize,
    /// Processes that faults start: clones and newcomers. Their numbers follow the workers'.
    pub spares: usize,
    pub interval: Nanos,
    pub detector: AnyDetector,
    /// Intervals of silence that the detector allows until it knows the link.
    pub careful: u64,
    /// Datagrams lost without faults.
    pub loss: f64,
    pub length: Nanos,
    /// Names that are gone are removed after this time.
    pub forget_after: Nanos,
    pub faults: Vec<Fault>,
    /// Number of scenes that the faults belong to.
    pub scenes: u64,
    /// Workers follow the table, and a client writes.
    pub serve: bool,
    /// Clients send behaviour events to topics, and workers consume them.
    pub events: bool,
    pub mutant: Option<Mutant>,
    /// Prints every change of the partition table.
    pub verbose: bool,
}

impl Config {
    pub fn new(seed: u64, monitors: usize, workers: usize, length: Nanos) -> Self {
        Self {
            seed,
            monitors,
            workers,
            spares: 0,
            interval: SECOND,
            detector: fixed(SECOND),
            careful: 0,
            loss: 0.0,
            length,
            forget_after: Nanos::MAX,
            faults: Vec::new(),
            scenes: 0,
            serve: true,
            events: false,
            mutant: None,
            verbose: std::env::var_os("SIMULATION_VERBOSE").is_some(),
        }
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether a fault replays this worker's heartbeats.
    pub fn is_replayed(&self, number: usize) -> bool {
        self.faults.iter().any(|fault| matches!(fault.kind, Kind::Replay { worker, .. } if worker == number))
    }

    pub fn quorum(&self) -> fn(usize) -> usize {
        if self.is(Mutant::QuorumOfOne) { |_| 1 } else { vote::majority }
    }

    /// Maximum number of tables since the first fault. An outage of a worker costs: it fails, comes back, and gets a few partitions in
    /// planned moves of two tables each.
    pub fn tables(&self) -> u64 {
        if self.scenes == 0 { u64::MAX } else { 20 + 20 * self.scenes }
    }

    /// Time in which a partition is served again if the same majority of monitors and one worker were healthy throughout.
    pub fn restored_within(&self) -> Nanos {
        // The lease of a dead leader, then detection and takeover.
        8 * SECOND + (8 + self.careful) * self.interval
    }
}

/// The monitors' default detector: suspects after 1.3 intervals of silence.
pub fn fixed(interval: Nanos) -> AnyDetector {
    let params = [("suspect".to_owned(), 1.3), ("scan".to_owned(), 0.0)];
    AnyDetector::named("fixed", interval, &params).expect("its parameters are in range")
}

pub fn adaptive(interval: Nanos) -> AnyDetector {
    AnyDetector::named("adaptive", interval, &[]).expect("it is a known detector")
}
