//! The classes of metastable failures, each with a trigger that goes away. Pure.

use loadtest::{
    arrivals::{Arrivals, Open, Spacing},
    model::open::Disturbance,
    retry::{Backoff, Budget, Retry},
    scenario::{KnownIds, Law, Order, Scenario},
};

/// Tries of a request.
const ATTEMPTS: u32 = 4;
const PER_TRY_TIMEOUT_MS: u64 = 1_000;
/// Share of the rate that the store can serve even if each request needs all its tries.
const LOWERED_SHARE: f64 = 0.75;
/// The store's response times are longer by this factor, so that 80 % of its rate are missing, as in the artefact of OSDI 2022.
pub const SLOWER: f64 = 5.0;
/// Users of the data set.
pub const USERS: u32 = 5_000;
/// As many replicas share the connections, so that half of them can stop.
const REPLICAS: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The store answers nothing.
    Stall,
    /// Lists in Redis are deleted.
    Flush,
    /// The store is slower.
    Slow,
    /// Half of the replicas are suspended.
    Pause,
}

pub struct Class {
    /// As in arguments and reports.
    pub name: &'static str,
    /// How it gets stuck.
    pub mechanism: &'static str,
    pub trigger: Trigger,
    /// Requests per second, the higher one last.
    pub loads: [u32; 2],
    /// Of each replica.
    pool_size: u32,
    replicas: u32,
    /// Largest trigger.
    pub largest: u32,
}

pub static ALL: [Class; 4] = [
    Class {
        name: "retry-storm",
        mechanism: "The store answers nothing for a while. Afterwards the queue is so long that tries are served when their clients are about to \
                    give up; the retries keep it so long.",
        trigger: Trigger::Stall,
        loads: [600, 900],
        pool_size: 50,
        replicas: 2,
        largest: 10_000,
    },
    Class {
        name: "cold-cache",
        mechanism: "Cached lists are deleted, and the store alone cannot carry the load. Requests that time out write no list, so the cache stays \
                    cold.",
        trigger: Trigger::Flush,
        loads: [350, 450],
        pool_size: 8,
        replicas: 2,
        largest: 1_000,
    },
    Class {
        name: "capacity-loss",
        mechanism: "The store is five times slower for a while. The queue that grows meanwhile stays, as in a retry storm.",
        trigger: Trigger::Slow,
        loads: [600, 900],
        pool_size: 50,
        replicas: 2,
        largest: 10_000,
    },
    Class {
        name: "slow-failover",
        mechanism: "Half of the replicas are suspended for a while, and requests still go to them. The retries of their requests overload the others.",
        trigger: Trigger::Pause,
        loads: [800, 1_000],
        pool_size: 30,
        replicas: REPLICAS,
        largest: 10_000,
    },
];

#[cfg(test)]
pub fn of(name: &str) -> &'static Class {
    ALL.iter().find(|class| class.name == name).unwrap()
}

impl Class {
    /// The store, the replicas and the client, without a cure. `scale`: loads and connections are divided by it.
    ///
    /// # Errors
    /// The built-in scenario is broken.
    pub fn scenario(&self, scale: u32) -> anyhow::Result<Scenario> {
        let mut scenario = Scenario::load("overload")?;
        scenario.name = self.name.to_owned();
        scenario.arrivals = Arrivals::Open(Open { spacing: Spacing::Poisson, max_in_flight: 20_000, curve: None });
        scenario.timeout_ms = PER_TRY_TIMEOUT_MS * u64::from(ATTEMPTS);
        scenario.retry = Some(Retry {
            attempts: ATTEMPTS,
            per_try_timeout_ms: PER_TRY_TIMEOUT_MS,
            backoff: Backoff::None,
            budget: Budget::None,
        });
        // Each user equally often, so that a retry meets no list of its own user by the order of the ids.
        scenario.known = KnownIds::Zipf { exponent: 0.0 };
        scenario.replicas = self.replicas;
        scenario.store.pool_size = self.pool_size.div_ceil(scale);
        scenario.store.order = Order::Oldest;
        if let Law::Modelled { slope_ms, .. } = &mut scenario.law {
            *slope_ms *= f64::from(scale);
        }
        Ok(scenario)
    }

