use super::{Detector, NewestBeat, to_nanos};
use crate::Nanos;

/// Exponential back-off: a missed heartbeat starts probes with timeouts of `base`, 2 × base, 4 × base, …; the node is suspected when the
/// last is unanswered. An answer counts as a heartbeat.
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

    /// Number of probes sent by `now`; send another one when it grows.
    pub fn probes(&self, now: Nanos) -> u32 {
        let sent = |probe: &u32| self.sent_at(*probe).is_some_and(|at| now >= at);
        (0..self.probes).take_while(sent).count() as u32
    }

    /// The node answered a probe.
    pub fn answered(&mut self, now: Nanos) {
        if let Some(latest) = &mut self.latest {
            latest.at = latest.at.max(now);
        }
    }

    fn sent_at(&self, probe: u32) -> Option<Nanos> {
        Some(self.latest?.at + self.patience + self.base * ((1 << probe) - 1))
    }
}

impl Detector for Backoff {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        NewestBeat::advance(&mut self.latest, now, sequence);
    }

    fn deadline(&self) -> Option<Nanos> {
        self.sent_at(self.probes)
    }
}
