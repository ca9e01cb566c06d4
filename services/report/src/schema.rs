//! The shape of `report.json`. Documented for its readers in `services/report/REPORT.md`; change both together.
//!
//! Times are milliseconds, rates are per second, `_pct` is 0..=100, `_ratio` and `_share` are 0..=1. Every number is finite.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
pub use loadtest::figures::{ArticleFigures, ModelFigures, Second, Sources};
use serde::{Deserialize, Serialize};

/// Raised when a reader of the previous version would misread the file; new optional fields do not raise it.
pub const SCHEMA_VERSION: u32 = 1;

/// One evaluation: the conditions it ran under, every step of every profile and repeat, and what follows from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema_version: u32,
    /// When the evaluation began, RFC 3339.
    pub created: String,
    pub scenario: ScenarioInfo,
    pub law: Law,
    pub machine: Machine,
    /// What ran, by name: `redis`, `store` ("MariaDB 10.11.19"), `nginx`, `rustc`, `testbed`.
    pub versions: BTreeMap<String, String>,
    pub revision: Revision,
    pub data: DataInfo,
    /// Version of the item-neighbour model the answers were ranked with.
    pub model_version: u64,
    /// A shortened run: shown, but no tolerance is judged.
    pub quick: bool,
    /// In the order they are shown: `baseline`, `protected`, `protected -bloom`, …
    pub profiles: Vec<String>,
    /// How often each step of each profile was run.
    pub repeats: u32,
    pub steps: Vec<Step>,
    /// One per profile, in the order of `profiles`. Filled by [`Report::conclude`].
    #[serde(default)]
    pub knees: Vec<Knee>,
    /// Filled by [`Report::conclude`].
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    /// What a load that rose and fell again left behind; only in experiments that have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recoveries: Vec<Recovery>,
    /// Servers killed under load; only in experiments that do so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<Outage>,
    /// One of each kind of request that was recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waterfalls: Vec<Waterfall>,
    /// Only of a soak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<Soak>,
    /// What is not as it is for the article, the model and the tolerances, in words (settings, servers, planned faults): none of them says
    /// anything of such a run, and no tolerance is judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// What a reader must know to read the figures rightly. [`Report::conclude`] adds its own.
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// The load as it was ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioInfo {
    pub name: String,
    pub description: String,
    /// Users of each step; with one request per user and interval, `users × 1000 / interval_ms` is offered per second.
    pub steps: Vec<u32>,
    /// Discarded at the start of each step.
    pub warm_up_s: f64,
    pub measure_s: f64,
    /// Time between two planned requests of one user.
    pub interval_ms: u64,
    /// Users send at multiples of it, several at once; 0: each at an instant of its own.
    #[serde(default)]
    pub arrival_grid_ms: u64,
    /// A request unanswered after this long is an error.
    pub timeout_ms: u64,
    /// One per step: share of requests with an id that no user has, 0..=1.
    pub unknown_share: Vec<f64>,
    /// How the ids of known users are picked: `once` (in turn: none comes again within a step while there are others), or in
    /// other words, e.g. `zipf 1.1`.
    pub known: String,
}

