//! The same step run by k6: the plan for its script, and the figures from its summary. This module does not start k6.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use contract::http::Source;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{PROBLEMS, class},
    figures::Sources,
    plan::{Latency, SendLag, StepOutcome, StepPlan},
};

/// The script, for `k6 run -e PLAN=FILE scenario.js`; FILE holds a [`K6Plan`] as JSON.
pub const SCRIPT: &str = include_str!("../k6/scenario.js");
/// How to install k6.
pub const HOW_TO_GET: &str = "k6 is not on PATH. With Go: `go install go.k6.io/k6@v1.8.1` puts it into $(go env GOPATH)/bin; \
                              otherwise see https://grafana.com/docs/k6/latest/set-up/install-k6/";
/// Precedes the common start (Unix ms) in the script's output.
const START_PREFIX: &str = "testbed start_ms=";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pacing {
    /// Closed loop, as in goose: each user has one request in flight, on an absolute schedule.
    Closed,
    /// Open loop: a constant arrival rate, independent of the latency.
    Open,
}

/// Input of the script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct K6Plan {
    pub step: StepPlan,
    pub pacing: Pacing,
    /// Error classes. k6 must know all counters before the first request.
    pub classes: Vec<String>,
    /// Sources of good responses.
    pub sources: Vec<String>,
    /// File to which the script writes its summary.
    pub summary: PathBuf,
}

impl K6Plan {
    /// # Errors
    /// The step is out of range, or has a curve, `slo_ms`, open arrivals, retries or a criticality, which the script does not support.
    pub fn new(step: StepPlan, pacing: Pacing, summary: &Path) -> Result<Self> {
        step.check()?;
        ensure!(step.curve.is_none(), "k6 cannot run a step with a curve: use the engine goose");
        ensure!(step.slo_ms.is_none(), "k6 cannot count the requests beyond slo_ms: use the engine goose");
        ensure!(step.arrivals.is_closed(), "k6 cannot repeat arrivals = \"open\": use the engine goose");
        ensure!(step.criticality.is_none(), "k6 cannot send the scenario's criticality: use the engine goose");
        ensure!(step.retry.is_none(), "k6 cannot send the scenario's retries: use the engine goose");
        Ok(Self {
            step,
            pacing,
            classes: classes(),
            sources: Source::ALL.map(|source| source.as_str().to_owned()).to_vec(),
            summary: summary.to_owned(),
        })
    }
}

/// The classes of `answer.rs`, with a single class for error responses without a problem document.
fn classes() -> Vec<String> {
    let problems = PROBLEMS.iter().map(|problem| problem.rsplit('/').next().unwrap_or(problem));
    let own = [class::CLIENT_TIMEOUT, class::CONNECT, class::CONNECTION_RESET, class::BAD_BODY];
    problems.chain(own).chain(["bad_status"]).map(str::to_owned).collect()
}

/// Unix ms of the common start, from the script's output so far.
pub fn start_ms(printed: &str) -> Option<u64> {
    let (_, rest) = printed.split_once(START_PREFIX)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    // A number at the end of the output may be incomplete.
    (digits.len() < rest.len()).then(|| digits.parse().ok())?
}

/// The used part of the data that k6 passes to `handleSummary`.
#[derive(Deserialize)]
struct Summary {
    metrics: std::collections::BTreeMap<String, Metric>,
    setup_data: SetupData,
}

#[derive(Deserialize)]
struct SetupData {
    start: u64,
}

#[derive(Deserialize)]
struct Metric {
    values: std::collections::BTreeMap<String, f64>,
}

impl Summary {
    /// k6 leaves out counters that were never incremented.
    fn count(&self, name: &str) -> u64 {
        self.value(name, "count").unwrap_or(0.0) as u64
    }

    fn value(&self, name: &str, value: &str) -> Option<f64> {
        self.metrics.get(name)?.values.get(value).copied()
    }
}

