//! The errors of the API, and the RFC 9457 problem documents that report them.

use std::{sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use contract::http::{Problem, REQUEST_DEADLINE, problem};
use eventlog::SendError;
use stores::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{field}: {detail}")]
    Invalid { field: String, detail: String },
    #[error("{0}")]
    NotFound(String),
    #[error("the method is not allowed here")]
    MethodNotAllowed,
    #[error("{0}")]
    TooLarge(String),
    #[error("the content type is not application/json")]
    UnsupportedMediaType,
    #[error("the request exceeded its deadline of {0} ms")]
    Deadline(u64),
    #[error("the request arrived {late_ms} ms after its deadline")]
    DeadlinePassed { late_ms: u64 },
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("kafka failed")]
    EventLog(#[source] SendError),
    #[error("redis failed")]
    Redis(#[source] redis::RedisError),
    #[error("this replica is at its concurrency limit")]
    Overloaded,
    /// Neither the filter nor Redis can verify this user, and the limit of such loads is reached.
    #[error("too many unverified user ids are being looked up")]
    UnverifiedOverload,
    #[error("the load that this request shared with others failed")]
    SharedLoad {
        #[source]
        error: Arc<ApiError>,
        /// How long this request waited for the load.
        waited: Duration,
    },
    #[error("internal error")]
    Internal,
}

impl ApiError {
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), detail: detail.into() }
    }

    /// Type, title, status, detail for the client, and seconds until a retry makes sense.
    fn describe(&self) -> (&'static str, &'static str, StatusCode, String, Option<u32>) {
        match self {
            Self::Invalid { field, detail } => (
                problem::INVALID_REQUEST,
                "Invalid request",
                StatusCode::BAD_REQUEST,
                format!("{field} {detail}"),
                None,
            ),
            Self::NotFound(what) => (problem::NOT_FOUND, "Not found", StatusCode::NOT_FOUND, what.clone(), None),
            Self::MethodNotAllowed => (
                problem::METHOD_NOT_ALLOWED,
                "Method not allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "see /openapi.json for the methods of this path".into(),
                None,
            ),
            Self::TooLarge(what) => {
                (problem::TOO_LARGE, "Too large", StatusCode::PAYLOAD_TOO_LARGE, what.clone(), None)
            }
            Self::UnsupportedMediaType => (
                problem::UNSUPPORTED_MEDIA_TYPE,
                "Unsupported media type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content-type must be application/json".into(),
                None,
            ),
            Self::Deadline(ms) => (
                problem::DEADLINE_EXCEEDED,
                "Deadline exceeded",
                StatusCode::GATEWAY_TIMEOUT,
                format!("no answer within {ms} ms"),
                None,
            ),
            Self::DeadlinePassed { late_ms } => (
                problem::DEADLINE_EXCEEDED,
                "Deadline exceeded",
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "the request arrived {late_ms} ms after the deadline in its header {REQUEST_DEADLINE}, and no work was begun: set a later \
                     deadline, or compare the clocks of client and server"
                ),
                None,
            ),
            Self::Store(StoreError::CheckoutTimeout(waited)) => (
                problem::STORE_CHECKOUT_TIMEOUT,
                "No store connection came free",
                StatusCode::SERVICE_UNAVAILABLE,
                format!("waited {} ms for a connection to the store", waited.as_millis()),
                Some(1),
            ),
            Self::Store(StoreError::QueueFull(_)) => (
                problem::STORE_OVERLOADED,
                "Too many requests wait for the store",
                StatusCode::SERVICE_UNAVAILABLE,
                "the queue for connections to the store is full".into(),
                Some(1),
            ),
            Self::UnverifiedOverload => (
                problem::STORE_OVERLOADED,
                "Too many requests wait for the store",
                StatusCode::SERVICE_UNAVAILABLE,
                "too many unverified user ids are being looked up".into(),
                Some(1),
            ),
            Self::Overloaded => (
                problem::OVERLOADED,
                "Overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                "this replica is at its concurrency limit".into(),
                Some(1),
            ),
            Self::Store(StoreError::StatementTimeout) => (
                problem::DEADLINE_EXCEEDED,
                "Deadline exceeded",
                StatusCode::GATEWAY_TIMEOUT,
                "the store did not answer before the request's deadline".into(),
                None,
            ),
            // Only this detail differs between the requests that share the load.
            Self::SharedLoad { error, waited } => match **error {
                Self::Store(StoreError::CheckoutTimeout(_)) => {
                    Self::Store(StoreError::CheckoutTimeout(*waited)).describe()
                }
                ref error => error.describe(),
            },
            Self::Store(StoreError::Unavailable(_) | StoreError::Down) => (
                problem::STORE_UNAVAILABLE,
                "Store unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "the store did not answer".into(),
                Some(2),
            ),
            Self::EventLog(SendError::QueueFull) => (
                problem::EVENT_LOG_OVERLOADED,
                "Too many events wait for Kafka",
                StatusCode::SERVICE_UNAVAILABLE,
                "no event was written: send all again".into(),
                Some(1),
            ),
            Self::EventLog(SendError::Unavailable(_)) => (
                problem::EVENT_LOG_UNAVAILABLE,
                "Event log unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "kafka did not acknowledge all events; perhaps some are written: send all again".into(),
                Some(2),
            ),
            // Only an operator can change it.
            Self::EventLog(SendError::Topics(_)) => (
                problem::EVENT_LOG_UNAVAILABLE,
                "Event log unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "no event was written; the service has logged the reason".into(),
                Some(30),
            ),
            Self::Redis(_) => (
                problem::CACHE_UNAVAILABLE,
                "Cache unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "the change could not be announced to the other replicas".into(),
                Some(1),
            ),
            // A retry would fail again.
            Self::Internal | Self::Store(StoreError::Invalid(_)) | Self::EventLog(SendError::TooLarge) => (
                problem::INTERNAL,
                "Internal error",
                StatusCode::INTERNAL_SERVER_ERROR,
                "the request failed; the service has logged the reason".into(),
                None,
            ),
        }
    }
}