/// How long the store takes for an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Law {
    /// No answer leaves sooner than `base_ms + slope_ms × commands in flight`, times a log-normal factor, after its command came; the real
    /// store's own time is within that.
    Modelled {
        /// In force: `base_ms_scenario − overhead_ms`.
        base_ms: f64,
        /// What the scenario asks for.
        base_ms_scenario: f64,
        /// Measured time of the real stack around the store, which the base is lowered by.
        overhead_ms: f64,
        /// Added per command in flight in the whole store.
        slope_ms: f64,
        /// Sigma of the log-normal factor; its mean is 1.
        spread: f64,
    },
    /// The store's real speed.
    None,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: u32,
    /// GiB.
    pub memory_gb: f64,
    /// ns of a read in 8 MiB that waits for the one before.
    #[serde(default)]
    pub memory_latency_ns: Option<f64>,
    pub kernel: String,
    pub os: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Commit hash; empty when the source is no git clone.
    pub git: String,
    /// Files differ from that commit.
    pub dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataSource {
    /// Seeded synthetic behaviour.
    Generator,
    /// Somebody's real behaviour.
    File,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataInfo {
    pub source: DataSource,
    /// File name, or the generator's seed in words.
    pub name: String,
    pub users: u64,
    pub items: u64,
    pub events: u64,
    /// Rows of the file that could not be read and were left out.
    pub bad_rows: u64,
}

/// One profile under one load, measured once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub profile: String,
    pub users: u32,
    /// 1..=`Report::repeats`.
    pub repeat: u32,
    /// False: the machine or the load generator was the limit, so the figures say nothing about the service.
    pub valid: bool,
    /// Why not; empty when valid.
    #[serde(default)]
    pub invalid_reasons: Vec<String>,
    /// Why each measurement of this step before this one was not valid, in their order. Their figures are not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<String>,

    /// The plan: users / interval.
    pub offered_per_s: f64,
    pub sent_per_s: f64,
    /// Requests that came to an end, good or not (a client timeout is an end).
    pub answered_per_s: f64,
    /// Status 2xx with a body that could be read.
    pub good_per_s: f64,
    /// Of the good ones, those of users that exist. Null in reports from before it was counted.
    #[serde(default)]
    pub known_good_per_s: Option<f64>,
    /// Planned seconds that passed while a user still waited; count over the step.
    pub skipped: u64,

    /// From the planned instant to the end of the request, over every answered one; 0 if there was none.
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,

    /// Errors of those answered.
    pub error_pct: f64,
    /// Count over the step by class: the last part of the problem's `type`, or `client-timeout`, `connection`, ….
    pub errors: BTreeMap<String, u64>,
    /// Errors that were checkouts of a store connection timing out; count over the step.
    pub store_timeouts: u64,
    /// Of those answered, as the replicas counted.
    pub store_queries_per_request: f64,
    /// Share of requests that needed the store, 0..=1.
    pub store_share: f64,
    /// Redis hits of Redis lookups, 0..=1; null when nothing was looked up.
    pub hit_ratio: Option<f64>,
    /// Requests the bloom filter answered "no such user"; count over the step.
    pub bloom_rejections: u64,
    pub bloom_rejections_per_request: f64,
    /// Requests of known users that were answered with their own list (cache or store); null when none was sent.
    pub known_personal_pct: Option<f64>,
    /// Good answers by where they came from; count over the step.
    pub sources: Sources,
    /// Ids asked for more than once within the step.
    pub repeated_ids: u64,

    /// From planned to sent: how late the load generator itself was.
    pub send_lag_p50_ms: f64,
    pub send_lag_p99_ms: f64,
    /// nginx: `$request_time − $upstream_response_time`; null when not measured.
    pub gateway_mean_ms: Option<f64>,
    /// Time the real store server took per command, without the law; null when not measured.
    pub store_upstream_mean_ms: Option<f64>,
    /// Of all cores of the machine.
    pub cpu_total_pct: f64,
    /// Of all cores, what the hypervisor gave to other machines; within `cpu_total_pct`. Null when not measured.
    #[serde(default)]
    pub cpu_stolen_pct: Option<f64>,
    /// Cores used, by kind of process (replicas summed).
    pub cpu: BTreeMap<String, f64>,
    /// Resident memory in MiB at the step's end, by kind of process.
    pub rss_mb: BTreeMap<String, f64>,

    /// What the article states for this step and profile, where it does.
    pub article: Option<ArticleFigures>,
    /// What the queueing model computes for it, where it applies.
    pub model: Option<ModelFigures>,

    /// One per measured second.
    pub series: Vec<Second>,
    /// `[percentile 0..=100, ms]`, ascending.
    pub latency_curve: Vec<(f64, f64)>,
    /// HDR histogram log (µs), relative to the report.
    pub hdr_log: Option<String>,

    /// Where the time of recorded requests went; only where requests were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_spent: Option<TimeSpent>,
}

impl Step {
    /// This one, measured again because the one before was not valid.
    #[must_use]
    pub fn after(self, before: Self) -> Self {
        let mut discarded = before.discarded;
        discarded.push(before.invalid_reasons.join("; "));
        Self { discarded, ..self }
    }
}

/// What the recorded requests of a step spent their time with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TimeSpent {
    /// Of the requests that were sent, 0..=1.
    pub sample_ratio: f64,
    /// Recorded from the user to the store: all of them, or of more than 1,000 those that were kept by lot.
    pub requests: u64,
    /// In the order a request meets them; their means add up to the mean time of these requests.
    pub stages: Vec<Stage>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    pub name: String,
    /// Over all recorded requests.
    pub mean_ms: f64,
    /// Of those that have this stage; null without any.
    pub median_ms: Option<f64>,
    /// That have it.
    pub requests: u64,
}

/// One recorded request as an example of its kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Waterfall {
    /// In words: `A hit`.
    pub kind: String,
    pub profile: String,
    /// Of the step it is from.
    pub offered_per_s: f64,
    pub trace_id: String,
    /// Parents before their children.
    pub rows: Vec<Row>,
}

/// A span.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Spans above it.
    pub depth: u32,
    /// The process.
    pub service: String,
    pub name: String,
    /// From the request's first moment.
    pub offset_ms: f64,
    pub duration_ms: f64,
    pub failed: bool,
    /// Its attributes in short.
    pub detail: String,
}

