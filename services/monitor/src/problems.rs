//! Problem documents (RFC 9457) of a monitor's routes.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use contract::http::Problem;

pub fn refused(status: StatusCode, kind: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error").to_owned();
    let body =
        Problem { kind: kind.to_owned(), title, status: status.as_u16(), detail: detail.to_owned(), field: None };
    (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(body)).into_response()
}
