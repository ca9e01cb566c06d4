use super::{Detector, NewestBeat, to_nanos};
use crate::Nanos;

/// Exponential back-off: a missed heartbeat starts probes with timeouts of `base`, 2 × base, 4 × base, …; the node is suspected when the
/// last is unanswered.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// Time after a heartbeat until the next counts as missed.
    patience: Nanos,
    base: Nanos,
    probes: u32,
    latest: Option<NewestBeat>,
}

impl Backoff {
    /// At most 30 probes.
    pub fn new(interval: Nanos, base: Nanos, probes: u32) -> Self {
        Self { patience: to_nanos(interval, 1.1), base, probes: probes.min(30), latest: None }
    }
}

impl Detector for Backoff {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        NewestBeat::advance(&mut self.latest, now, sequence);
    }

    fn deadline(&self) -> Option<Nanos> {
        Some(self.latest?.at + self.patience + self.base * ((1 << self.probes) - 1))
    }
}
