//! Failure detectors: when has a silent node been silent for too long?

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
}