/// A steady load, a surge on top of it, and the time after: what one profile made of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    pub profile: String,
    pub repeat: u32,
    /// Offered before and after the surge.
    pub base_per_s: f64,
    /// Offered during the surge.
    pub peak_per_s: f64,
    /// Second of `series` in which the surge begins.
    pub surge_from_s: u32,
    /// Second of `series` in which it is over.
    pub surge_to_s: u32,
    /// Median of the seconds' p99 before the surge; null when nothing ended there.
    pub normal_p99_ms: Option<f64>,
    /// Good answers during the surge.
    pub surge_good_per_s: f64,
    /// From the end of the surge to the first of three normal seconds in a row (at most 1 % errors, p99 at most twice the normal
    /// one or 20 ms more); null: not within the series.
    pub back_after_s: Option<u32>,
    /// Why the machine or the load generator was the limit, as of a step; empty when it was not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid_reasons: Vec<String>,
    pub series: Vec<Second>,
}

/// A server that is killed under load and started again on its data and port: what one profile made of it. Instants are seconds
/// since the measured part began, as in `series`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    pub profile: String,
    pub repeat: u32,
    /// `MySQL` or `Redis`.
    pub server: String,
    pub offered_per_s: f64,
    pub killed_s: f64,
    /// Its start was ordered.
    pub restarted_s: f64,
    /// It greeted: in between lies its own recovery.
    pub answering_s: f64,
    /// Median of the seconds' p99 before the kill; null when nothing ended there.
    pub normal_p99_ms: Option<f64>,
    /// From the second of the restart to the first of three normal seconds in a row, as in [`Recovery`].
    pub back_after_s: Option<u32>,
    /// Of the load over the whole run, by class. Each known user of the load had a list in Redis when it began.
    pub errors: BTreeMap<String, u64>,
    pub known_answered: u64,
    pub known_sources: Sources,
    pub unknown_sources: Sources,
    pub before: OutagePhase,
    pub during: OutagePhase,
    pub after: OutagePhase,
    /// Single requests beside the load, for users who had a list in Redis when it began.
    pub listed: Probes,
    /// For users who had none, each asked for once.
    pub unlisted: Probes,
    /// Why the machine or the load generator was the limit, as of a step, over the whole run; empty when it was not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid_reasons: Vec<String>,
    pub series: Vec<Second>,
}

/// Before, during or after the time that the server was away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OutagePhase {
    pub store_queries_per_s: f64,
    /// Attempts to open a connection to the store.
    pub store_connects_per_s: f64,
    /// Of all cores of the machine.
    pub cpu_pct: f64,
}

/// Counts over the time that the server was away, but for `compared` and `wrong`, which are over the whole run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    pub asked: u64,
    pub good: u64,
    /// 503.
    pub refused: u64,
    /// Neither.
    pub failed: u64,
    /// Of all asked; null without any.
    pub p99_ms: Option<f64>,
    /// Good answers that could be told from a wrong one.
    pub compared: u64,
    /// Other items than before the outage, or those of an unknown user.
    pub wrong: u64,
}

/// Hours of one load: what grows?
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Soak {
    pub minutes: Vec<SoakMinute>,
    pub slopes: Vec<Slope>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SoakMinute {
    /// Since the measured part began, from 0.
    pub minute: u32,
    /// Median of the seconds' p99; null when nothing ended in the minute.
    pub p99_ms: Option<f64>,
    /// Resident memory in MiB at the minute's end, by kind of process (replicas summed).
    pub rss_mb: BTreeMap<String, f64>,
    /// Open file descriptors at the minute's end, by kind of process.
    pub open_files: BTreeMap<String, f64>,
}

/// A least-squares line through one figure over the minutes; the first tenth of them is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// With its unit: `api memory, MiB`.
    pub figure: String,
    pub mean: f64,
    pub per_hour: f64,
    /// Of `per_hour`.
    pub standard_error: f64,
    /// More than noise: steeper than two standard errors, and more than 1 % of the mean over the run.
    pub grows: bool,
}

/// How far one profile goes. A step is held when it is valid, has few errors and answers nearly all that is offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Knee {
    pub profile: String,
    /// Users of the highest step that is held, as are all below it; null when the lowest is not.
    pub held_users: Option<u32>,
    /// Offered at that step.
    pub held_per_s: Option<f64>,
    /// Users of the first step that is not held; null when all are.
    pub broke_at_users: Option<u32>,
    /// In words; empty when all steps are held.
    pub why: String,
    /// Most good answers per second of any valid step; null when there is no valid one.
    pub peak_good_per_s: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub name: String,
    /// The tolerance, in words with units.
    pub expected: String,
    /// The figure that decides: the worst of the steps.
    pub measured: String,
    /// Null: not judged; the note says why.
    pub passed: Option<bool>,
    /// Each step's figure, and what kept a step from being judged.
    pub note: String,
    /// True: the verdict is open because a step that it needs was not valid. Absent in JSON if false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undecided: bool,
}

impl Report {
    /// # Errors
    /// The file cannot be read, is no report, or is of a newer schema than this program knows.
    pub fn load(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema_version: u32,
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let head: Head = serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?;
        ensure!(
            head.schema_version == SCHEMA_VERSION,
            "{} has schema version {}, this program reads {SCHEMA_VERSION}",
            path.display(),
            head.schema_version
        );
        serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
    }
}
