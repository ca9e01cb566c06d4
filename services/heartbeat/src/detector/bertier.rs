use super::{Detector, chen::Arrivals, to_nanos};
use crate::Nanos;

/// Arrivals that the estimate goes by.
const SAMPLES: usize = 1_000;
/// Weights of the paper: of a new error, and of the mean error in the margin.
const GAMMA: f64 = 0.1;
const BETA: f64 = 1.0;

/// Bertier, Marin and Sens ("Implementation and performance evaluation of an adaptable failure detector", 2002): Chen's estimate of the
/// next arrival, with Jacobson's margin: mean error plus `phi` (4) times the errors' mean distance from it.
#[derive(Debug, Clone)]
pub struct Bertier {
    phi: f64,
    arrivals: Arrivals,
    /// ns.
    delay: f64,
    var: f64,
}

impl Bertier {
    pub fn new(interval: Nanos, phi: f64) -> Self {
        // A quarter of an interval until errors are known: the paper starts at none and suspects everybody at first.
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
            // Of the beat that was waited for; those in between were lost, not late.
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
