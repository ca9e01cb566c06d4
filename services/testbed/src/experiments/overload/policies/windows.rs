//! The windows of load that each policy has after the step: three loads, changes in the middle of a run, a slow replica; and for one policy the
//! cost of a rejection.

use std::{ops::Range, path::Path};

use anyhow::Context;
use loadtest::{
    arrivals::{Arrivals, Open},
    plan::{DEFAULT_RUN_SEED, StepPlan},
    rate_curve::RateCurve,
    scenario::{KnownIds, Scenario},
};
use statistics::seed;

/// Loads, as multiples of the capacity.
pub const LOADS: [f64; 3] = [1.0, 2.0, 5.0];
/// Load below the capacity: before and after the spike, and with a slow replica.
pub const CALM: f64 = 0.7;
pub const SPIKE: f64 = 1.4;
/// Load while the capacity is halved.
const BUSY: f64 = 1.2;
/// Of hits and of rejections: enough to tell their CPU time from that of an idle replica, and to wake it for several at a time.
const COST_PER_S: u32 = 2_000;

/// Lengths in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    pub warm_up: u32,
    pub load: u32,
    calm: u32,
    spike: u32,
    busy: u32,
    halved: u32,
}

pub const LENGTHS: Lengths = Lengths { warm_up: 5, load: 15, calm: 10, spike: 10, busy: 10, halved: 15 };
pub const QUICK: Lengths = Lengths { warm_up: 2, load: 3, calm: 4, spike: 3, busy: 2, halved: 7 };

/// What all windows of a variant share.
#[derive(Clone, Copy)]
pub struct Windows<'a> {
    pub scenario: &'a Scenario,
    pub known_ids: &'a Path,
    pub gateway: &'a str,
    pub lengths: Lengths,
}

/// Requests per second that the store can serve, at the scenario's share of requests that need it.
///
/// # Errors
/// The scenario has no law.
pub fn capacity_per_s(scenario: &Scenario) -> anyhow::Result<f64> {
    let queries = scenario.store_capacity_per_s().context("the scenario has no law")?;
    Ok(queries / (1.0 - scenario.unknown_share.first().copied().unwrap_or_default()))
}

/// A latency that is added to each query and halves the capacity: as much as a query takes when all connections are busy.
///
/// # Errors
/// The scenario has no law.
pub fn halving_ms(scenario: &Scenario) -> anyhow::Result<f64> {
    let connections = f64::from(scenario.replicas) * f64::from(scenario.store.pool_size);
    scenario.law.mean_ms(connections).context("the scenario has no law")
}

/// Share of half the store's capacity that counts as adapted.
const ADAPTED: f64 = 0.9;

/// Good answers per second that count as adapted: 90 % of the queries that half the store serves, and all requests that need none.
///
/// # Errors
/// The scenario has no law.
pub fn adapted_per_s(scenario: &Scenario) -> anyhow::Result<f64> {
    let queries = scenario.store_capacity_per_s().context("the scenario has no law")?;
    Ok(ADAPTED * queries / 2.0 + BUSY * (capacity_per_s(scenario)? - queries))
}

impl Lengths {
    /// The spike, in seconds of the window of changes.
    pub fn spike(&self) -> Range<u32> {
        self.calm..self.calm + self.spike
    }

    /// The time with half the capacity, in seconds of the window of changes.
    pub fn halved(&self) -> Range<u32> {
        let from = 2 * self.calm + self.spike + self.busy;
        from..from + self.halved
    }

    /// Of load after the step of a variant.
    pub fn seconds(&self) -> u64 {
        let loads = (LOADS.len() as u32 + 1) * (self.warm_up + self.load);
        u64::from(loads + self.warm_up + self.halved().end)
    }

    /// Load of each second of the window of changes, as a multiple of the capacity.
    fn changes(&self) -> Vec<f64> {
        let parts = [(CALM, self.calm), (SPIKE, self.spike), (CALM, self.calm), (BUSY, self.busy + self.halved)];
        parts.into_iter().flat_map(|(load, seconds)| std::iter::repeat_n(load, seconds as usize)).collect()
    }
}

