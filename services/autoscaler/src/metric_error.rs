//! Why a metric has no answer.

use thiserror::Error;

/// A metric has no answer. Each has a code (`code`) that stays the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetricError {
    #[error("the metrics API returned no sample")]
    NoMetrics,
    #[error("the selector finds no pods")]
    NoPods,
    #[error("no pod has a sample that counts: all are missing, unready or ignored")]
    NoUsableMetrics,
    #[error("container {container} of pod {pod} has no request")]
    MissingRequest { pod: String, container: String },
    #[error("pod {pod} has no container {container}")]
    ContainerNotFound { pod: String, container: String },
    #[error("the requests of the pods with samples add up to 0")]
    ZeroRequestTotal,
    #[error("the external metrics API returned no series")]
    NoExternalMetrics,
}

impl MetricError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoMetrics => "no_metrics",
            Self::NoPods => "no_pods",
            Self::NoUsableMetrics => "no_usable_metrics",
            Self::MissingRequest { .. } => "missing_request",
            Self::ContainerNotFound { .. } => "container_not_found",
            Self::ZeroRequestTotal => "zero_request_total",
            Self::NoExternalMetrics => "no_external_metrics",
        }
    }
}
