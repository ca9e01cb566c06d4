//! Every way a request can fail, and the RFC 9457 problem document that says so.

use std::{sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use contract::http::{Problem, problem};
use stores::StoreError;

use crate::trace::Failure;

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
    #[error("the body is not declared as JSON")]
    UnsupportedMediaType,
    #[error("the request took longer than {0} ms")]
    Deadline(u64),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("redis failed")]
    Cache(#[source] redis::RedisError),
    #[error("too many requests are under way")]
    Overloaded,
    /// Only the store can tell whether this user exists, and the limit of such look-ups is reached.
    #[error("too many ids of which nothing is known")]
    UnsureOverload,
    /// A load that several requests share failed.
    #[error("a load that was shared failed")]
    Shared {
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

    /// Type, title, status, what the client may know, seconds after which a retry makes sense.
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
            Self::Store(StoreError::CheckoutTimeout(waited)) => (
                problem::STORE_CHECKOUT_TIMEOUT,
                "No store connection came free",
                StatusCode::SERVICE_UNAVAILABLE,
                format!("waited {} ms for a connection to the store", waited.as_millis()),
                Some(1),
            ),
            Self::Store(StoreError::LineFull(_)) => (
                problem::STORE_OVERLOADED,
                "Too many requests wait for the store",
                StatusCode::SERVICE_UNAVAILABLE,
                "the line in front of the store is full".into(),
                Some(1),
            ),
            Self::UnsureOverload => (
                problem::STORE_OVERLOADED,
                "Too many requests wait for the store",
                StatusCode::SERVICE_UNAVAILABLE,
                "only the store can tell now whether this user exists, and the limit of such look-ups is reached"
                    .into(),
                Some(1),
            ),
            Self::Overloaded => (
                problem::OVERLOADED,
                "Overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                "as many requests as may are under way".into(),
                Some(1),
            ),
            Self::Store(StoreError::StatementTimeout) => (
                problem::DEADLINE_EXCEEDED,
                "Deadline exceeded",
                StatusCode::GATEWAY_TIMEOUT,
                "the store did not answer in the request's time".into(),
                None,
            ),
            // All other details hold for every request that shares the load.
            Self::Shared { error, waited } => match **error {
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
            Self::Cache(_) => (
                problem::CACHE_UNAVAILABLE,
                "Cache unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "the change could not be announced to the other replicas".into(),
                Some(1),
            ),
            // Asking again would change nothing.
            Self::Internal | Self::Store(StoreError::Invalid(_)) => (
                problem::INTERNAL,
                "Internal error",
                StatusCode::INTERNAL_SERVER_ERROR,
                "the request failed for a reason that was logged".into(),
                None,
            ),
        }
    }
}

impl ApiError {
    /// The problem's type in one word, as the load test counts it.
    pub fn word(&self) -> &'static str {
        let kind = self.describe().0;
        kind.rsplit('/').next().unwrap_or(kind)
    }
}

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