impl Windows<'_> {
    /// `n`: the number of the window; the same of all policies, so that they have the same arrivals and ids.
    fn plan(&self, n: usize, name: &str, per_s: f64) -> StepPlan {
        let Self { scenario, known_ids, gateway, lengths } = *self;
        StepPlan {
            name: format!("{} {name}", scenario.name),
            warm_up_ms: u64::from(lengths.warm_up) * 1000,
            measure_ms: u64::from(lengths.load) * 1000,
            seed: seed::of_step(DEFAULT_RUN_SEED, 1, scenario.steps.len() + n),
            ..StepPlan::of(scenario, per_s.round() as u32, 0, known_ids, gateway)
        }
    }

    /// One of [`LOADS`].
    ///
    /// # Errors
    /// The scenario has no law.
    pub fn load(&self, n: usize) -> anyhow::Result<StepPlan> {
        Ok(self.plan(n, &format!("{} × capacity", LOADS[n]), LOADS[n] * capacity_per_s(self.scenario)?))
    }

    /// A spike, then half the capacity.
    ///
    /// # Errors
    /// The scenario has no law, or its arrivals are closed.
    pub fn changes(&self) -> anyhow::Result<StepPlan> {
        let plan = self.plan(LOADS.len(), "changes", capacity_per_s(self.scenario)?);
        let open = plan.arrivals.open().context("the scenario's arrivals are closed")?.clone();
        let curve = RateCurve::new(self.lengths.changes())?;
        let measure_ms = 1000 * curve.seconds() as u64;
        Ok(StepPlan { measure_ms, arrivals: Arrivals::Open(Open { curve: Some(curve), ..open }), ..plan })
    }

    /// The calm load while one replica is slow.
    ///
    /// # Errors
    /// The scenario has no law.
    pub fn slow_replica(&self) -> anyhow::Result<StepPlan> {
        Ok(self.plan(LOADS.len() + 1, "slow replica", CALM * capacity_per_s(self.scenario)?))
    }

    /// Nearly all requests are hits in Redis, each with one try.
    pub fn hits(&self) -> StepPlan {
        let plan = self.plan(LOADS.len() + 2, "hits", f64::from(COST_PER_S));
        // The first ids are nearly all requests.
        StepPlan { retry: None, unknown_share: 0.0, known: KnownIds::Zipf { exponent: 3.0 }, ..plan }
    }

    /// Nearly all requests are refused, each with one try.
    pub fn rejections(&self) -> StepPlan {
        let plan = self.plan(LOADS.len() + 3, "rejections", f64::from(COST_PER_S));
        StepPlan { retry: None, unknown_share: 0.0, ..plan }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::overload::policies::scenario;

    #[test]
    fn the_windows_are_plans_in_range_around_the_capacity() {
        let scenario = scenario().unwrap();
        let capacity = capacity_per_s(&scenario).unwrap();
        assert!((scenario.offered_per_s(scenario.steps[0]) / capacity - 0.5).abs() < 0.01, "{capacity}");
        let latency = halving_ms(&scenario).unwrap();
        let connections = f64::from(scenario.replicas * scenario.store.pool_size);
        let halved = 1000.0 * connections / (scenario.law.mean_ms(connections).unwrap() + latency);
        assert!((2.0 * halved - scenario.store_capacity_per_s().unwrap()).abs() < 1e-9);
        for lengths in [LENGTHS, QUICK] {
            let (known_ids, gateway) = (Path::new("ids"), "http://127.0.0.1:80");
            let windows = Windows { scenario: &scenario, known_ids, gateway, lengths };
            let mut plans: Vec<StepPlan> = (0..LOADS.len()).map(|n| windows.load(n).unwrap()).collect();
            plans.extend([windows.changes().unwrap(), windows.slow_replica().unwrap()]);
            let seconds: u64 = plans.iter().map(|plan| (plan.warm_up_ms + plan.measure_ms) / 1000).sum();
            assert_eq!(seconds, lengths.seconds());
            plans.extend([windows.hits(), windows.rejections()]);
            plans.iter().for_each(|plan| plan.check().unwrap());
            let seeds: std::collections::BTreeSet<u64> = plans.iter().map(|plan| plan.seed).collect();
            assert_eq!(seeds.len(), plans.len());
            let changes = &plans[LOADS.len()];
            let at = |second: u32| {
                let ms = changes.warm_up_ms + u64::from(second) * 1000;
                (changes.offered_per_s_at(ms) / capacity * 10.0).round() / 10.0
            };
            let (spike, halved) = (lengths.spike(), lengths.halved());
            assert_eq!([spike.start - 1, spike.start, spike.end - 1, spike.end].map(at), [CALM, SPIKE, SPIKE, CALM]);
            assert_eq!([halved.start, halved.end - 1].map(at), [BUSY, BUSY]);
            assert_eq!(u64::from(halved.end) * 1000, changes.measure_ms);
        }
    }
}