impl ApiError {
    /// Whether the request was not served in time because of too many others.
    pub fn is_overload(&self) -> bool {
        match self {
            Self::Deadline(_) | Self::Overloaded | Self::UnverifiedOverload => true,
            Self::Store(error) => {
                matches!(
                    error,
                    StoreError::CheckoutTimeout(_) | StoreError::QueueFull(_) | StoreError::StatementTimeout
                )
            }
            Self::SharedLoad { error, .. } => error.is_overload(),
            _ => false,
        }
    }

    /// The last part of the problem's type, by which the load test counts errors.
    pub fn problem_name(&self) -> &'static str {
        let kind = self.describe().0;
        kind.rsplit('/').next().unwrap_or(kind)
    }
}

/// The error of a 5xx response, an extension of the response that the log reads.
#[derive(Clone)]
pub struct Failure(pub Arc<ApiError>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (kind, title, status, detail, retry_after_s) = self.describe();
        let field = match &self {
            Self::Invalid { field, .. } => Some(field.clone()),
            Self::UnsupportedMediaType => Some("content-type".into()),
            _ => None,
        };
        let body = Problem { kind: kind.into(), title: title.into(), status: status.as_u16(), detail, field };
        // A struct of strings and numbers always serialises.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status.is_server_error() {
            response.extensions_mut().insert(Failure(Arc::new(self)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_is_told_from_other_failures() {
        let timeout = || ApiError::Store(StoreError::CheckoutTimeout(Duration::from_secs(1)));
        let shared = |error| ApiError::SharedLoad { error: Arc::new(error), waited: Duration::ZERO };
        for error in
            [ApiError::Deadline(5_000), timeout(), shared(timeout()), ApiError::Store(StoreError::QueueFull(9))]
        {
            assert!(error.is_overload(), "{error}");
        }
        for error in [ApiError::Internal, ApiError::Store(StoreError::Down), shared(ApiError::Internal)] {
            assert!(!error.is_overload(), "{error}");
        }
    }
}
