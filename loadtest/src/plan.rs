//! Plan, progress and outcome of one step: plain data that the processes exchange as JSON.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};
use runtime::telemetry::TelemetryConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    arrivals::Arrivals,
    criticality::{CriticalityFigures, CriticalityMix},
    curve::{Curve, MAX_USERS},
    figures::{RequestCounts, RetryFigures, Second, Sources},
    retry::Retry,
    scenario::{KnownIds, Scenario},
    target::{self, Target},
};

/// One step of a load test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepPlan {
    /// Name of the step, for error messages and the histogram log.
    pub name: String,
    /// Base URL of the gateway, such as `http://127.0.0.1:8080`. Only plain HTTP to a loopback address is accepted, so that a typing
    /// error cannot load a foreign service. With a `target`: the scheme and the `Host` header; the addresses are those of the target.
    pub base_url: String,
    /// With open arrivals, planned requests per second (1 to 20,000). Else users that send during the whole step (1 to 20,000); with a curve, its first value, for the warm-up (0 to 20,000).
    pub users: u32,
    /// Users over the measured part; `None`: always the same. A user sends while the curve is above its number, so that the last user
    /// to come is the first to leave. A request in flight when its user leaves is completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<Curve>,
    /// Time between two planned requests of one user, in milliseconds.
    pub interval_ms: u64,
    /// See [`Scenario::arrival_grid_ms`].
    #[serde(default)]
    pub arrival_grid_ms: u64,
    /// Timeout of a request, with all its tries, in milliseconds.
    pub timeout_ms: u64,
    /// How a failed request is sent again; `None`: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Criticality of the requests; `None`: they carry none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criticality: Option<CriticalityMix>,
    /// Latency from the planned instant, in milliseconds (1 to 60,000), above which a good response counts as `beyond_slo`; `None`:
    /// `beyond_slo` is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_ms: Option<u64>,
    /// Warm-up before the measured part, in milliseconds.
    pub warm_up_ms: u64,
    /// Measured part, in milliseconds.
    pub measure_ms: u64,
    /// Share of the requests whose user id does not exist (0 to 1).
    pub unknown_share: f64,
    /// How ids are selected from `known_ids`.
    pub known: KnownIds,
    /// File with the ids of existing users, one per line; at least one unless `unknown_share` is 1.
    pub known_ids: PathBuf,
    /// Seed of the step, below 2⁵³. All else that is drawn has a seed mixed from it, see [`stream`]. Unknown ids are `x-<seed>-<n>`: each step
    /// needs its own seed.
    pub seed: u64,
    /// Threads of the load generator's process (1 to 8).
    pub worker_threads: usize,
    /// Address at which the process serves `/metrics` during the step; `None`: it serves none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// Sampling and destination of the requests' spans; `None`: no spans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<TelemetryConfig>,
    /// How requests arrive. With open arrivals there is no `curve` of users, `interval_ms` is 1,000 and `arrival_grid_ms` 0.
    #[serde(default, skip_serializing_if = "Arrivals::is_closed")]
    pub arrivals: Arrivals,
    /// Somebody else's endpoint; `None`: the recommendations of `base_url`. With a target whose template has no id, `known_ids` is not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// Seed of a run without a seed of its own.
pub const DEFAULT_RUN_SEED: u64 = 1;

/// Seeds of what a step draws: `statistics::seed::mixed(plan.seed, …)` with these parts.
pub(crate) mod stream {
    /// Order of the users' phases.
    pub(crate) const PHASES: [u64; 1] = [0];
    /// Order of the known ids.
    pub(crate) const IDS: [u64; 1] = [1];

    /// The instants of open arrivals.
    pub(crate) const INSTANTS: [u64; 1] = [3];

    /// What one of the open arrivals draws, by its number.
    pub(crate) fn arrival(number: u64) -> [u64; 2] {
        [4, number]
    }

    /// What the retries of one request draw: by the number of its user or arrival, and its planned instant.
    pub(crate) fn retries(number: u64, planned_us: u64) -> [u64; 3] {
        [5, number, planned_us]
    }

    /// What one user draws, by its number.
    pub(crate) fn user(number: usize) -> [u64; 2] {
        [2, number as u64]
    }
}

/// Longest measured part: four hours. Each measured second needs 20 kB of memory in the load generator.
pub const MAX_MEASURE_S: u32 = 14_400;

