//! The criticality of requests: a random share of them is critical, another sheddable. Plain data with its checks.

use anyhow::{Result, ensure};
use contract::http::Criticality;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Shares of the requests by criticality. Each request carries its own in the header `x-criticality`; the rest are `default`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticalityMix {
    /// Share of the requests with `critical` (0 to 1).
    pub critical: f64,
    /// Share of the requests with `sheddable` (0 to 1; both together at most 1).
    pub sheddable: f64,
}

/// Completed requests of one criticality, in the measured part of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CriticalityFigures {
    pub criticality: Criticality,
    /// With all their tries; failed ones included.
    pub answered: u64,
    pub good: u64,
}

impl CriticalityMix {
    /// # Errors
    /// A share is not 0..=1, or both together are above 1. The message begins with the key.
    pub fn check(&self) -> Result<()> {
        let Self { critical, sheddable } = *self;
        ensure!((0.0..=1.0).contains(&critical), "critical must be 0..=1, is {critical}");
        ensure!((0.0..=1.0).contains(&sheddable), "sheddable must be 0..=1, is {sheddable}");
        ensure!(
            critical + sheddable <= 1.0 + 1e-9,
            "sheddable must be at most 1 - critical ({critical}), as both are shares of all requests, is {sheddable}"
        );
        Ok(())
    }

    pub(crate) fn pick(&self, random: &mut impl Rng) -> Criticality {
        let drawn = rand::RngExt::random::<f64>(random);
        if drawn < self.critical {
            Criticality::Critical
        } else if drawn < self.critical + self.sheddable {
            Criticality::Sheddable
        } else {
            Criticality::Default
        }
    }
}

impl CriticalityFigures {
    /// None of any criticality.
    pub(crate) fn none() -> [Self; Criticality::ALL.len()] {
        Criticality::ALL.map(|criticality| Self { criticality, answered: 0, good: 0 })
    }

    /// Good share, in percent; `None` without requests.
    pub fn good_pct(&self) -> Option<f64> {
        (self.answered > 0).then(|| 100.0 * self.good as f64 / self.answered as f64)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn requests_are_mixed_by_their_shares() {
        let mix = CriticalityMix { critical: 0.1, sheddable: 0.4 };
        let mut random = SmallRng::seed_from_u64(1);
        let mut counts = [0; Criticality::ALL.len()];
        (0..10_000).for_each(|_| counts[mix.pick(&mut random) as usize] += 1);
        let close = |count: i32, expected: i32| (count - expected).abs() < 200;
        assert!(close(counts[0], 1_000) && close(counts[1], 5_000) && close(counts[2], 4_000), "{counts:?}");
    }
}
