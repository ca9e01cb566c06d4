//! Figures of a step that the load generator, its model and a scenario file share. Reports store them as they are here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Good answers by their source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sources {
    pub cache: u64,
    pub store: u64,
    pub popular: u64,
    pub stale: u64,
}

/// Figures that the article states for one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ArticleFigures {
    /// Null where the article states none.
    pub mean_ms: Option<f64>,
    pub error_pct: f64,
    /// The article does not say whether failed requests count.
    pub qps: f64,
}

/// Figures that the queueing model computes for one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelFigures {
    pub mean_ms: f64,
    pub error_pct: f64,
    pub answered_per_s: f64,
    pub good_per_s: f64,
}

/// One measured second of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Second {
    /// Since the measured part began, from 0.
    pub second: u32,
    pub sent: u64,
    pub good: u64,
    pub errors: u64,
    /// Of the requests that ended in this second; null when none did.
    pub p99_ms: Option<f64>,
}

/// What the reproduction promises. A limit that is met exactly is met.
#[derive(Debug, Clone, PartialEq)]
pub struct Tolerances {
    /// Profile held against the article and the model, at every step.
    pub baseline: String,
    /// Profile that has to hold.
    pub protected: String,
    /// Answered and good rates against the model, ± percent of the model's.
    pub model_rate_pct: f64,
    /// Error share against the model, ± points.
    pub model_error_points: f64,
    /// Mean latency against the model, ± percent.
    pub model_mean_pct: f64,
    /// Error share against the article, ± points.
    pub article_error_points: f64,
    /// Mean latency against the article, ± percent.
    pub article_mean_pct: f64,
    /// Users of the steps in which the baseline must break, and the protected profile must not.
    pub overload_users: Vec<u32>,
    /// Baseline's errors that must be checkout timeouts.
    pub min_timeout_share_pct: f64,
    pub protected_max_error_pct: f64,
    /// Of the offer.
    pub protected_min_answered_pct: f64,
    pub protected_max_p99_ms: f64,
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
