use super::{Detector, NewestBeat, Status, to_nanos};
use crate::Nanos;

/// Counts consecutive failures: a heartbeat that is more than `patience` late is one. The first is a suspicion, `threshold` of them (3) a
/// partition.
#[derive(Debug, Clone)]
pub struct Consecutive {
    interval: Nanos,
    patience: Nanos,
    threshold: u32,
    latest: Option<NewestBeat>,
}

impl Consecutive {
    /// A threshold of 0 counts as 1. `patience` is in intervals.
    pub fn new(interval: Nanos, patience: f64, threshold: u32) -> Self {
        Self {
            interval: interval.max(1),
            patience: to_nanos(interval, patience),
            threshold: threshold.max(1),
            latest: None,
        }
    }

    /// Consecutive failures at `now`.
    pub fn failures(&self, now: Nanos) -> u64 {
        let Some(latest) = self.latest else { return 0 };
        now.saturating_sub(latest.at).saturating_sub(self.patience) / self.interval
    }

    /// When the network path counts as cut, if nothing more is heard.
    pub fn partitioned_at(&self) -> Option<Nanos> {
        Some(self.latest?.at + self.patience + self.interval * Nanos::from(self.threshold))
    }
}

impl Detector for Consecutive {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        NewestBeat::advance(&mut self.latest, now, sequence);
    }

    fn deadline(&self) -> Option<Nanos> {
        Some(self.latest?.at + self.patience + self.interval)
    }

    fn status(&self, now: Nanos) -> Status {
        match self.failures(now) {
            0 => Status::Alive,
            failures if failures < u64::from(self.threshold) => Status::Suspected,
            _ => Status::Partitioned,
        }
    }
}
