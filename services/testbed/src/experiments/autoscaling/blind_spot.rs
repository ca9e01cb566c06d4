//! What CPU does not show: the connections to the store run out. Eight replicas under the rule, then twenty, under the same load.

use std::collections::BTreeMap;

use anyhow::Context as _;
use launcher::QuotaChoice;
use loadtest::scenario::{self, Scenario};
use report::{
    Validity,
    numbers::{count, ms, pct},
};
use serde::Serialize;
use tokio::time::{Duration, Instant};

use super::servers::{FEW, MANY, Servers, options};
use crate::{
    autoscale::Autoscaler,
    instruments::{generator, scrape::Reading},
    stack::service::ServiceStack,
};

/// Every request costs a query, as in `experiment overload`.
const ALL_MISS: [&str; 3] = ["guards.warmup=off", "cache.fresh_ms=1", "cache.stale_ms=0"];
/// Of each replica. The most recent request gets a free connection first, as in the article's overload.
const POOL_SIZE: u32 = 2;
const CHECKOUT_TIMEOUT_MS: u64 = 2_900;
/// The store takes 20 ms, and 4 ms more for each query in flight: it can never answer more than 250 queries/s. Eight replicas' 16 connections
/// get 190/s, twenty replicas' 40 get 222/s.
const BASE_MS: f64 = 20.0;
const SLOPE_MS: f64 = 4.0;
const USERS: u32 = 300;
/// An answer costs this CPU time in addition: little, so that the store is the bottleneck.
const WORK_US: u64 = 200;
const WARM_UP_MS: u64 = 4_000;
/// On the nominal clock: longer than the rule's window of two minutes.
const NOMINAL: Duration = Duration::from_secs(240);

/// The store's law and pools.
fn scenario() -> anyhow::Result<Scenario> {
    let mut scenario = Scenario::load("overload")?;
    scenario.law = scenario::Law::Modelled { base_ms: BASE_MS, slope_ms: SLOPE_MS, crosstalk_ms: 0.0, spread: 0.0 };
    scenario.store.pool_size = POOL_SIZE;
    scenario.store.checkout_timeout_ms = CHECKOUT_TIMEOUT_MS;
    Ok(scenario)
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BlindRun {
    /// At the beginning, and the least that the rule allows.
    pub replicas: u32,
    /// At the end.
    pub replicas_after: u32,
    /// Connections of all replicas.
    pub connections: u32,
    pub offered_per_s: f64,
    pub good_per_s: f64,
    /// Failed share of the completed requests, in percent.
    pub error_pct: f64,
    pub errors: BTreeMap<String, u64>,
    pub p99_ms: f64,
    /// Mean of a query, from faultproxy.
    pub store_ms: f64,
    /// The highest that the planner saw, in percent of the request.
    pub utilization_pct: Option<i32>,
    #[serde(skip)]
    pub validity: Validity,
}

impl BlindRun {
    /// For the terminal, as soon as it is over.
    fn line(&self) -> String {
        format!(
            "blind spot, {} → {} replicas: {} of {} requests/s good, {} % errors, the store takes {} ms",
            self.replicas,
            self.replicas_after,
            count(self.good_per_s),
            count(self.offered_per_s),
            pct(self.error_pct),
            ms(self.store_ms)
        )
    }
}

/// # Errors
/// A server or the load generator fails.
pub async fn run(choice: QuotaChoice, hurry: u32) -> anyhow::Result<Vec<BlindRun>> {
    let mut servers = Servers::start_with(&scenario()?, choice, WORK_US, &ALL_MISS).await?;
    let mut runs = Vec::new();
    for (min, max) in [(FEW, MANY), (MANY, MANY)] {
        let run = one(&mut servers, min, max, hurry).await.with_context(|| format!("{min} replicas"))?;
        eprintln!("{}", run.line());
        runs.push(run);
    }
    servers.stop().await?;
    Ok(runs)
}

async fn one(servers: &mut Servers, min: u32, max: u32, hurry: u32) -> anyhow::Result<BlindRun> {
    servers.scale_to(min).await?;
    let measure_ms = (NOMINAL / hurry).max(Duration::from_secs(5)).as_millis() as u64;
    let plan = servers.plan(USERS, WARM_UP_MS, measure_ms);
    let mut autoscaler = Autoscaler::new(options(min, max, hurry)?, &servers.service)?;
    let mut utilization_pct = None;
    let on_moment = async |service: &mut ServiceStack, _: generator::Moment<'_>| {
        if let Some(step) = autoscaler.tick(service).await? {
            let seen = step.answer.metrics.first().and_then(|metric| metric.utilization_percent);
            utilization_pct = utilization_pct.max(seen);
        }
        Ok(Some(Instant::now() + autoscaler.pause()))
    };
    let window = generator::drive(&mut servers.service, &servers.target, &plan, on_moment).await?;
    let outcome = window.outcome;
    Ok(BlindRun {
        replicas: min,
        replicas_after: autoscaler.desired() as u32,
        connections: min * POOL_SIZE,
        offered_per_s: outcome.offered_per_s,
        good_per_s: outcome.good_per_s,
        error_pct: outcome.error_pct,
        errors: outcome.errors,
        p99_ms: outcome.latency.p99_ms,
        store_ms: store_ms(&window.before.faultproxy, &window.after.faultproxy),
        utilization_pct,
        validity: window.validity,
    })
}

/// Mean time of the store's answers between two readings, with what the law adds; NaN without any.
fn store_ms(before: &Reading, after: &Reading) -> f64 {
    let grown = |what: &str| after.since(before, &format!("faultproxy_{what}"), &[]);
    let seconds = grown("upstream_seconds_sum") + grown("added_delay_seconds_sum");
    1000.0 * seconds / grown("upstream_seconds_count")
}

#[cfg(test)]
mod tests {
    use api::Profile;

    use super::*;
    use crate::stack::service::Plan;

    #[test]
    fn the_store_is_the_bottleneck_and_twenty_replicas_do_not_change_that() {
        let capacity = |replicas: u32| {
            let connections = f64::from(replicas * POOL_SIZE);
            1000.0 * connections / (BASE_MS + SLOPE_MS * connections)
        };
        assert!(capacity(FEW) < 0.7 * f64::from(USERS) && capacity(MANY) < 0.8 * f64::from(USERS));
        assert!(capacity(MANY) < 1.2 * capacity(FEW));
        // The rule would scale out above 77 % of the CPU that eight replicas have. The declared work alone is a quarter of that.
        assert!(capacity(FEW) * WORK_US as f64 / 1e6 < 0.2 * f64::from(FEW) * crate::autoscale::REQUEST_CORES);
        let plan = Plan::new("test", &scenario().unwrap());
        plan.check(Profile::Protected, &ALL_MISS.map(str::to_owned)).unwrap();
    }

    #[test]
    fn the_stores_mean_is_that_of_the_window() {
        let text = |real: f64, added: f64, count: u32| {
            format!(
                "faultproxy_upstream_seconds_sum {real}\nfaultproxy_upstream_seconds_count {count}\n\
                 faultproxy_added_delay_seconds_sum {added}\n"
            )
        };
        let (before, after) = (text(0.1, 1.0, 10), text(0.3, 8.8, 110));
        assert_eq!(store_ms(&Reading::of([&*before]), &Reading::of([&*after])), 80.0);
    }
}
