//! The rate of open arrivals over the measured part of a step, as a factor for each second.

use std::path::Path;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::rates;
/// Most planned requests per second of a step with open arrivals, and the largest factor of a curve.
pub use crate::rates::MAX_RATE;

/// Four hours, as long as the longest measured part. Bounds the memory.
const MAX_SECONDS: usize = 14_400;

/// A factor for each second of the measured part, from second 0. The rate is constant within a second: the step's rate times the factor.
/// With a step of 1 request/s the factors are requests/s, as in a recorded load. Before the measured part the first factor holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>")]
pub struct RateCurve(Vec<f64>);

impl RateCurve {
    /// # Errors
    /// There are no factors or more than 14,400, one is not 0..=20,000, or all are 0.
    pub fn new(factors: Vec<f64>) -> Result<Self> {
        ensure!(
            (1..=MAX_SECONDS).contains(&factors.len()),
            "a curve must have 1..={MAX_SECONDS} seconds, has {}",
            factors.len()
        );
        rates::check(&factors)?;
        Ok(Self(factors))
    }

    /// Reads a file of [`rates`].
    ///
    /// # Errors
    /// As [`rates::read`].
    pub fn read(path: &Path) -> Result<Self> {
        rates::read(path, MAX_SECONDS).map(Self)
    }

    /// Number of seconds.
    pub fn seconds(&self) -> usize {
        self.0.len()
    }

    /// The first second whose factor is above this limit, and its line in the file.
    pub fn first_above(&self, limit: f64) -> Option<(usize, usize)> {
        let second = self.0.iter().position(|factor| *factor > limit)?;
        Some((second, rates::line_of(second)))
    }

    /// Factor of a second of the measured part; after the last second, 0.
    pub(crate) fn factor(&self, second: u64) -> f64 {
        usize::try_from(second).ok().and_then(|second| self.0.get(second)).copied().unwrap_or_default()
    }

    /// Largest factor.
    pub(crate) fn peak(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    /// Mean factor over a measured part of this length.
    pub(crate) fn mean(&self, measure_ms: u64) -> f64 {
        let within = |second: u64| measure_ms.saturating_sub(second * 1000).min(1000) as f64;
        let sum: f64 = (0..measure_ms.div_ceil(1000)).map(|second| self.factor(second) * within(second)).sum();
        sum / measure_ms.max(1) as f64
    }
}

impl TryFrom<Vec<f64>> for RateCurve {
    type Error = anyhow::Error;

    fn try_from(factors: Vec<f64>) -> Result<Self> {
        Self::new(factors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_factor() {
        let curve = RateCurve::new(vec![0.5, 2.0, 0.0]).unwrap();
        assert_eq!((curve.seconds(), curve.peak()), (3, 2.0));
        assert_eq!([0, 1, 2, 3, u64::MAX].map(|second| curve.factor(second)), [0.5, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!((curve.mean(3000), curve.mean(1500)), (2.5 / 3.0, 1.0));
        assert_eq!((curve.first_above(1.0), curve.first_above(2.0)), (Some((1, 3)), None));
    }

    #[test]
    fn a_curve_is_not_longer_than_a_step() {
        let error = RateCurve::new(vec![1.0; MAX_SECONDS + 1]).unwrap_err().to_string();
        assert!(error.contains("1..=14400 seconds, has 14401"), "{error}");
    }

    #[test]
    fn json_is_checked_too() {
        let curve = RateCurve::new(vec![0.5, 2.0]).unwrap();
        assert_eq!(serde_json::to_string(&curve).unwrap(), "[0.5,2.0]");
        assert_eq!(serde_json::from_str::<RateCurve>("[0.5,2.0]").unwrap(), curve);
        for bad in ["[]", "[-1.0]", "[0.0]", "[20000.1]"] {
            assert!(serde_json::from_str::<RateCurve>(bad).is_err(), "{bad}");
        }
    }
}
