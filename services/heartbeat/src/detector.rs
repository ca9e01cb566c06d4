//! Failure detectors: when has a silent node been silent for too long?
//!
//! Each is a pure state machine of bounded size; a beat costs a constant number of steps. [`AnyDetector`] holds one of them by value:
//! it is dispatched statically and can be cloned, which is how a crash is tried out without disturbing the original.

mod adaptive;
mod any;
mod backoff;
mod bertier;
mod chen;
mod chitchat;
mod consecutive;
mod ewma;
mod fixed;
mod guard;
mod lateness;
mod losses;
mod majority;
mod phi;
mod reordering;
mod tail;
#[cfg(test)]
mod tests;
mod window;

pub use self::{
    adaptive::Adaptive,
    any::{AnyDetector, BadParam, DetectorKind, KINDS, Param},
    backoff::Backoff,
    bertier::Bertier,
    chen::Chen,
    chitchat::Chitchat,
    consecutive::Consecutive,
    ewma::Ewma,
    fixed::Fixed,
    guard::Guard,
    majority::Majority,
    phi::{GapDistribution, Phi},
};
use crate::Nanos;

/// What one observer knows of one node. A detector turns beats into the instant at which silence becomes suspicion;
/// everything after that (soft states, votes) is somebody else's.
pub trait Detector: Send {
    /// Beat `sequence` of this node was received at `now`. A beat out of order or seen before is given as well: the
    /// detector decides what it is worth.
    fn heard(&mut self, now: Nanos, sequence: u64);

    /// The first instant at which the node is suspected if nothing more is heard. `None`: nothing was heard yet.
    fn deadline(&self) -> Option<Nanos>;

    /// Whether the node is suspected at `now`.
    fn suspects(&self, now: Nanos) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    /// For detectors that tell more than one degree apart.
    fn status(&self, now: Nanos) -> Status {
        if self.suspects(now) { Status::Suspected } else { Status::Alive }
    }
}

/// How a node stands by one detector alone, in ascending reordering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Alive,
    Suspected,
    /// Silent for so long that it is taken off-line.
    Offline,
    /// So many failures in a row that the way to the node is taken for cut: the node may live beyond it.
    Partitioned,
}

/// The arrival of the newest beat. What is older than it, or the same again, is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NewestBeat {
    at: Nanos,
    sequence: u64,
}

impl NewestBeat {
    /// Replaces what is kept, and answers it, if the beat is news. A first beat is news of which there is no predecessor.
    fn advance(kept: &mut Option<Self>, at: Nanos, sequence: u64) -> Advance {
        match *kept {
            Some(before) if sequence <= before.sequence => Advance::Old,
            before => {
                *kept = Some(Self { at, sequence });
                before.map_or(Advance::First, Advance::Since)
            }
        }
    }
}

enum Advance {
    Old,
    First,
    Since(NewestBeat),
}

/// A to_nanos given in beats' intervals. Never more than 2^53 ns (104 days), so that sums of instants stay far from overflowing.
fn to_nanos(interval: Nanos, intervals: f64) -> Nanos {
    (interval as f64 * intervals).clamp(0.0, (1_u64 << 53) as f64) as Nanos
}
