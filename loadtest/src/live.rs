//! Metrics of a running step, for Prometheus. The report does not use them; its figures come from the recorder. The metrics include the
//! warm-up and start at 0 with each step, because each step has its own process.

use std::{borrow::Cow, collections::HashMap, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};
use runtime::{Admin, Endpoint, Exemplars, Readiness, lifecycle};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{PROBLEMS, class},
    plan::StepPlan,
};

/// In seconds. A cache hit takes 1 to 2 ms, the model's slowest mean is 620 ms, and the built-in scenarios' timeout is 3 s.
const LATENCY_BUCKETS: [f64; 21] = [
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0,
    2.0, 3.0, 5.0,
];
/// In seconds. A step is invalid if the 99th percentile is above 10 ms.
const LAG_BUCKETS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0];

/// Metrics of one step. All series exist from the start.
pub(crate) struct Live {
    registry: Registry,
    users: IntGauge,
    offered: Gauge,
    planned: IntCounter,
    sent: IntCounter,
    skipped: IntCounter,
    dropped: IntCounter,
    retries: IntCounter,
    throttled: IntCounter,
    good: IntCounter,
    errors: IntCounterVec,
    /// Handles of the known classes; those of `bad_status_…` are resolved on use.
    known_errors: HashMap<&'static str, IntCounter>,
    latency: Histogram,
    lag: Histogram,
}

