use super::{Advance, Detector, NewestBeat, to_nanos};
use crate::Nanos;

/// Of a new sample, as in TCP's estimate of the round trip.
const WEIGHT: f64 = 1.0 / 8.0;
/// Of the interval: a perfectly even sender would be suspected for a nanosecond.
const LEAST_MARGIN: f64 = 0.01;

/// The next beat's expected arrival, plus `k` (3) times an exponentially weighted mean of how far arrivals are off. "The round
/// trip × 3" by itself is less than an interval and would condemn every healthy sender.
#[derive(Debug, Clone)]
pub struct Ewma {
    interval: Nanos,
    k: f64,
    /// Mean distance of an arrival from an interval after the one before, ns.
    off: f64,
    latest: Option<NewestBeat>,
}

impl Ewma {
    pub fn new(interval: Nanos, k: f64) -> Self {
        // Nothing is known yet: half an interval, as TCP takes half the first round trip.
        Self { interval, k, off: interval as f64 / 2.0, latest: None }
    }
}

impl Detector for Ewma {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        if let Advance::Since(before) = NewestBeat::advance(&mut self.latest, now, sequence) {
            let gap = now.saturating_sub(before.at);
            self.off += WEIGHT * (gap.abs_diff(self.interval) as f64 - self.off);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        let margin = (self.k * self.off).max(self.interval as f64 * LEAST_MARGIN);
        Some(self.latest?.at + self.interval + to_nanos(1, margin))
    }
}
