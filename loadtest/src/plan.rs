//! What one step is to do, how it is going, and what came of it: plain data that crosses a process boundary as JSON.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::{
    Histogram,
    serialization::{
        V2Serializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};
use runtime::telemetry::TelemetryConfig;
use serde::{Deserialize, Serialize};

use crate::{
    figures::{Second, Sources},
    scenario::{Known, Scenario},
};

/// One step of a load test. Times in ms, shares 0..=1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepPlan {
    /// Shown in errors and written into the histogram log.
    pub name: String,
    /// `http://127.0.0.1:8080`: plain HTTP to a loopback address, which keeps a typing error from loading somebody's service.
    pub base_url: String,
    /// 1..=20,000.
    pub users: u32,
    /// Further users who come and go within the step.
    #[serde(default)]
    pub surge: Option<Surge>,
    pub interval_ms: u64,
    /// As `Scenario::arrival_grid_ms`.
    #[serde(default)]
    pub arrival_grid_ms: u64,
    pub timeout_ms: u64,
    pub warm_up_ms: u64,
    pub measure_ms: u64,
    pub unknown_share: f64,
    pub known: Known,
    /// Ids of known users, one per line, at least one unless `unknown_share` is 1.
    pub known_ids: PathBuf,
    /// Decides phases, order of ids and the unknown ids, `x-<seed>-<n>`: give each step another one.
    pub seed: u64,
    /// Threads of the process that [`loadgen_main`](crate::child::loadgen_main) starts, 1..=8.
    pub worker_threads: usize,
    /// Where the process shows its counters to Prometheus while the step lasts (`/metrics`); nowhere without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// Spans of the requests, and where they go; none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<TelemetryConfig>,
}

/// Users beside those of the whole step. A request they have sent when their time is over still runs to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surge {
    /// Together with the step's own at most 20,000.
    pub users: u32,
    /// Since the measured part began.
    pub from_ms: u64,
    /// After `from_ms`, at most `measure_ms`.
    pub to_ms: u64,
}

/// Longest measured part: four hours. Each second of it costs the load generator 20 kB.
pub const MAX_MEASURE_S: u32 = 14_400;

impl StepPlan {
    /// A step of a scenario: the n-th one's share of unknown ids, on this many users.
    pub fn of(scenario: &Scenario, users: u32, n: usize, known_ids: &Path, base_url: &str) -> Self {
        Self {
            name: format!("{} {users}", scenario.name),
            base_url: base_url.to_owned(),
            users,
            surge: None,
            interval_ms: scenario.interval_ms,
            arrival_grid_ms: scenario.arrival_grid_ms,
            timeout_ms: scenario.timeout_ms,
            warm_up_ms: u64::from(scenario.warm_up_s) * 1000,
            measure_ms: u64::from(scenario.measure_s) * 1000,
            unknown_share: scenario.unknown_share.get(n).copied().unwrap_or_default(),
            known: scenario.known,
            known_ids: known_ids.to_owned(),
            seed: 1 + n as u64,
            worker_threads: 1,
            metrics: None,
            telemetry: None,
        }
    }

    /// # Errors
    /// The first value out of its range.
    pub fn check(&self) -> Result<()> {
        let base = reqwest::Url::parse(&self.base_url).with_context(|| format!("base_url {:?}", self.base_url))?;
        let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if base.scheme() != "http" || !loopback {
            bail!("base_url {:?} is no loopback address such as http://127.0.0.1:8080", self.base_url);
        }
        ensure!(base.query().is_none() && base.fragment().is_none(), "base_url {:?} has a query", self.base_url);
        ensure!((1..=20_000).contains(&self.users), "users must be 1..=20000, is {}", self.users);
        ensure!((10..=60_000).contains(&self.interval_ms), "interval_ms must be 10..=60000, is {}", self.interval_ms);
        ensure!(
            self.arrival_grid_ms <= self.interval_ms,
            "arrival_grid_ms must be at most interval_ms, is {}",
            self.arrival_grid_ms
        );
        ensure!((10..=60_000).contains(&self.timeout_ms), "timeout_ms must be 10..=60000, is {}", self.timeout_ms);
        ensure!(self.warm_up_ms <= 600_000, "warm_up_ms must be 0..=600000, is {}", self.warm_up_ms);
        let longest = u64::from(MAX_MEASURE_S) * 1000;
        ensure!(
            (100..=longest).contains(&self.measure_ms),
            "measure_ms must be 100..={longest}, is {}",
            self.measure_ms
        );
        if let Some(surge) = self.surge {
            let all = self.users.saturating_add(surge.users);
            ensure!(surge.users >= 1 && all <= 20_000, "users and surge.users must be 2..=20000 together, are {all}");
            ensure!(
                surge.from_ms < surge.to_ms && surge.to_ms <= self.measure_ms,
                "surge.from_ms..surge.to_ms must lie within the measured part, is {}..{}",
                surge.from_ms,
                surge.to_ms
            );
        }
        ensure!((0.0..=1.0).contains(&self.unknown_share), "unknown_share must be 0..=1, is {}", self.unknown_share);
        if let Known::Zipf { exponent } = self.known {
            ensure!((0.0..=5.0).contains(&exponent), "exponent must be 0..=5, is {exponent}");
        }
        let mut problems = Vec::new();
        self.telemetry.iter().for_each(|telemetry| telemetry.validate(&mut problems));
        ensure!(problems.is_empty(), "{}", problems.join("; "));
        ensure!((1..=8).contains(&self.worker_threads), "worker_threads must be 1..=8, is {}", self.worker_threads);
        Ok(())
    }

    /// Those of the surge included.
    pub fn all_users(&self) -> u32 {
        self.users + self.surge.map_or(0, |surge| surge.users)
    }

