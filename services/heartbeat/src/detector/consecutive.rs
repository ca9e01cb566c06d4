use super::{Detector, NewestBeat, to_nanos};
use crate::Nanos;

/// The first of consecutive failures is a suspicion. A heartbeat that is more than `patience` late is a failure.
#[derive(Debug, Clone)]
pub struct Consecutive {
    timeout: Nanos,
    latest: Option<NewestBeat>,
}

impl Consecutive {
    /// `patience` is in intervals.
    pub fn new(interval: Nanos, patience: f64) -> Self {
        Self { timeout: interval + to_nanos(interval, patience), latest: None }
    }
}

impl Detector for Consecutive {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        NewestBeat::advance(&mut self.latest, now, sequence);
    }

    fn deadline(&self) -> Option<Nanos> {
        Some(self.latest?.at + self.timeout)
    }
}
