use super::{Advance, Detector, NewestBeat, to_nanos};
use crate::Nanos;

/// Weight of a new sample, as in TCP's round-trip estimate.
const WEIGHT: f64 = 1.0 / 8.0;
/// Minimum margin in intervals: otherwise a perfectly regular sender would be suspected.
const LEAST_MARGIN: f64 = 0.01;

/// The next expected arrival plus `k` (3) times an exponentially weighted mean deviation. The article's "round trip × 3" alone is shorter
/// than an interval and would suspect every healthy sender.
#[derive(Debug, Clone)]
pub struct Ewma {
    interval: Nanos,
    k: f64,
    /// Mean deviation of gaps from the interval, in nanoseconds.
    off: f64,
    latest: Option<NewestBeat>,
}

impl Ewma {
    pub fn new(interval: Nanos, k: f64) -> Self {
        // Starts with half an interval, as TCP starts with half the first round trip.
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
