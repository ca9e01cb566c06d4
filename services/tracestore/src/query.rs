//! Queries: `GET /traces?choice=slowest|errors|newest&limit=N`, `GET /traces/{id}`. `DELETE /traces` removes all traces.

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use contract::http::{Problem, problem};
use serde::{Deserialize, Serialize};

use crate::{Selection, Shared, Summary, TraceId};

/// Maximum traces in a list: all that the default quotas keep, and the open ones.
pub const MAX_LIMIT: usize = 2_000;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct List {
    pub(crate) traces: Vec<Summary>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[serde(default = "newest")]
    choice: Selection,
    #[serde(default = "twenty")]
    limit: usize,
}

fn newest() -> Selection {
    Selection::Newest
}

fn twenty() -> usize {
    20
}

pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/traces", get(list).delete(clear))
        .route("/traces/{id}", get(trace))
        .fallback(async || refuse(StatusCode::NOT_FOUND, problem::NOT_FOUND, "no such route".into()))
        .with_state(shared)
}

async fn list(State(shared): State<Shared>, query: Result<Query<ListQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(ListQuery { choice, limit })) if limit <= MAX_LIMIT => {
            let traces = shared.lock().list(choice, limit);
            Json(List { traces }).into_response()
        }
        Ok(_) => invalid(format!("limit: must be at most {MAX_LIMIT}")),
        Err(error) => invalid(error.body_text()),
    }
}

async fn trace(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let id: TraceId = match id.parse() {
        Ok(id) => id,
        Err(error) => return invalid(format!("{error}")),
    };
    let found = shared.lock().get(id);
    match found {
        Some(trace) => Json(trace).into_response(),
        None => {
            refuse(StatusCode::NOT_FOUND, problem::NOT_FOUND, format!("trace {id} is not kept, or was never sampled"))
        }
    }
}

async fn clear(State(shared): State<Shared>) -> StatusCode {
    shared.lock().clear();
    StatusCode::NO_CONTENT
}

fn invalid(detail: String) -> Response {
    refuse(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, detail)
}

fn refuse(status: StatusCode, kind: &str, detail: String) -> Response {
    let title = status.canonical_reason().unwrap_or("Error").to_owned();
    let body = Problem { kind: kind.to_owned(), title, status: status.as_u16(), detail, field: None };
    (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(body)).into_response()
}
