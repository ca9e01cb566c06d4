//! The shape of an evaluation's `report.json`. `services/report/REPORT.md` explains it; `report.schema.json` is made from these types.
//!
//! Times are milliseconds, rates are per second, `_pct` is 0..=100, `_ratio` and `_share` are 0..=1. Every number is finite.

use std::collections::BTreeMap;

pub use loadtest::{
    figures::{ArticleFigures, ModelFigures, RetryFigures, Second, Sources},
    plan::Latency,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    counts::Counts,
    manifest::Manifest,
    scheduling::Scheduling,
    section::{Section, Verdict},
};

/// Raised when a reader of the previous version would misread the file; new optional fields do not raise it.
pub const SCHEMA_VERSION: u32 = 3;

/// One evaluation: the conditions it ran under, every step of every profile and repeat, and what follows from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// In the order in which they were measured.
    pub steps: Vec<Step>,
    /// One per profile, in the order of `profiles`. Filled by [`Report::conclude`].
    #[serde(default)]
    pub knees: Vec<Knee>,
    /// Filled by [`Report::conclude`].
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    /// One of each kind of request that was recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waterfalls: Vec<Waterfall>,
    /// What was measured besides the steps, such as the slopes of a soak.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<Section>,
    /// What is not as it is for the article, the model and the tolerances, in words (settings, servers, planned faults): none of them says
    /// anything of such a run, and no tolerance is judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// What a reader must know to read the figures rightly. [`Report::conclude`] adds its own.
    #[serde(default)]
    pub remarks: Vec<String>,
    /// Of the run: the seeds of the steps and the order of the rounds follow from it. Null in reports from before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What the run was made of. Absent in reports from before it was recorded, and of `load`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
}

/// The load as it was ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// A request unanswered after this long, with all its tries, is an error.
    pub timeout_ms: u64,
    /// One per step: share of requests with an id that no user has, 0..=1.
    pub unknown_share: Vec<f64>,
    /// How the ids of known users are picked: `once` (in turn: none comes again within a step while there are others), or in
    /// other words, e.g. `zipf 1.1`.
    pub known: String,
    /// How requests arrive, in words: closed (users wait for their answers; each step is a number of users) or open (each step is a rate).
    /// Empty in reports from before open arrivals: they are closed.
    #[serde(default)]
    pub arrivals: String,
    /// How the client sends a failed request again, in words; absent: not at all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub retries: String,
    /// Somebody else's endpoint, which was under load; absent: our own stack was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetInfo>,
}

/// The endpoint of `load --target`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetInfo {
    /// With `{id}` where an id was.
    pub url: String,
    /// The only addresses that were connected to.
    pub addresses: Vec<String>,
    /// Whether one of them is an address of another machine.
    pub remote: bool,
    /// How the ids were selected, in words.
    pub ids: String,
}