impl StepPlan {
    /// A step of a scenario with this number of users; `n`, the step's index, selects the share of unknown ids and the seed, which is that of
    /// the first repeat of a run with [`DEFAULT_RUN_SEED`].
    pub fn of(scenario: &Scenario, users: u32, n: usize, known_ids: &Path, base_url: &str) -> Self {
        Self {
            name: format!("{} {users}", scenario.name),
            base_url: base_url.to_owned(),
            users,
            curve: None,
            interval_ms: scenario.interval_ms,
            arrival_grid_ms: scenario.arrival_grid_ms,
            timeout_ms: scenario.timeout_ms,
            retry: scenario.retry.clone(),
            criticality: scenario.criticality,
            slo_ms: None,
            warm_up_ms: u64::from(scenario.warm_up_s) * 1000,
            measure_ms: u64::from(scenario.measure_s) * 1000,
            unknown_share: scenario.unknown_share.get(n).copied().unwrap_or_default(),
            known: scenario.known,
            known_ids: known_ids.to_owned(),
            seed: statistics::seed::of_step(DEFAULT_RUN_SEED, 1, n),
            worker_threads: 1,
            metrics: None,
            telemetry: None,
            arrivals: scenario.arrivals.clone(),
            target: None,
        }
    }

    /// Checks all ranges.
    ///
    /// # Errors
    /// Names the first value that is out of its range.
    pub fn check(&self) -> Result<()> {
        match &self.target {
            None => target::check_own(&self.base_url)?,
            Some(target) => {
                target.check(self.peak_per_s(), self.warm_up_ms, self.measure_ms)?;
                ensure!(self.unknown_share == 0.0, "a target has no unknown ids");
                ensure!(self.retry.is_none(), "a target gets no retries: its load is bounded by the plan's rate");
                ensure!(self.criticality.is_none(), "a target knows no criticality");
            }
        }
        match &self.curve {
            None => ensure!((1..=MAX_USERS).contains(&self.users), "users must be 1..={MAX_USERS}, is {}", self.users),
            Some(curve) => self.check_curve(curve)?,
        }
        self.check_open()?;
        ensure!((10..=60_000).contains(&self.interval_ms), "interval_ms must be 10..=60000, is {}", self.interval_ms);
        ensure!(
            self.arrival_grid_ms <= self.interval_ms,
            "arrival_grid_ms must be at most interval_ms, is {}",
            self.arrival_grid_ms
        );
        ensure!((10..=60_000).contains(&self.timeout_ms), "timeout_ms must be 10..=60000, is {}", self.timeout_ms);
        self.retry.as_ref().map_or(Ok(()), |retry| retry.check(self.timeout_ms)).context("retry")?;
        self.criticality.map_or(Ok(()), |mix| mix.check()).context("criticality")?;
        let slo_ms = self.slo_ms.unwrap_or(1);
        ensure!((1..=60_000).contains(&slo_ms), "slo_ms must be 1..=60000, is {slo_ms}");
        ensure!(self.warm_up_ms <= 600_000, "warm_up_ms must be 0..=600000, is {}", self.warm_up_ms);
        let longest = u64::from(MAX_MEASURE_S) * 1000;
        ensure!(
            (100..=longest).contains(&self.measure_ms),
            "measure_ms must be 100..={longest}, is {}",
            self.measure_ms
        );
        ensure!((0.0..=1.0).contains(&self.unknown_share), "unknown_share must be 0..=1, is {}", self.unknown_share);
        if let KnownIds::Zipf { exponent } = self.known {
            ensure!((0.0..=5.0).contains(&exponent), "exponent must be 0..=5, is {exponent}");
        }
        let mut problems = Vec::new();
        self.telemetry.iter().for_each(|telemetry| telemetry.validate(&mut problems));
        ensure!(problems.is_empty(), "{}", problems.join("; "));
        ensure!((1..=8).contains(&self.worker_threads), "worker_threads must be 1..=8, is {}", self.worker_threads);
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        let Some(open) = self.arrivals.open() else { return Ok(()) };
        open.check(self.users, self.measure_ms)?;
        ensure!(self.curve.is_none(), "a curve of users belongs to closed arrivals");
        ensure!(
            (self.interval_ms, self.arrival_grid_ms) == (1000, 0),
            "with open arrivals interval_ms must be 1000 and arrival_grid_ms 0, they are {} and {}",
            self.interval_ms,
            self.arrival_grid_ms
        );
        Ok(())
    }

