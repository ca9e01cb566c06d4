//! What a step does while it does it, for Prometheus. The report does not read these: its figures are the recorder's. They count
//! from the step's first request, its warm-up included, and begin anew with each step, as its process does.

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

/// A cache hit takes a millisecond or two, the model's slowest mean 620 ms, and no user waits longer than 3 s.
const LATENCY_BUCKETS: [f64; 21] = [
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0,
    2.0, 3.0, 5.0,
];
/// A step is invalid above 10 ms at p99.
const LAG_BUCKETS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0];

/// The series of one step; every one is there from the start.
pub(crate) struct Live {
    registry: Registry,
    planned: IntCounter,
    sent: IntCounter,
    skipped: IntCounter,
    good: IntCounter,
    errors: IntCounterVec,
    /// Of the classes that can be foreseen; `bad_status_…` are resolved when they appear.
    foreseen: HashMap<&'static str, IntCounter>,
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
        let errors = IntCounterVec::new(Opts::new("errors_total", "Requests that failed, by class"), &["class"])?;
        let errors = register(&registry, errors)?;
        let problems = PROBLEMS.map(|problem| problem.rsplit('/').next().unwrap_or(problem));
        let classes = [class::CLIENT_TIMEOUT, class::CONNECT, class::CONNECTION_RESET, class::BAD_BODY];
        let foreseen = classes.into_iter().chain(problems);
        let foreseen = foreseen
            .map(|class| Ok((class, errors.get_metric_with_label_values(&[class])?)))
            .collect::<prometheus::Result<_>>()?;
        let users = IntGauge::new("users", "Users of the step under way, those of a surge not counted")?;
        register(&registry, users)?.set(i64::from(plan.users));
        let offered = Gauge::new("offered_requests_per_second", "Requests per second that the step plans")?;
        register(&registry, offered)?.set(plan.offered_per_s());
        let step = GaugeVec::new(Opts::new("step", "1: this step is under way"), &["step"])?;
        register(&registry, step)?.get_metric_with_label_values(&[plan.name.as_str()])?.set(1.0);
        Ok(Self {
            planned: counter("requests_planned_total", "Planned instants that have passed: requests sent or skipped")?,
            sent: counter("requests_sent_total", "Requests sent")?,
            skipped: counter("requests_skipped_total", "Planned instants that passed while their user still waited")?,
            good: counter("requests_good_total", "Answers 2xx that name their source")?,
            latency: histogram(
                "request_duration_seconds",
                "From the planned instant to the end of the answer or the error",
                &LATENCY_BUCKETS,
            )?,
            lag: histogram("send_lag_seconds", "From the planned instant to the sending", &LAG_BUCKETS)?,
            errors,
            foreseen,
            registry,
        })
    }

    pub(crate) fn sent(&self, lag: Duration) {
        self.planned.inc();
        self.sent.inc();
        self.lag.observe(lag.as_secs_f64());
    }

    /// `error`: the class, if it was one.
    pub(crate) fn ended(&self, latency: Duration, error: Option<&Cow<'static, str>>, skipped: u64) {
        self.latency.observe(latency.as_secs_f64());
        self.planned.inc_by(skipped);
        self.skipped.inc_by(skipped);
        match error {
            None => self.good.inc(),
            Some(class) => match self.foreseen.get(class.as_ref()) {
                Some(counter) => counter.inc(),
                None => self.errors.with_label_values(&[class.as_ref()]).inc(),
            },
        }
    }

    /// `/metrics` on this address until `stop`.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub(crate) async fn serve(&self, address: SocketAddr, stop: CancellationToken) -> Result<()> {
        let listener = Endpoint::Tcp(address).bind().await;
        let listener = listener.with_context(|| format!("cannot listen on {address} (metrics)"))?;
        let readiness = Readiness::starting("running", &stop);
        readiness.ready();
        let router = Admin { readiness, registry: self.registry.clone(), exemplars: Exemplars::default() }.router();
        tokio::spawn(async move {
            if let Err(error) = lifecycle::serve(listener, router, stop, Duration::ZERO).await {
                eprintln!("the load generator's metrics are gone: {error:#}");
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
    use crate::plan;

    fn value(live: &Live, series: &str) -> f64 {
        let text = prometheus::TextEncoder::new().encode_to_string(&live.registry.gather()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }

    #[test]
    fn what_was_planned_is_sent_or_skipped() {
        let live = Live::new(&plan::tests::plan()).unwrap();
        for ms in [1, 2, 700] {
            live.sent(Duration::from_micros(300));
            live.ended(Duration::from_millis(ms), None, ms / 500);
        }
        live.sent(Duration::from_millis(20));
        live.ended(Duration::from_secs(3), Some(&Cow::Borrowed(class::CLIENT_TIMEOUT)), 2);
        live.sent(Duration::ZERO);
        live.ended(Duration::from_millis(5), Some(&Cow::Borrowed("bad_status_418")), 0);
        for (series, expected) in [
            ("loadgen_requests_planned_total", 8.0),
            ("loadgen_requests_sent_total", 5.0),
            ("loadgen_requests_skipped_total", 3.0),
            ("loadgen_requests_good_total", 3.0),
            ("loadgen_errors_total{class=\"client_timeout\"}", 1.0),
            ("loadgen_errors_total{class=\"bad_status_418\"}", 1.0),
            ("loadgen_errors_total{class=\"store-checkout-timeout\"}", 0.0),
            ("loadgen_request_duration_seconds_count", 5.0),
            ("loadgen_request_duration_seconds_bucket{le=\"0.002\"}", 2.0),
            ("loadgen_send_lag_seconds_bucket{le=\"0.01\"}", 4.0),
            ("loadgen_users", 10.0),
            ("loadgen_offered_requests_per_second", 10.0),
            ("loadgen_step{step=\"test\"}", 1.0),
        ] {
            assert_eq!(value(&live, series), expected, "{series}");
        }
    }
}
