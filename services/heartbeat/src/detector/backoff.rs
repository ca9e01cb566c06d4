use super::{Detector, NewestBeat, to_nanos};
use crate::Nanos;

/// Probing with exponential back-off: a missed beat starts probes that are given `base`, 2 × base, 4 × base, … to be answered; the
/// node is suspected when the last of them was not. An answer to a probe counts as a beat.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// After a beat, until the next is missed.
    patience: Nanos,
    base: Nanos,
    probes: u32,
    latest: Option<NewestBeat>,
}

impl Backoff {
    /// More than 30 probes are 30.
    pub fn new(interval: Nanos, base: Nanos, probes: u32) -> Self {
        Self { patience: to_nanos(interval, 1.1), base, probes: probes.min(30), latest: None }
    }

    /// Probes that are out by `now`: another one is to be sent when this number grows.
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