    /// Planned requests per second, without a surge.
    pub fn offered_per_s(&self) -> f64 {
        f64::from(self.users) * 1000.0 / self.interval_ms as f64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    WarmUp,
    Measure,
}

/// The second that just passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: Phase,
    /// Seconds since the first request; the step ends at `total_s`.
    pub elapsed_s: u32,
    pub total_s: u32,
    pub sent: u64,
    pub good: u64,
    pub errors: u64,
    /// Of the requests that ended in this second; none when none did.
    pub p99_ms: Option<f64>,
}

/// The measured part of a step. A request belongs to it by the time of its end, as in the model; what is sent or skipped, by
/// its own time. Counts are over the whole measured part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepOutcome {
    pub name: String,
    pub users: u32,
    /// Unix ms.
    pub started_ms: u64,
    /// Unix ms.
    pub ended_ms: u64,
    pub measured_s: f64,
    /// The plan: users / interval.
    pub offered_per_s: f64,
    pub sent: u64,
    /// Requests that came to an end, good or not: a client's timeout is an end.
    pub answered: u64,
    /// 2xx in time, with a body that names its source.
    pub good: u64,
    /// Planned instants that passed while the user still waited.
    pub skipped: u64,
    /// By class, see [`class`](crate::answer::class).
    pub errors: BTreeMap<String, u64>,
    /// Of those answered.
    pub error_pct: f64,
    pub sent_per_s: f64,
    pub answered_per_s: f64,
    pub good_per_s: f64,
    /// From the planned instant to the last byte of the body or to the error, over all answered.
    pub latency: Latency,
    /// The same over the good ones.
    pub good_latency: Latency,
    /// From planned to sent: how late the load generator itself was.
    pub send_lag: SendLag,
    /// Good answers to known users.
    pub known_sources: Sources,
    /// Good answers to ids that do not exist.
    pub unknown_sources: Sources,
    /// Ended requests of known users, good or not.
    pub known_answered: u64,
    /// Of these: answered from the user's own list (cache, store or stale); none when there was no such request.
    pub known_personal_pct: Option<f64>,
    /// Requests whose id another request of the step (its warm-up included) had used before.
    pub repeated_ids: u64,
    /// One per measured second.
    pub series: Vec<Second>,
    /// `[percentile 0..=100, ms]` over all answered, ascending.
    pub latency_curve: Vec<(f64, f64)>,
    /// HDR histogram log in µs with the tags `all` and `good`: the text of the file.
    pub hdr_log: String,
}

/// Milliseconds; all 0 when there was nothing to measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SendLag {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl StepOutcome {
    /// Good answers by source, to known and unknown users together.
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

/// Writes the histogram log of a step: HdrHistogram's interval log, readable by its tools.
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

/// Percentiles ever closer to 100, as far as the count supports them.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let points = histogram.iter_quantiles(5).map(|point| {
        // `max` cuts the last bucket's upper edge.
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
    let mut serializer = V2Serializer::new();
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
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan() -> StepPlan {
        StepPlan {
            name: "test".into(),
            base_url: "http://127.0.0.1:8080".into(),
            users: 10,
            surge: None,
            interval_ms: 1000,
            arrival_grid_ms: 0,
            timeout_ms: 3000,
            warm_up_ms: 0,
            measure_ms: 1000,
            unknown_share: 0.5,
            known: Known::Once,
            known_ids: "ids.txt".into(),
            seed: 1,
            worker_threads: 1,
            metrics: None,
            telemetry: None,
        }
    }

    #[test]
    fn only_loopback_is_accepted() {
        for good in ["http://127.0.0.1:8080", "http://127.1.2.3", "http://[::1]:80/", "http://127.0.0.1:1/prefix"] {
            StepPlan { base_url: good.into(), ..plan() }.check().unwrap();
        }
        for bad in [
            "http://example.org",
            "http://localhost:8080",
            "https://127.0.0.1",
            "http://10.0.0.1:8080",
            "http://0.0.0.0:8080",
            "http://127.0.0.1.example.org",
            "http://127.0.0.1@example.org/",
            "127.0.0.1:8080",
            "",
        ] {
            assert!(StepPlan { base_url: bad.into(), ..plan() }.check().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_surge_lies_within_the_step() {
        let with = |users, from_ms, to_ms| StepPlan { surge: Some(Surge { users, from_ms, to_ms }), ..plan() }.check();
        with(19_990, 0, 1000).unwrap();
        for (users, from_ms, to_ms) in [(0, 0, 1000), (19_991, 0, 1000), (1, 500, 500), (1, 0, 1001), (u32::MAX, 0, 1)]
        {
            assert!(with(users, from_ms, to_ms).is_err(), "{users} {from_ms} {to_ms}");
        }
    }

    #[test]
    fn a_plan_survives_json_and_a_misspelt_field_does_not() {
        let text = serde_json::to_string(&plan()).unwrap();
        assert_eq!(serde_json::from_str::<StepPlan>(&text).unwrap(), plan());
        assert!(serde_json::from_str::<StepPlan>(&text.replace("\"users\"", "\"user\"")).is_err());
    }

    #[test]
    fn the_log_can_be_read_again() {
        use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
        histogram.record_n(1000, 5).unwrap();
        let seconds = std::time::Duration::from_secs;
        let text = hdr_log("s", seconds(1_700_000_000), seconds(60), &[("all", &histogram)]).unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(text.as_bytes()).map(|entry| entry.unwrap()).collect();
        let interval = entries.iter().find_map(|entry| match entry {
            LogEntry::Interval(interval) => Some(interval),
            _ => None,
        });
        let interval = interval.expect("one interval");
        assert_eq!(interval.tag().unwrap().as_str(), "all");
        assert_eq!(interval.duration(), seconds(60));
    }
}
