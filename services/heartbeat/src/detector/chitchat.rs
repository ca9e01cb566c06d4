use super::{Advance, Detector, NewestBeat, to_nanos, window::Window};
use crate::Nanos;

/// Defaults of chitchat 0.13 at one heartbeat a second; times are in intervals here.
const SAMPLES: usize = 1_000;
const LONGEST_GAP: f64 = 10.0;
const PRIOR_GAP: f64 = 5.0;
const PRIOR_WEIGHT: f64 = 5.0;

/// The rule of quickwit's chitchat: suspected after `threshold` (8) times the mean gap. The mean starts with a prior; gaps longer than ten
/// intervals are ignored.
#[derive(Debug, Clone)]
pub struct Chitchat {
    interval: Nanos,
    threshold: f64,
    gaps: Window,
    latest: Option<NewestBeat>,
}

impl Chitchat {
    pub fn new(interval: Nanos, threshold: f64) -> Self {
        Self { interval, threshold, gaps: Window::new(SAMPLES), latest: None }
    }

    fn mean(&self) -> f64 {
        let prior = PRIOR_WEIGHT * PRIOR_GAP * self.interval as f64;
        (self.gaps.sum() + prior) / (self.gaps.len() as f64 + PRIOR_WEIGHT)
    }
}

impl Detector for Chitchat {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        if let Advance::Since(before) = NewestBeat::advance(&mut self.latest, now, sequence) {
            let gap = now.saturating_sub(before.at);
            if gap <= to_nanos(self.interval, LONGEST_GAP) {
                self.gaps.push(gap as i64);
            }
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        Some(self.latest?.at + to_nanos(1, self.threshold * self.mean()))
    }
}