impl Live {
    pub(crate) fn new(plan: &StepPlan) -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("loadgen".into()), None)?;
        let counter = |name: &str, help: &str| register(&registry, IntCounter::new(name, help)?);
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            register(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
        };
        let errors = IntCounterVec::new(Opts::new("errors_total", "Failed requests by error class"), &["class"])?;
        let errors = register(&registry, errors)?;
        let problems = PROBLEMS.map(|problem| problem.rsplit('/').next().unwrap_or(problem));
        let classes =
            [class::CLIENT_TIMEOUT, class::CLIENT_THROTTLED, class::CONNECT, class::CONNECTION_RESET, class::BAD_BODY];
        let known_errors = classes.into_iter().chain(problems);
        let known_errors = known_errors
            .map(|class| Ok((class, errors.get_metric_with_label_values(&[class])?)))
            .collect::<prometheus::Result<_>>()?;
        let users = IntGauge::new(
            "users",
            "Users of the running step; with a curve, as many as it has now; 0 with open arrivals",
        )?;
        let offered = Gauge::new(
            "offered_requests_per_second",
            "Planned requests per second of the running step; with a curve, those of now",
        )?;
        let step = GaugeVec::new(Opts::new("step", "1 while the step of this name runs"), &["step"])?;
        register(&registry, step)?.get_metric_with_label_values(&[plan.name.as_str()])?.set(1.0);
        let live = Self {
            users: register(&registry, users)?,
            offered: register(&registry, offered)?,
            planned: counter("requests_planned_total", "Planned requests: sent, skipped, dropped or throttled")?,
            sent: counter("requests_sent_total", "Requests sent, without their retries")?,
            skipped: counter(
                "requests_skipped_total",
                "Planned requests that were not sent because the user still waited for a response",
            )?,
            dropped: counter(
                "requests_dropped_total",
                "Open arrivals that were not sent because as many requests as allowed were in flight",
            )?,
            retries: counter("retries_total", "Further tries of requests that were sent before")?,
            throttled: counter(
                "requests_throttled_total",
                "Planned requests that the client's own adaptive throttling did not send",
            )?,
            good: counter("requests_good_total", "Responses with status 2xx that name their source")?,
            latency: histogram(
                "request_duration_seconds",
                "Duration from the planned instant to the end of the response or to the failure, in seconds",
                &LATENCY_BUCKETS,
            )?,
            lag: histogram(
                "send_lag_seconds",
                "Delay of the load generator from the planned instant to the sending, in seconds",
                &LAG_BUCKETS,
            )?,
            errors,
            known_errors,
            registry,
        };
        live.users(plan, 0);
        Ok(live)
    }

    /// Shows the users of this instant, in milliseconds since the common start.
    pub(crate) fn users(&self, plan: &StepPlan, ms: u64) {
        self.users.set(i64::from(plan.users_at(ms)));
        self.offered.set(plan.offered_per_s_at(ms));
    }

    pub(crate) fn sent(&self, lag: Duration) {
        self.planned.inc();
        self.sent.inc();
        self.lag.observe(lag.as_secs_f64());
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn throttled(&self) {
        self.planned.inc();
        self.throttled.inc();
    }

    /// `error` is the class of a failed request.
    pub(crate) fn completed(&self, latency: Duration, error: Option<&Cow<'static, str>>, skipped: u64) {
        self.latency.observe(latency.as_secs_f64());
        self.planned.inc_by(skipped);
        self.skipped.inc_by(skipped);
        match error {
            None => self.good.inc(),
            Some(class) => match self.known_errors.get(class.as_ref()) {
                Some(counter) => counter.inc(),
                None => self.errors.with_label_values(&[class.as_ref()]).inc(),
            },
        }
    }

    pub(crate) fn dropped(&self, count: u64) {
        self.planned.inc_by(count);
        self.dropped.inc_by(count);
    }

    /// Serves `/metrics` on this address until `stop`.
    ///
    /// # Errors
    /// The process cannot listen on the address.
    pub(crate) async fn serve(&self, address: SocketAddr, stop: CancellationToken) -> Result<()> {
        let listener = Endpoint::Tcp(address).bind().await;
        let listener = listener.with_context(|| format!("cannot listen on {address} (metrics)"))?;
        let readiness = Readiness::starting("running", &stop);
        readiness.ready();
        let router = Admin { readiness, registry: self.registry.clone(), exemplars: Exemplars::default() }.router();
        tokio::spawn(async move {
            if let Err(error) = lifecycle::serve(listener, router, stop, Duration::ZERO).await {
                eprintln!("the load generator no longer serves its metrics: {error:#}");
            }
        });
        Ok(())
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        curve::{Curve, Point},
        plan,
    };

    fn value(live: &Live, series: &str) -> f64 {
        let text = prometheus::TextEncoder::new().encode_to_string(&live.registry.gather()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }

    #[test]
    fn what_was_planned_is_sent_skipped_or_dropped() {
        let live = Live::new(&plan::tests::plan()).unwrap();
        for ms in [1, 2, 700] {
            live.sent(Duration::from_micros(300));
            live.completed(Duration::from_millis(ms), None, ms / 500);
        }
        live.sent(Duration::from_millis(20));
        live.completed(Duration::from_secs(3), Some(&Cow::Borrowed(class::CLIENT_TIMEOUT)), 2);
        live.sent(Duration::ZERO);
        live.completed(Duration::from_millis(5), Some(&Cow::Borrowed("bad_status_418")), 0);
        live.dropped(4);
        live.retried();
        live.throttled();
        live.completed(Duration::ZERO, Some(&Cow::Borrowed(class::CLIENT_THROTTLED)), 0);
        for (series, expected) in [
            ("loadgen_requests_planned_total", 13.0),
            ("loadgen_requests_dropped_total", 4.0),
            ("loadgen_requests_sent_total", 5.0),
            ("loadgen_retries_total", 1.0),
            ("loadgen_requests_throttled_total", 1.0),
            ("loadgen_errors_total{class=\"client_throttled\"}", 1.0),
            ("loadgen_requests_skipped_total", 3.0),
            ("loadgen_requests_good_total", 3.0),
            ("loadgen_errors_total{class=\"client_timeout\"}", 1.0),
            ("loadgen_errors_total{class=\"bad_status_418\"}", 1.0),
            ("loadgen_errors_total{class=\"store-checkout-timeout\"}", 0.0),
            ("loadgen_request_duration_seconds_count", 6.0),
            ("loadgen_request_duration_seconds_bucket{le=\"0.002\"}", 3.0),
            ("loadgen_send_lag_seconds_bucket{le=\"0.01\"}", 4.0),
            ("loadgen_users", 10.0),
            ("loadgen_offered_requests_per_second", 10.0),
            ("loadgen_step{step=\"test\"}", 1.0),
        ] {
            assert_eq!(value(&live, series), expected, "{series}");
        }
    }

    #[test]
    fn the_users_are_those_of_now() {
        let points = [(0, 10), (1000, 10), (1000, 40)].map(|(at_ms, users)| Point { at_ms, users });
        let curve = Some(Curve::new(points.to_vec()).unwrap());
        let plan = StepPlan { warm_up_ms: 2000, measure_ms: 2000, interval_ms: 500, curve, ..plan::tests::plan() };
        let live = Live::new(&plan).unwrap();
        for (ms, users) in [(0, 10.0), (2000, 10.0), (2999, 10.0), (3000, 40.0), (4000, 40.0)] {
            live.users(&plan, ms);
            assert_eq!(value(&live, "loadgen_users"), users, "{ms} ms");
            assert_eq!(value(&live, "loadgen_offered_requests_per_second"), 2.0 * users, "{ms} ms");
        }
    }
}
