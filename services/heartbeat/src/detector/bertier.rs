use super::{Detector, chen::Arrivals, to_nanos};
use crate::Nanos;

/// Arrivals in the estimate.
const SAMPLES: usize = 1_000;
/// Weights of the paper: of a new error, and of the mean error in the margin.
const GAMMA: f64 = 0.1;
const BETA: f64 = 1.0;

/// Bertier, Marin and Sens ("Implementation and performance evaluation of an adaptable failure detector", 2002): Chen's estimate of the
/// next arrival, plus Jacobson's margin: mean error plus `phi` (4) times the mean deviation.
#[derive(Debug, Clone)]
pub struct Bertier {
    phi: f64,
    arrivals: Arrivals,
    /// Nanoseconds, as the field below.
    delay: f64,
    var: f64,
}

impl Bertier {
    pub fn new(interval: Nanos, phi: f64) -> Self {
        // A quarter of an interval at the start: with the paper's zero every node would be suspected at first.
        Self { phi, arrivals: Arrivals::new(interval, SAMPLES), delay: 0.0, var: interval as f64 / 4.0 }
    }
}

impl Detector for Bertier {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        let expected = self.arrivals.expected();
        let lost = self.arrivals.skipped(sequence);
        if !self.arrivals.heard(now, sequence) {
            return;
        }
        if let Some(expected) = expected {
            // Error of the expected heartbeat; skipped ones were lost, not late.
            let error = now as f64 - (expected as f64 + lost) - self.delay;
            self.delay += GAMMA * error;
            self.var += GAMMA * (error.abs() - self.var);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        let margin = (BETA * self.delay + self.phi * self.var).max(0.0);
        Some(self.arrivals.expected()? + to_nanos(1, margin))
    }
}
