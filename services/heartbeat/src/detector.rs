//! Failure detectors: when has a silent node been silent for too long?
//!
//! Each is a pure state machine of bounded size with constant time per heartbeat. [`AnyDetector`] holds any of them by value: static
//! dispatch, and cloning, which `quality` uses to simulate a crash.

mod adaptive;
mod any;
mod backoff;
mod bertier;
mod chen;
mod chitchat;
mod consecutive;
mod ewma;
mod fixed;
mod histogram;
mod losses;
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
    phi::{GapDistribution, Phi},
};
use crate::Nanos;

/// One observer's detector of one node. It turns heartbeats into the time at which silence becomes a suspicion.
pub trait Detector: Send {
    /// Heartbeat `sequence` of this node was received at `now`. Also called for heartbeats out of order or received before.
    fn heard(&mut self, now: Nanos, sequence: u64);

    /// The time at which the node is suspected if nothing more is heard. `None`: nothing was heard yet.
    fn deadline(&self) -> Option<Nanos>;

    /// Whether the node is suspected at `now`.
    fn suspects(&self, now: Nanos) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }
}

/// Arrival of the newest heartbeat. An older or repeated one carries no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NewestBeat {
    at: Nanos,
    sequence: u64,
}

impl NewestBeat {
    /// Stores the heartbeat if it is the newest.
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

/// Intervals as nanoseconds, at most 2^53 (104 days), so that sums cannot overflow.
fn to_nanos(interval: Nanos, intervals: f64) -> Nanos {
    (interval as f64 * intervals).clamp(0.0, (1_u64 << 53) as f64) as Nanos
}
