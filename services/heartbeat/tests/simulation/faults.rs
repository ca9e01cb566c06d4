//! Faults of a run.

use heartbeat::Nanos;

/// A process, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    Monitor(usize),
    Worker(usize),
    Registry,
    Client,
}

/// What is wrong with the path from a worker to some partitions of the store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    /// Every request needs this much longer.
    Slow(Nanos),
    /// Requests arrive when the fault ends.
    Hang,
    /// This share of the requests is answered with an error.
    Fail(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Nothing passes in this direction; a full cut is two of these.
    Cut { from: Who, to: Who },
    /// Datagrams in this direction are lost at this rate; segments of streams are repeated.
    LossyLink { from: Who, to: Who, rate: f64 },
    /// Every message in this direction needs up to this much longer; datagrams overtake each other.
    SlowLink { from: Who, to: Who, most: Nanos },
    /// Heartbeats in this direction wait, and arrive one by one after the end, one in each interval.
    HeldBack { from: Who, to: Who },
    /// All links lose datagrams at this rate.
    Loss(f64),
    /// SIGSTOP and SIGCONT: messages to it wait.
    Pause(Who),
    /// The monitor receives, but its control loop does not come to its inputs.
    Backlog { monitor: usize },
    /// SIGKILL, and a restart at the end. Only the registry keeps its state.
    Crash(Who),
    /// Announces that it leaves, stops once it owns nothing, and is started again at the end.
    Leave { worker: usize },
    /// A spare process starts with the name and the incarnation of this worker, and dies for good at the end.
    Clone { spare: usize, of: usize },
    /// A spare process starts with a new name, and dies for good at the end.
    Newcomer { spare: usize },
    /// The wall clock is set, for good.
    ClockStep { who: Who, by_ms: i64 },
    /// Heartbeats of this worker that arrived in the last seconds before the fault are sent to the monitor again, at their rate.
    Replay { worker: usize, monitor: usize },
    /// The worker sends heartbeats and answers probes, but drops requests for these partitions.
    Gray { worker: usize, partitions: u32 },
    /// `worker`: `None` for all.
    Store { worker: Option<usize>, partitions: u32, trouble: Trouble },
    /// Every request to the registry needs this much longer.
    SlowRegistry(Nanos),
    /// The leader's lease is lost; keys are kept.
    LeaseLost,
    /// Leases do not run down.
    LeaseFrozen,
    /// All keys are lost.
    Emptied,
    /// The registry is restored from its state of this long ago.
    Restored { age: Nanos },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    pub at: Nanos,
    pub lasts: Nanos,
    pub kind: Kind,
}

impl Fault {
    pub fn end(&self) -> Nanos {
        self.at + self.lasts
    }
}
