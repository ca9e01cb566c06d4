use std::f64::consts::{LN_10, LOG10_E};

use super::{Advance, Detector, NewestBeat, tail, to_nanos, window::Window};
use crate::Nanos;

/// Samples, as in Akka/Pekko and Cassandra.
const SAMPLES: usize = 1_000;
/// Minimum deviation in intervals; Akka's is 100 ms at heartbeats of 1 s.
const LEAST_DEVIATION: f64 = 0.1;

/// Assumed distribution of gaps between heartbeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GapDistribution {
    /// As Hayashibara et al. and Akka: mean and deviation of the window; `pause` (in intervals) is added to the mean.
    Normal { pause: f64 },
    /// As Cassandra: the window's mean alone.
    Exponential,
}

/// Phi accrual: suspicion φ = -log10 P(a gap is longer than this silence). Suspected from `threshold` on.
#[derive(Debug, Clone)]
pub struct Phi {
    interval: Nanos,
    distribution: GapDistribution,
    /// The silence with φ = threshold: in deviations beyond the mean, or in means.
    reach: f64,
    gaps: Window,
    latest: Option<NewestBeat>,
}

impl Phi {
    pub fn new(interval: Nanos, distribution: GapDistribution, threshold: f64) -> Self {
        let mut gaps = Window::new(SAMPLES);
        let first = interval as i64;
        let reach = match distribution {
            // Akka's initial guess: a deviation of a quarter of the interval.
            GapDistribution::Normal { .. } => {
                gaps.push(first - first / 4);
                gaps.push(first + first / 4);
                tail::upper_quantile(threshold)
            }
            // Cassandra's initial guess: twice the interval.
            GapDistribution::Exponential => {
                gaps.push(first * 2);
                threshold * LN_10
            }
        };
        Self { interval, distribution, reach, gaps, latest: None }
    }

    /// φ at `now`; 0 before anything was heard. Grows with silence, without bound.
    pub fn phi(&self, now: Nanos) -> f64 {
        let Some(latest) = self.latest else { return 0.0 };
        let silent = now.saturating_sub(latest.at) as f64;
        match self.distribution {
            GapDistribution::Normal { pause } => {
                -tail::ln_upper((silent - self.mean(pause)) / self.deviation()) * LOG10_E
            }
            GapDistribution::Exponential => silent / self.gaps.mean() * LOG10_E,
        }
    }

    fn mean(&self, pause: f64) -> f64 {
        self.gaps.mean() + pause * self.interval as f64
    }

    fn deviation(&self) -> f64 {
        self.gaps.deviation().max(self.interval as f64 * LEAST_DEVIATION)
    }
}

impl Detector for Phi {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        if let Advance::Since(before) = NewestBeat::advance(&mut self.latest, now, sequence) {
            self.gaps.push(now.saturating_sub(before.at) as i64);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        let silence = match self.distribution {
            GapDistribution::Normal { pause } => self.mean(pause) + self.reach * self.deviation(),
            GapDistribution::Exponential => self.gaps.mean() * self.reach,
        };
        Some(self.latest?.at + to_nanos(1, silence))
    }
}