/// Outcome of a k6 run. The step has no series and no histogram, because k6's summary has neither.
#[derive(Debug, Clone, PartialEq)]
pub struct K6Outcome {
    pub step: StepOutcome,
    /// Iterations that k6 did not start because no VU was free. With an open loop, any such iteration falsifies the load.
    pub dropped_iterations: u64,
}

/// Parses the summary of a run of `plan`.
///
/// # Errors
/// The text is not a summary of [`SCRIPT`].
pub fn outcome(plan: &StepPlan, summary: &str) -> Result<K6Outcome> {
    let summary: Summary = serde_json::from_str(summary).context("k6's summary cannot be parsed")?;
    let sources = |of: &str| {
        let count = |source: Source| summary.count(&format!("source_{of}_{}", source.as_str()));
        Sources {
            cache: count(Source::Cache),
            store: count(Source::Store),
            popular: count(Source::Popular),
            stale: count(Source::Stale),
        }
    };
    let (known, unknown) = (sources("known"), sources("unknown"));
    let total = |of: &Sources| of.cache + of.store + of.popular + of.stale;
    let errors: std::collections::BTreeMap<String, u64> = classes()
        .into_iter()
        .map(|name| (summary.count(&format!("error_{}", name.replace('-', "_"))), name))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| (name, count))
        .collect();
    let good = total(&known) + total(&unknown);
    let answered = good + errors.values().sum::<u64>();
    let (sent, known_answered) = (summary.count("sent"), summary.count("known_answered"));
    let trend = |name: &str, value: &str| summary.value(name, value).unwrap_or(0.0);
    let latency = |value: &str| trend("latency_from_planned_ms", value);
    let measured_s = plan.measure_ms as f64 / 1000.0;
    let pct = |part: u64, whole: u64| (whole > 0).then(|| 100.0 * part as f64 / whole as f64);
    let latency = Latency {
        mean_ms: latency("avg"),
        p50_ms: latency("p(50)"),
        p90_ms: latency("p(90)"),
        p99_ms: latency("p(99)"),
        p999_ms: latency("p(99.9)"),
        max_ms: latency("max"),
    };
    let started_ms = summary.setup_data.start + plan.warm_up_ms;
    let points = [(50.0, latency.p50_ms), (90.0, latency.p90_ms), (99.0, latency.p99_ms), (99.9, latency.p999_ms)];
    let step = StepOutcome {
        name: plan.name.clone(),
        users: plan.users,
        started_ms,
        ended_ms: started_ms + plan.measure_ms,
        measured_s,
        offered_per_s: plan.offered_per_s(),
        sent,
        answered,
        good,
        skipped: summary.count("skipped"),
        beyond_slo: None,
        error_pct: pct(answered - good, answered).unwrap_or_default(),
        errors,
        sent_per_s: sent as f64 / measured_s,
        answered_per_s: answered as f64 / measured_s,
        good_per_s: good as f64 / measured_s,
        latency,
        // The script has one latency trend, which includes the errors.
        good_latency: Latency::default(),
        send_lag: SendLag {
            p50_ms: trend("send_lag_ms", "p(50)"),
            p99_ms: trend("send_lag_ms", "p(99)"),
            max_ms: trend("send_lag_ms", "max"),
        },
        known_personal_pct: pct(known.cache + known.store + known.stale, known_answered),
        known_answered,
        known_sources: known,
        unknown_sources: unknown,
        repeated_ids: 0,
        series: Vec::new(),
        latency_curve: points.into_iter().chain([(100.0, latency.max_ms)]).filter(|_| answered > 0).collect(),
        hdr_log: String::new(),
        arrivals: plan.arrivals.describe(),
        dropped: 0,
        corrected: None,
        requests: None,
        retries: None,
        criticalities: Vec::new(),
    };
    Ok(K6Outcome { step, dropped_iterations: summary.count("dropped_iterations") })
}

#[cfg(test)]
mod tests;
