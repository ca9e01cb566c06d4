//! The planned instants of open arrivals: a pure function of seed, spacing and rate. Times in µs since the common start.
//!
//! The integral of the rate is the number of planned requests. An arrival is at the instant at which it reaches the next whole number
//! (constant spacing), or the next point of a Poisson process of rate 1. So a curve needs no other rule than a constant rate.

use std::ops::Range;

use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Exp1};
use statistics::seed::mixed;

use crate::{
    arrivals::{Open, Spacing},
    plan::{StepPlan, stream},
};

const SECOND_US: u64 = 1_000_000;

/// A planned request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// From 0, in the order of the instants.
    pub(crate) number: u64,
    /// In µs since the common start.
    pub(crate) planned_us: u64,
}

/// Arrivals in ascending order. They are computed one by one: an hour at 5,000/s would be 144 MB.
pub(crate) struct OpenInstants {
    open: Open,
    per_s: u32,
    measured_from_us: u64,
    end_us: u64,
    /// Of the gaps; `None` with constant spacing.
    random: Option<SmallRng>,
    /// Part of the step with one rate.
    part: Range<u64>,
    /// Requests per second in this part.
    rate: f64,
    /// Integral of the rate before this part.
    before: f64,
    /// Integral of the rate at the next arrival.
    target: f64,
    number: u64,
}

impl OpenInstants {
    pub(crate) fn of(plan: &StepPlan, open: &Open) -> Self {
        let mut random = match open.spacing {
            Spacing::Constant => None,
            Spacing::Poisson => Some(SmallRng::seed_from_u64(mixed(plan.seed, &stream::INSTANTS))),
        };
        Self {
            open: open.clone(),
            per_s: plan.users,
            measured_from_us: plan.warm_up_ms * 1000,
            end_us: (plan.warm_up_ms + plan.measure_ms) * 1000,
            target: random.as_mut().map_or(0.0, |random| Exp1.sample(random)),
            random,
            part: 0..0,
            rate: 0.0,
            before: 0.0,
            number: 0,
        }
    }

    /// Requests that the rate plans in the current part.
    fn planned(&self) -> f64 {
        self.rate * (self.part.end - self.part.start) as f64 / SECOND_US as f64
    }

    /// Continues with the part that starts at the end of the current one. The warm-up has the rate of the first second.
    fn next_part(&mut self) -> Option<()> {
        self.before += self.planned();
        let start = self.part.end;
        // Empty, so that nothing follows the end: every slot asks once more.
        self.part = start..start;
        if start >= self.end_us {
            return None;
        }
        let second = start.checked_sub(self.measured_from_us).map(|measured_us| measured_us / SECOND_US);
        let end = match second {
            None => self.measured_from_us,
            Some(second) => (self.measured_from_us + (second + 1) * SECOND_US).min(self.end_us),
        };
        self.part = start..end;
        self.rate = self.open.per_s_at(self.per_s, second.unwrap_or_default());
        Some(())
    }
}

impl Iterator for OpenInstants {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        while self.target - self.before >= self.planned() {
            self.next_part()?;
        }
        let within_us = (self.target - self.before) * SECOND_US as f64 / self.rate;
        let arrival = Arrival { number: self.number, planned_us: self.part.start + within_us as u64 };
        self.number += 1;
        self.target += self.random.as_mut().map_or(1.0, |random| Exp1.sample(random));
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{plan, rate_curve::RateCurve};

    /// Instants in µs.
    fn instants(spacing: Spacing, per_s: u32, seed: u64, factors: &[f64]) -> Vec<u64> {
        let curve = (!factors.is_empty()).then(|| RateCurve::new(factors.to_vec()).unwrap());
        let measure_ms = if factors.is_empty() { 10_000 } else { 1000 * factors.len() as u64 };
        let plan = StepPlan { users: per_s, seed, warm_up_ms: 2000, measure_ms, ..plan::tests::plan() };
        let mut instants = OpenInstants::of(&plan, &Open { spacing, max_in_flight: 1, curve });
        let all: Vec<Arrival> = instants.by_ref().collect();
        assert_eq!([instants.next(), instants.next()], [None, None]);
        assert!(all.iter().map(|arrival| arrival.number).eq(0..all.len() as u64));
        all.into_iter().map(|arrival| arrival.planned_us).collect()
    }

    #[test]
    fn constant_spacing_is_exact() {
        let all = instants(Spacing::Constant, 4, 1, &[]);
        assert!(all.iter().copied().eq((0..48).map(|number| number * 250_000)));
        // Two seconds of warm-up at the rate of the first second, then 2, 8 and none, then 4.
        let all = instants(Spacing::Constant, 4, 1, &[0.5, 2.0, 0.0, 1.0]);
        let count = |second: u64| all.iter().filter(|at| **at / SECOND_US == second).count();
        assert_eq!([0, 1, 2, 3, 4, 5].map(count), [2, 2, 2, 8, 0, 4]);
    }

    #[test]
    fn the_seed_decides_the_poisson_process() {
        let all = |seed| instants(Spacing::Poisson, 100, seed, &[]);
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
    }

    #[test]
    fn poisson_gaps_are_exponential() {
        let all = instants(Spacing::Poisson, 20_000, 3, &[]);
        let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        // The deviation of an exponential distribution is its mean; a share of 1/e is longer than it.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{} of {mean}", variance.sqrt());
        let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / count;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.01, "{longer}");
    }

    proptest! {
        #[test]
        fn instants_ascend_within_the_step_at_the_rate(
            per_s in 1..5000_u32,
            seed in any::<u64>(),
            factors in proptest::collection::vec(0.0..3.0_f64, 1..8),
            poisson in any::<bool>(),
        ) {
            prop_assume!(factors.iter().any(|factor| *factor > 0.0));
            let spacing = if poisson { Spacing::Poisson } else { Spacing::Constant };
            let all = instants(spacing, per_s, seed, &factors);
            prop_assert!(all.is_sorted());
            prop_assert!(all.iter().all(|at| *at < (2 + factors.len() as u64) * SECOND_US));
            for (second, factor) in factors.iter().enumerate() {
                let sent = all.iter().filter(|at| **at / SECOND_US == second as u64 + 2).count() as f64;
                let planned = f64::from(per_s) * factor;
                // Six standard deviations of a Poisson distribution, and some for its long tail at a small mean.
                let edge = if poisson { 6.0 * planned.sqrt() + 8.0 } else { 1.0 + 1e-6 };
                prop_assert!((sent - planned).abs() <= edge, "{} of {} in second {}", sent, planned, second);
            }
        }
    }
}