/// The response time of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Law {
    /// With n commands in flight no answer leaves sooner than `base_ms + slope_ms × n + crosstalk_ms × n × (n − 1)`, times a log-normal factor,
    /// after its command came; the real store's own time is within that.
    Modelled {
        /// In force: `base_ms_scenario − overhead_ms`.
        base_ms: f64,
        /// What the scenario asks for.
        base_ms_scenario: f64,
        /// Measured time of the real stack around the store, which the base is lowered by.
        overhead_ms: f64,
        /// Added per command in flight in the whole store.
        slope_ms: f64,
        /// Added per ordered pair of commands in flight; absent: 0.
        #[serde(default, skip_serializing_if = "is_zero")]
        crosstalk_ms: f64,
        /// Sigma of the log-normal factor; its mean is 1.
        spread: f64,
    },
    /// The store's real speed.
    None,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// Commit hash; empty when the source is no git clone.
    pub git: String,
    /// Files differ from that commit.
    pub dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataSource {
    /// Seeded synthetic behaviour.
    Generator,
    /// Somebody's real behaviour.
    File,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// The measurements of this step before this one, none of which was valid, in their order; none of them has such a list itself. Of a
    /// report before version 3 only their reasons are known: their offer is 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<Step>,
    /// Below 2⁵³. The variants of one repeat share it, so that they get the same users and ids. Null in reports from before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,

    /// The plan: users / interval.
    pub offered_per_s: f64,
    /// Requests, without their retries.
    pub sent_per_s: f64,
    /// Requests that came to an end, good or not (a client timeout is an end).
    pub answered_per_s: f64,
    /// Status 2xx with a body that could be read. With retries this is the goodput: a first try or a retry succeeded within the request's
    /// deadline.
    pub good_per_s: f64,
    /// Good answers to users that exist. Null in reports from before it was counted.
    #[serde(default)]
    pub known_good_per_s: Option<f64>,
    /// Planned seconds that passed while a user still waited; count over the step.
    pub skipped: u64,
    /// Open arrivals that were not sent because as many requests as allowed were in flight; count over the step.
    #[serde(default)]
    pub dropped: u64,

    /// Absent if the scenario has no retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetryFigures>,

    /// From the planned instant to the end of the request, over every answered one; 0 if there was none.
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// Skip-corrected latency of closed arrivals: each skipped request counts too, from its planned instant to the end of the request that its
    /// user waited for. Null where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Latency>,
    /// Requests that these latencies are of. Reports show a percentile only if at least ten of them are expected beyond it, else the
    /// maximum. Null in reports from before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,

    /// Errors of those answered.
    pub error_pct: f64,
    /// Count over the step by class: the last part of the problem's `type`, or `client-timeout`, `connection`, ….
    pub errors: BTreeMap<String, u64>,
    /// Errors that were checkouts of a store connection timing out; count over the step.
    #[serde(default)]
    pub store_timeouts: u64,
    /// Of those answered, as the replicas counted.
    #[serde(default)]
    pub store_queries_per_request: f64,
    /// Share of requests that needed the store, 0..=1.
    #[serde(default)]
    pub store_share: f64,
    /// Redis hits of Redis lookups, 0..=1; null when nothing was looked up.
    pub hit_ratio: Option<f64>,
    /// Requests the bloom filter answered "no such user"; count over the step.
    #[serde(default)]
    pub bloom_rejections: u64,
    #[serde(default)]
    pub bloom_rejections_per_request: f64,
    /// Requests of known users that were answered with their own list (cache or store); null when none was sent.
    pub known_personal_pct: Option<f64>,
    /// Good answers by where they came from; count over the step.
    #[serde(default)]
    pub sources: Sources,
    /// Ids asked for more than once within the step.
    pub repeated_ids: u64,

    /// From planned to sent: how late the load generator itself was.
    pub send_lag_p50_ms: f64,
    pub send_lag_p99_ms: f64,
    /// nginx: `$request_time − $upstream_response_time`; null when not measured.
    pub gateway_mean_ms: Option<f64>,
    /// Mean duration of a command in the real store server, without the law; null when not measured.
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
    /// Absent in reports from before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,

    /// What each place counted over the whole step; absent where it was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// True: somebody else's endpoint was under load. The figures that only our own stack has are absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
}

impl Step {
    /// Requests that the latencies are of; without the field, those of the series.
    pub fn samples(&self) -> u64 {
        self.samples.unwrap_or_else(|| self.series.iter().map(Second::ended).sum())
    }

    /// This one, measured again because the one before was not valid.
    #[must_use]
    pub fn after(self, mut before: Self) -> Self {
        let mut discarded = std::mem::take(&mut before.discarded);
        discarded.push(before);
        Self { discarded, ..self }
    }
}

/// The stages of the recorded requests of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimeSpent {
    /// Of the requests that were sent, 0..=1.
    pub sample_ratio: f64,
    /// Recorded from the user to the store; a random sample if there are more than 1,000.
    pub requests: u64,
    /// In the order a request meets them; their means add up to the mean time of these requests.
    pub stages: Vec<Stage>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stage {
    pub name: String,
    /// Over all recorded requests.
    pub mean_ms: f64,
    /// Of the requests with this stage; null without any.
    pub median_ms: Option<f64>,
    /// That have it.
    pub requests: u64,
}

/// One recorded request as an example of its kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// How far one profile goes. A step is held when it is valid, has few errors and answers nearly all that is offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
