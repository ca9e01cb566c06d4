use super::{Detector, NewestBeat, to_nanos, window::Window};
use crate::Nanos;

/// NFD-E of Chen, Toueg and Aguilera ("On the quality of service of failure detectors", 2002): estimates the next arrival from the latest
/// ones, each shifted to the next; suspects `alpha` after it.
#[derive(Debug, Clone)]
pub struct Chen {
    alpha: Nanos,
    arrivals: Arrivals,
}

impl Chen {
    pub fn new(interval: Nanos, alpha: Nanos, samples: usize) -> Self {
        Self { alpha, arrivals: Arrivals::new(interval, samples) }
    }
}

impl Detector for Chen {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        self.arrivals.heard(now, sequence);
    }

    fn deadline(&self) -> Option<Nanos> {
        Some(self.arrivals.expected()? + self.alpha)
    }
}

/// Estimates the next arrival.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    interval: Nanos,
    /// The first heartbeat: all others are counted from it.
    first: Option<NewestBeat>,
    /// Lateness of arrivals relative to the first plus whole intervals. Every arrival counts, also a late one.
    late: Window,
    highest: u64,
}

impl Arrivals {
    pub(super) fn new(interval: Nanos, samples: usize) -> Self {
        Self { interval, first: None, late: Window::new(samples), highest: 0 }
    }

    /// Returns whether it is the newest.
    pub(super) fn heard(&mut self, at: Nanos, sequence: u64) -> bool {
        let first = *self.first.get_or_insert(NewestBeat { at, sequence });
        let is_newest = sequence > self.highest || self.late.len() == 0;
        self.highest = self.highest.max(sequence);
        let beats = sequence.wrapping_sub(first.sequence) as i64;
        let due = (first.at as i64).saturating_add(beats.saturating_mul(self.interval as i64));
        self.late.push((at as i64).saturating_sub(due));
        is_newest
    }

    /// Nanoseconds from `expected` until this heartbeat was due, because of lost ones in between.
    pub(super) fn skipped(&self, sequence: u64) -> f64 {
        sequence.saturating_sub(self.highest.saturating_add(1)) as f64 * self.interval as f64
    }

    pub(super) fn expected(&self) -> Option<Nanos> {
        let first = self.first?;
        let beats = (self.highest.saturating_sub(first.sequence) + 1) as f64;
        let after = beats * self.interval as f64 + self.late.mean();
        Some(first.at + to_nanos(1, after))
    }
}
