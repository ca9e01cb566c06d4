//! Figures of a step that the load generator, the queueing model and scenario files share. Reports store them in this form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Numbers of good responses by the source that the response body names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sources {
    /// From Redis or the replica's memory.
    pub cache: u64,
    /// Computed from a read of MySQL.
    pub store: u64,
    /// The list of popular items.
    pub popular: u64,
    /// An expired list from the cache.
    pub stale: u64,
}

/// Requests of the load generator over a whole step: warm-up, measured part and drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestCounts {
    /// Requests of the users; with retries, tries.
    pub requests: u64,
    /// Of these, not sent: no connection could be opened in time.
    pub unsent: u64,
    /// Second copies, sent on a new connection because an idle one was closed without an answer. The server may have seen the first copy.
    pub resent: u64,
    /// How many tries were first ones; absent if the scenario has no retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries: Option<Tries>,
}

/// Tries that were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tries {
    /// One for each request that was sent.
    pub first: u64,
    /// Further tries of the same requests.
    pub retries: u64,
}

/// What a client with retries did in the measured part of a step. A try counts by the instant of its sending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RetryFigures {
    /// First tries.
    pub first_tries: u64,
    /// Further tries of the same requests.
    pub retries: u64,
    /// Tries per request that was sent, at least 1: how much the client amplifies the load. Null if none was sent.
    pub tries_per_request: Option<f64>,
    /// Requests that failed because the budget permitted no further retry.
    pub budget_spent: u64,
    /// Requests that adaptive throttling did not send at all.
    pub throttled: u64,
    /// Share of the store's queries whose result no request waited for any more, 0 to 1; null without a query, and where the replicas were not
    /// asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zombie_share: Option<f64>,
}

/// Figures that the article states for one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ArticleFigures {
    /// Mean latency in milliseconds; null if the article states none.
    pub mean_ms: Option<f64>,
    /// Failed share of the requests, in percent.
    pub error_pct: f64,
    /// Queries per second. The article does not say whether failed requests count.
    pub qps: f64,
}

/// Figures that the queueing model computes for one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelFigures {
    /// Mean latency of all completed requests, in milliseconds.
    pub mean_ms: f64,
    /// Failed share of the completed requests, in percent.
    pub error_pct: f64,
    /// Completed requests per second, failed ones included.
    pub answered_per_s: f64,
    /// Successful requests per second.
    pub good_per_s: f64,
}

/// A request that was sent later than this after its planned instant, in milliseconds, is late.
pub const LATE_MS: u64 = 10;

/// One measured second of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Second {
    /// Seconds since the measured part began, from 0.
    pub second: u32,
    /// Requests sent in this second.
    pub sent: u64,
    /// Good responses that ended in this second.
    pub good: u64,
    /// Failed requests that ended in this second.
    pub errors: u64,
    /// Requests that ended in this second and failed, or whose good response came later than the latency objective allows; absent without
    /// an objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond_slo: Option<u64>,
    /// Retries that were sent in this second, in addition to `sent`; absent without retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u64>,
    /// 99th percentile of the latency of the requests that ended in this second, in milliseconds; null if fewer than 1,000 ended.
    pub p99_ms: Option<f64>,
    /// Longest latency of the requests that ended in this second, in milliseconds; null without such a request, and in reports from before
    /// it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<f64>,
    /// Mean of the same latencies, in milliseconds; absent without such a request, and in older reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_ms: Option<f64>,
    /// Median of the same latencies, in milliseconds; absent as the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// Requests that ended in this second, by the band of their latency ([`crate::latency_bands`]), without the empty bands at the end;
    /// absent as the mean.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latency_counts: Vec<u64>,
    /// Requests that were due in this second or before and were then sent in it or later, more than [`LATE_MS`] after their planned instant.
    /// Absent in reports from before it was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<u64>,
    /// Longest time from the planned instant of such a request until it was sent, in milliseconds; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_lag_max_ms: Option<f64>,
    /// Busy share of the machine's CPU in this second, in percent; absent where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<f64>,
}

/// How slow the slowest requests of a second were, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tail {
    P99(f64),
    /// Too few requests for a 99th percentile.
    Max(f64),
}

impl Tail {
    pub fn name(self) -> &'static str {
        match self {
            Self::P99(_) => "p99",
            Self::Max(_) => "max",
        }
    }

    pub fn ms(self) -> f64 {
        match self {
            Self::P99(ms) | Self::Max(ms) => ms,
        }
    }
}

impl Second {
    /// Requests that ended, good or not.
    pub fn ended(&self) -> u64 {
        self.good + self.errors
    }

    /// The 99th percentile if enough requests ended for it, else the maximum; `None` without a request. A report from before maxima were
    /// recorded has only percentiles, of any number of requests: they count as such.
    pub fn tail(&self) -> Option<Tail> {
        self.p99_ms.map(Tail::P99).or(self.max_ms.map(Tail::Max))
    }
}

/// Limits that a reproduction of the article must meet. A figure equal to its limit passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tolerances {
    /// Profile that is compared with the article and with the model at every step. Not a key of the file.
    pub baseline: String,
    /// Profile that must stay below the `protected_…` limits. Not a key of the file.
    pub protected: String,
    /// Largest deviation of answered and good requests per second from the model, in percent of the model's figure.
    pub model_rate_pct: f64,
    /// Largest deviation of the error share from the model, in percentage points.
    pub model_error_points: f64,
    /// Largest deviation of the mean latency from the model, in percent.
    pub model_mean_pct: f64,
    /// Largest deviation of the error share from the article, in percentage points.
    pub article_error_points: f64,
    /// Largest deviation of the mean latency from the article, in percent.
    pub article_mean_pct: f64,
    /// Steps, by their users, in which the store is overloaded: the baseline's errors and the protected profile are judged there.
    pub overload_users: Vec<u32>,
    /// Smallest share of checkout timeouts among the baseline's errors, in percent.
    pub min_timeout_share_pct: f64,
    /// Largest error share of the protected profile, in percent.
    pub protected_max_error_pct: f64,
    /// Smallest share of the offered requests that the protected profile answers, in percent.
    pub protected_min_answered_pct: f64,
    /// Largest 99th percentile of the protected profile's latency, in milliseconds.
    pub protected_max_p99_ms: f64,
    /// Smallest share of existing users that get their own list from the protected profile, in percent.
    pub protected_min_personal_pct: f64,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self {
            baseline: "baseline".into(),
            protected: "protected".into(),
            model_rate_pct: 5.0,
            model_error_points: 1.5,
            model_mean_pct: 10.0,
            article_error_points: 2.5,
            article_mean_pct: 20.0,
            overload_users: vec![4000, 5000],
            min_timeout_share_pct: 95.0,
            protected_max_error_pct: 0.9,
            protected_min_answered_pct: 99.0,
            protected_max_p99_ms: 50.0,
            protected_min_personal_pct: 99.0,
        }
    }
}
