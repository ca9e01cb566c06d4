//! A stack under a constant load of requests and events, with Kafka, monitors, workers, and a Prometheus whose rules are sped up.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use api::Profile;
use launcher::{free_port, prometheus::Prometheus};
use loadtest::scenario::{Law, Order, Scenario, Store};
use serde::Deserialize;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::events::Behaviour;
use crate::{
    data,
    stack::control_plane::{self, ControlPlane},
    stack::service::{Monitoring, Plan, ServiceStack},
};

/// Times of the rules are divided by this.
pub const SPEED_UP: u32 = 240;
/// Of scraping and of the rules.
pub const INTERVAL: Duration = Duration::from_millis(500);
pub const REPLICAS: u32 = 2;
pub const PER_S: u32 = 50;
const BEAT_MS: u64 = 200;
const USERS: u32 = 2_000;
/// As long as users wait; bounds the requests in flight.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Every request costs a query, unknown ids too. The queue of spans is short, so that spans are lost soon after the receiver is gone.
const SETS: [&str; 8] = [
    "guards.warmup=off",
    "guards.bloom=off",
    "cache.fresh_ms=1",
    "cache.stale_ms=0",
    "http.admission=off",
    "telemetry.sample_ratio=1",
    "telemetry.queue=200",
    "telemetry.flush_ms=100",
];

/// Workers' lists are never fresh: see `SETS`.
const WORKER_SETS: [&str; 5] = [
    "lists.fresh_ms=1",
    "lists.stale_ms=0",
    // Three in the shortest window of an alert about publications.
    "segments.publish_every_ms=2000",
    "segments.report_every_ms=1000",
    "segments.scrub_bytes_per_s=16777216",
];
const MONITOR_SETS: [&str; 1] = ["segments.report_every_ms=1000"];

pub struct AlertsStack {
    pub service: ServiceStack,
    pub control_plane: ControlPlane,
    pub load: Load,
    _behaviour: Behaviour,
    pub prometheus: Prometheus,
    pub http: reqwest::Client,
}

/// Answer of Prometheus's `/api/v1/alerts`.
#[derive(Deserialize)]
struct Alerts {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    labels: Labels,
    state: String,
}

#[derive(Deserialize)]
struct Labels {
    alertname: String,
}

impl AlertsStack {
    pub async fn start() -> anyhow::Result<Self> {
        let mut scenario = Scenario::load("smoke")?;
        scenario.law = Law::None;
        scenario.replicas = REPLICAS;
        // More than are busy while the store is late, fewer than while it hardly answers.
        scenario.store = Store { pool_size: 30, order: Order::Newest, checkout_timeout_ms: 300, max_waiting: 1_000 };
        let mut plan = Plan::new("alerts", &scenario);
        plan.traces = true;
        plan.events = true;
        plan.sets = SETS.map(str::to_owned).to_vec();
        let loadgen = ([127, 0, 0, 1], free_port()?).into();
        plan.prometheus = Some(Monitoring { loadgen, interval: INTERVAL, hurry: SPEED_UP, exporters: false });
        let mut service = ServiceStack::start(plan).await?;
        let dataset = data::Source::Generator(USERS).load().await?.dataset;
        service.load(&dataset).await?;
        let worker_sets = service.worker_event_sets().into_iter().chain(WORKER_SETS.map(str::to_owned)).collect();
        let monitor_sets = MONITOR_SETS.map(str::to_owned).to_vec();
        let plan = control_plane::Plan {
            interval_ms: BEAT_MS,
            worker_sets,
            monitor_sets,
            segments: true,
            ..control_plane::Plan::default()
        };
        let store = service.direct_store();
        let control_plane = ControlPlane::start(&mut service.stack, &plan, &store).await?;
        service.default_sets(control_plane.segment_sets());
        service.start_replicas(Profile::Protected, &[]).await?;
        let known = dataset.users.iter().map(|user| user.as_str().to_owned()).collect();
        let http = runtime::http::plain().timeout(TIMEOUT).build()?;
        let load = Load::start(http.clone(), &service.nginx.url, known);
        let behaviour = Behaviour::start(&service.nginx.url, &dataset);
        let prometheus = service.prometheus.clone().context("the stack has no Prometheus")?;
        control_plane.jobs().iter().try_for_each(|job| prometheus.add(job))?;
        Ok(Self { service, control_plane, load, _behaviour: behaviour, prometheus, http })
    }

    /// Names of the alerts that fire now.
    ///
    /// # Errors
    /// Prometheus does not answer, or a process of the stack has ended on its own.
    pub async fn firing(&self) -> anyhow::Result<BTreeSet<String>> {
        self.service.stack.check()?;
        let answer = self.http.get(format!("{}/api/v1/alerts", self.prometheus.url)).send().await;
        let alerts: Alerts = answer.and_then(reqwest::Response::error_for_status).context("Prometheus")?.json().await?;
        let firing = alerts.data.alerts.into_iter().filter(|alert| alert.state == "firing");
        Ok(firing.map(|alert| alert.labels.alertname).collect())
    }
}

/// Sends requests at a constant rate, also when they fail. Stops when dropped.
pub struct Load {
    unknown: Arc<AtomicBool>,
    _stop: DropGuard,
}

impl Load {
    fn start(http: reqwest::Client, gateway: &str, known: Vec<String>) -> Self {
        let (unknown, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let url = format!("{gateway}/recommendations?user_id=");
        tokio::spawn(ask(http, url, known, Arc::clone(&unknown), stop.clone()));
        Self { unknown, _stop: stop.drop_guard() }
    }

    /// Whether requests are for unknown ids from now on.
    pub fn ask_for_unknown(&self, unknown: bool) {
        self.unknown.store(unknown, Ordering::Relaxed);
    }
}

async fn ask(
    http: reqwest::Client,
    url: String,
    known: Vec<String>,
    unknown: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    let mut asked = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / PER_S);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (n, user) in known.iter().cycle().enumerate() {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let url = if unknown.load(Ordering::Relaxed) { format!("{url}unknown-{n}") } else { format!("{url}{user}") };
        let request = http.get(url);
        asked.spawn(async move {
            // Read to its end, so that the connection is used again.
            if let Ok(answer) = request.send().await {
                drop(answer.bytes().await);
            }
        });
        while asked.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replicas_accept_the_settings() {
        let plan = Plan::new("test", &Scenario::load("article").unwrap());
        plan.check(Profile::Protected, &SETS.map(str::to_owned)).unwrap();
    }
}