    pub fn loads(&self, scale: u32) -> [u32; 2] {
        self.loads.map(|per_s| (per_s / scale).max(1))
    }

    /// The lowered load, in requests per second.
    pub fn lowered_per_s(&self, scenario: &Scenario) -> f64 {
        LOWERED_SHARE * scenario.store_capacity_per_s().unwrap_or_default() / f64::from(ATTEMPTS)
    }

    /// Settings of the replicas, `key=value`. Every request needs the store, or none while its list is cached.
    pub fn sets(&self) -> &'static [&'static str] {
        if self.has_cache() { &["cache.fresh_ms=86400000"] } else { &["cache.fresh_ms=1", "cache.stale_ms=0"] }
    }

    pub fn has_cache(&self) -> bool {
        self.trigger == Trigger::Flush
    }

    /// 0: it is an instant.
    pub fn trigger_ms(&self, size: u32) -> u32 {
        if self.has_cache() { 0 } else { size }
    }

    /// Cached users and disturbances of the model, for a trigger that begins at this instant.
    pub fn modelled(&self, size: u32, from_us: u64, scale: u32) -> (u32, Vec<Disturbance>) {
        let during = from_us..from_us + u64::from(size) * 1_000;
        match self.trigger {
            Trigger::Stall => (0, vec![Disturbance::Stall(during)]),
            Trigger::Slow => (0, vec![Disturbance::Slow(during, SLOWER)]),
            Trigger::Pause => (0, vec![Disturbance::Pause { replicas: self.paused(), during }]),
            Trigger::Flush => {
                let flush = Disturbance::Flush { at_us: from_us, share: f64::from(size) / 1_000.0 };
                (users(scale), vec![flush])
            }
        }
    }

    /// Replicas that are suspended.
    pub fn paused(&self) -> usize {
        self.replicas as usize / 2
    }

    pub fn size_text(&self, size: u32) -> String {
        if self.has_cache() {
            format!("{:.0} % of the lists", f64::from(size) / 10.0)
        } else {
            format!("{:.2} s", f64::from(size) / 1_000.0)
        }
    }

    /// In seconds, or in percent of the lists.
    pub fn size_value(&self, size: f64) -> f64 {
        if self.has_cache() { size / 10.0 } else { size / 1_000.0 }
    }

    pub fn size_label(&self) -> &'static str {
        match self.trigger {
            Trigger::Stall => "stall, s",
            Trigger::Flush => "deleted lists, %",
            Trigger::Slow => "slow for, s",
            Trigger::Pause => "stopped for, s",
        }
    }
}

/// Users of the data set.
pub fn users(scale: u32) -> u32 {
    (USERS / scale).max(1)
}

#[cfg(test)]
mod tests {
    use api::Profile;

    use super::*;
    use crate::stack::service;

    #[test]
    fn the_loads_are_below_the_capacity_and_their_tries_above_it() {
        for class in &ALL {
            for scale in [1, 10] {
                let scenario = class.scenario(scale).unwrap();
                let capacity = scenario.store_capacity_per_s().unwrap();
                for per_s in class.loads(scale).map(f64::from) {
                    assert!(per_s * f64::from(ATTEMPTS) > capacity, "{} {per_s} {capacity}", class.name);
                    assert_eq!(per_s > capacity, class.has_cache(), "{} {per_s} {capacity}", class.name);
                }
                assert!(class.lowered_per_s(&scenario) * f64::from(ATTEMPTS) < capacity, "{}", class.name);
            }
        }
    }

    #[test]
    fn the_replicas_accept_the_settings() {
        for class in &ALL {
            let plan = service::Plan::new("test", &class.scenario(1).unwrap());
            let sets: Vec<String> = class.sets().iter().map(|set| (*set).to_owned()).collect();
            plan.check(Profile::Baseline, &sets).unwrap();
        }
    }
}
