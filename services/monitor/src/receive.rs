//! All that arrives over HTTP, on one screen; beats over TCP and UDP come by the library's own receivers.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use contract::{
    http::{Problem, problem},
    id,
};
use heartbeat::{
    auth::{Keys, Reject},
    clock::latest_incarnation,
    registry::{Registration, Request, Response as Answer},
    transport::{
        Ingest,
        assignments::{self, Assignments},
        http::{self, FUTURE, Plain, SEALED},
        words,
    },
    vote::Ballot,
};
use prometheus::IntCounterVec;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    etcd::Registry,
    metrics::{BALLOT, Metrics, REGISTRATION},
    status::Status,
    sweep::Input,
};

/// A ballot names every failed node: 1,000 of the longest ids.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// `host:port`.
const MAX_ADDRESS_BYTES: usize = 255;

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum Registered {
    Registered,
    /// This life or a later one is registered already.
    Outlived,
}

#[derive(Clone)]
struct Desk {
    inbox: mpsc::Sender<Input>,
    registry: Registry,
    keys: Keys,
    plain: Plain,
    refused: IntCounterVec,
}

/// # Errors
/// Out of memory.
pub fn router(
    ingest: Arc<Ingest>,
    plain: Plain,
    latest: watch::Receiver<Arc<Assignments>>,
    inbox: mpsc::Sender<Input>,
    registry: Registry,
    metrics: &Metrics,
) -> std::io::Result<Router> {
    let (keys, refused) = (ingest.keys().clone(), metrics.words_refused.clone());
    Ok(Router::new()
        .route("/ballot", post(ballot))
        .route("/register", post(register))
        .route("/status", get(status))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Desk { inbox, registry, keys, plain, refused })
        .merge(http::router(ingest, plain)?)
        .merge(assignments::router(latest)))
}

/// Only sealed: nobody but monitors has anything to vote on.
async fn ballot(State(desk): State<Desk>, body: Bytes) -> Response {
    let ballot: Ballot = match words::open(&desk.keys, &body) {
        Ok(ballot) => ballot,
        Err(reason) => return desk.not_believed(BALLOT, reason),
    };
    // A full inbox loses it, as the network might have; the next one says more.
    match desk.inbox.try_send(Input::Ballot(ballot)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Sealed, or plain JSON where beats may be so, too. That a worker leaves is believed of a key holder only: everybody else would be
/// able to take it off-line.
async fn register(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Response {
    let is_sealed = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == SEALED);
    let is_plain = desk.plain == Plain::Accepted && !is_sealed;
    let node = match is_plain {
        true => serde_json::from_slice(&body).map_err(|_| Reject::Decode),
        false => words::open(&desk.keys, &body),
    };
    let node: Registration = match node {
        Ok(node) => node,
        Err(reason) => return desk.not_believed(REGISTRATION, reason),
    };
    if is_plain && node.leaving {
        return desk.not_believed(REGISTRATION, Reject::Mac);
    }
    if let Err(error) = id::check(&node.id) {
        return refused(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, &format!("id {error}"));
    }
    let is_address = |address: &String| address.len() <= MAX_ADDRESS_BYTES && address.contains(':');
    if !is_address(&node.http) || !is_address(&node.udp) {
        return refused(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, "http and udp must be host:port");
    }
    if node.incarnation == 0 {
        return refused(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, "incarnation must be at least 1");
    }
    if node.incarnation > latest_incarnation() {
        return refused(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, FUTURE);
    }
    match desk.registry.apply(Request::Register(node)).await {
        Ok(Answer::Registered) => Json(Registered::Registered).into_response(),
        Ok(_) => Json(Registered::Outlived).into_response(),
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot register a node");
            refused(StatusCode::SERVICE_UNAVAILABLE, problem::STORE_UNAVAILABLE, "the registry did not answer")
        }
    }
}

async fn status(State(desk): State<Desk>) -> Result<Json<Status>, Response> {
    let (reply, answer) = oneshot::channel();
    let busy = || refused(StatusCode::SERVICE_UNAVAILABLE, problem::OVERLOADED, "the monitor is busy or stopping");
    desk.inbox.try_send(Input::Status(reply)).map_err(|_| busy())?;
    answer.await.map(Json).map_err(|_| busy())
}

impl Desk {
    fn not_believed(&self, word: &str, reason: Reject) -> Response {
        self.refused.with_label_values(&[word, reason.label()]).inc();
        if reason == Reject::Decode {
            let detail = format!("this is no {word}");
            return refused(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, &detail);
        }
        let detail =
            format!("a {word} must be sealed with the key of monitors and workers (node.key): {}", reason.label());
        refused(StatusCode::UNAUTHORIZED, problem::INVALID_REQUEST, &detail)
    }
}

fn refused(status: StatusCode, kind: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error").to_owned();
    let body =
        Problem { kind: kind.to_owned(), title, status: status.as_u16(), detail: detail.to_owned(), field: None };
    (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(body)).into_response()
}