    /// `Curve::new` has checked the curve itself.
    fn check_curve(&self, curve: &Curve) -> Result<()> {
        let (first, end_ms) = (curve.first_users(), curve.end_ms());
        ensure!(self.users == first, "users must be the first value of the curve, {first}, is {}", self.users);
        ensure!(
            end_ms <= self.measure_ms,
            "the points of the curve must be within the measured part of {} ms, the last one is at {end_ms} ms",
            self.measure_ms
        );
        Ok(())
    }

    /// Largest number of users at a time. As many are started, because a user that comes again is the same user. With open arrivals: slots,
    /// each of which sends one request at a time.
    pub fn all_users(&self) -> u32 {
        if let Some(open) = self.arrivals.open() {
            return open.slots(self.users, self.timeout_ms);
        }
        self.curve.as_ref().map_or(self.users, Curve::peak)
    }

    /// Users at an instant, in milliseconds since the start of the warm-up; 0 with open arrivals.
    pub fn users_at(&self, ms: u64) -> u32 {
        if !self.arrivals.is_closed() {
            return 0;
        }
        let measured_ms = ms.checked_sub(self.warm_up_ms);
        self.curve.as_ref().zip(measured_ms).map_or(self.users, |(curve, ms)| curve.users_at(ms))
    }

    /// Planned requests per second at an instant, in milliseconds since the start of the warm-up.
    pub fn offered_per_s_at(&self, ms: u64) -> f64 {
        match self.arrivals.open() {
            Some(open) => open.per_s_at(self.users, ms.saturating_sub(self.warm_up_ms) / 1000),
            None => f64::from(self.users_at(ms)) * 1000.0 / self.interval_ms as f64,
        }
    }

    /// Most planned requests per second at any instant.
    pub fn peak_per_s(&self) -> f64 {
        match self.arrivals.open() {
            Some(open) => open.peak_per_s(self.users),
            None => f64::from(self.all_users().max(self.users)) * 1000.0 / self.interval_ms.max(1) as f64,
        }
    }

    /// Planned requests per second; with a curve, the mean over the measured part.
    pub fn offered_per_s(&self) -> f64 {
        if let Some(open) = self.arrivals.open() {
            return open.mean_per_s(self.users, self.measure_ms);
        }
        let users = self.curve.as_ref().map_or(f64::from(self.users), |curve| curve.mean_users(self.measure_ms));
        users * 1000.0 / self.interval_ms as f64
    }
}

/// Part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    WarmUp,
    Measure,
}

/// Figures of the second that has just ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: Phase,
    /// Seconds since the first request; the step ends at `total_s`.
    pub elapsed_s: u32,
    pub total_s: u32,
    pub sent: u64,
    pub good: u64,
    pub errors: u64,
    /// 99th percentile of the latency of the requests that ended in this second; `None` if fewer than 1,000 ended.
    pub p99_ms: Option<f64>,
    /// Median of the same latencies; `None` without such a request.
    #[serde(default)]
    pub p50_ms: Option<f64>,
    /// Longest of the same latencies; `None` without such a request.
    #[serde(default)]
    pub max_ms: Option<f64>,
    /// Planned requests per second in this second, from the plan.
    #[serde(default)]
    pub offered_per_s: f64,
}

