//! Why a worker's answer is of no use.

use contract::http::problem;
use reqwest::StatusCode;
use runtime::http::BodyError;
use segments::ManifestError;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the worker does not answer, or its answer ended early")]
    NoAnswer(#[from] reqwest::Error),
    #[error("the worker refused the request with {status}: {detail}")]
    Refused { status: StatusCode, kind: String, detail: String },
    #[error("the bytes are not block {block} of the manifest")]
    WrongBytes { block: u32 },
    #[error("the worker has sent a manifest that cannot be read")]
    Manifest(#[from] ManifestError),
    #[error("the worker's answer is not valid: {0}")]
    Invalid(String),
}

/// The label of the metric `model_fetch_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A block is damaged on the worker's disk, or was damaged on its way.
    Damaged,
    /// The worker has no version, or another one by now.
    NotFound,
    Unavailable,
    /// The answer is none that the contract has.
    Invalid,
}

impl Reason {
    pub const ALL: [Self; 4] = [Self::Damaged, Self::NotFound, Self::Unavailable, Self::Invalid];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
        }
    }
}

impl Failure {
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoAnswer(_) => Reason::Unavailable,
            Self::Refused { kind, .. } if kind == problem::DAMAGED_BLOCK => Reason::Damaged,
            Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND => Reason::NotFound,
            Self::Refused { status, .. } if status.is_server_error() => Reason::Unavailable,
            Self::WrongBytes { .. } => Reason::Damaged,
            Self::Refused { .. } | Self::Manifest(_) | Self::Invalid(_) => Reason::Invalid,
        }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Incomplete(error) => Self::NoAnswer(error),
            BodyError::TooLong(_) => Self::Invalid(error.to_string()),
        }
    }
}