/// Figures of the measured part of a step. A completed request counts if it ended in the measured part, as in the model. A sent or
/// skipped request counts by its own instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepOutcome {
    pub name: String,
    /// With a curve: those of the warm-up. With open arrivals: the step's planned requests per second.
    pub users: u32,
    /// Start of the measured part, Unix time in milliseconds.
    pub started_ms: u64,
    /// End of the measured part, Unix time in milliseconds.
    pub ended_ms: u64,
    pub measured_s: f64,
    /// Planned requests per second: users / interval. With a curve: the mean of its users over the measured part / interval. With open
    /// arrivals: the mean of the planned rate.
    pub offered_per_s: f64,
    /// Requests that were sent, without their retries.
    pub sent: u64,
    /// Completed requests: good responses, error responses and failures, client timeouts included.
    pub answered: u64,
    /// Responses with status 2xx before the timeout whose body names its source; of somebody else's endpoint, with any body.
    pub good: u64,
    /// Planned requests that were not sent because the user still waited for the response before.
    pub skipped: u64,
    /// Completed requests that failed, or whose good response came later than the plan's `slo_ms` after the planned instant; absent
    /// without `slo_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond_slo: Option<u64>,
    /// Number of failed requests by class, see [`class`](crate::answer::class).
    pub errors: BTreeMap<String, u64>,
    /// Failed share of `answered`, in percent.
    pub error_pct: f64,
    pub sent_per_s: f64,
    pub answered_per_s: f64,
    pub good_per_s: f64,
    /// Latency of all completed requests, from the planned instant to the last byte of the response body or to the failure.
    pub latency: Latency,
    /// Latency of the good responses.
    pub good_latency: Latency,
    /// Delay of the load generator, from the planned instant to the sending.
    pub send_lag: SendLag,
    /// Good responses to existing users, by source.
    pub known_sources: Sources,
    /// Good responses to ids that do not exist, by source.
    pub unknown_sources: Sources,
    /// Completed requests of existing users, failed ones included.
    pub known_answered: u64,
    /// Share of `known_answered` with the user's own list (cache, store or stale), in percent; `None` without such requests.
    pub known_personal_pct: Option<f64>,
    /// Requests whose id an earlier request of the step had used, warm-up included.
    pub repeated_ids: u64,
    /// One element per measured second.
    pub series: Vec<Second>,
    /// `[percentile 0..=100, ms]` of all completed requests, ascending.
    pub latency_curve: Vec<(f64, f64)>,
    /// Text of an HDR histogram log in µs with the tags `all` and `good`, and with closed arrivals `corrected`.
    pub hdr_log: String,
    /// How requests arrived, in words.
    #[serde(default)]
    pub arrivals: String,
    /// Open arrivals that were not sent because as many requests as allowed were in flight, by their planned instant.
    #[serde(default)]
    pub dropped: u64,
    /// Skip-corrected latency, only with closed arrivals: that of `latency`, and in addition for each skipped request the time from its
    /// planned instant to the end of the request that its user waited for. Users who do not wait would have seen this latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Latency>,
    /// Over the whole step, not only its measured part; `None`: the generator (k6) does not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestCounts>,
    /// Absent if the plan has no retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetryFigures>,
    /// The most critical first; empty if the plan has no criticality.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub criticalities: Vec<CriticalityFigures>,
}

/// Latencies in milliseconds; all 0 without a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// Delays in milliseconds; all 0 without a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SendLag {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl StepOutcome {
    /// Good responses by source, for existing and unknown ids together.
    pub fn sources(&self) -> Sources {
        let (a, b) = (&self.known_sources, &self.unknown_sources);
        Sources {
            cache: a.cache + b.cache,
            store: a.store + b.store,
            popular: a.popular + b.popular,
            stale: a.stale + b.stale,
        }
    }
}

/// Writes the histogram log of a step in the interval log format of HdrHistogram.
///
/// # Errors
/// The file cannot be written.
pub fn write_hdr_log(path: &Path, outcome: &StepOutcome) -> Result<()> {
    std::fs::write(path, &outcome.hdr_log).with_context(|| format!("cannot write {}", path.display()))
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| millis(histogram.value_at_quantile(quantile));
        Self {
            mean_ms: histogram.mean() / 1000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: millis(histogram.max()),
        }
    }
}

pub(crate) fn millis(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// Percentiles in steps that halve towards 100, as far as the number of requests supports them.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let points = histogram.iter_quantiles(5).map(|point| {
        // The last bucket's upper edge may exceed the largest recorded value.
        (100.0 * point.quantile_iterated_to(), millis(point.value_iterated_to().min(histogram.max())))
    });
    points.collect()
}

pub(crate) fn hdr_log(
    name: &str,
    started: std::time::Duration,
    length: std::time::Duration,
    histograms: &[(&str, &Histogram<u64>)],
) -> Result<String> {
    let mut text = Vec::new();
    // Compressed, as the log format has it: readers in other languages accept nothing else.
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(&format!("step {name}: latency in microseconds from the planned instant"))
        .with_start_time(std::time::UNIX_EPOCH + started)
        .with_max_value_divisor(1000.0);
    let mut writer = builder.begin_log_with(&mut text, &mut serializer).context("histogram log")?;
    for (tag, histogram) in histograms {
        let written = writer.write_histogram(histogram, started, length, Tag::new(tag));
        written.map_err(|error| anyhow::anyhow!("histogram log: {error:?}"))?;
    }
    drop(writer);
    String::from_utf8(text).context("histogram log")
}

#[cfg(test)]
pub(crate) mod tests;
