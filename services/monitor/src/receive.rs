//! All that arrives over HTTP, on one screen; beats over TCP and UDP come by the library's own receivers.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

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
    assign::NodeId,
    auth::{Keys, Reject},
    clock::latest_incarnation,
    frame,
    registry::{Registration, Request, Response as Answer},
    transport::{
        Ingest,
        assignments::{self, Assignments},
        http::{self, FUTURE, Plain, SEALED},
    },
    vote::Ballot,
};
use prometheus::IntCounterVec;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::{
    MonitorConfig,
    etcd::{Registry, RegistryError},
    input::Input,
    metrics::{BALLOT, Metrics, REGISTRATION},
    status::Status,
};

/// Of a ballot, which names every node at worst: the longest id with every character escaped, its quotes, a life, what is between them.
const NAMED_BYTES: usize = 2 * id::MAX_ID_BYTES + 2 + 20 + 2;
/// Of all the rest.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// What is known of the registry's nodes is looked up anew after so long.
const KNOWN_FOR: Duration = Duration::from_secs(1);
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

/// Nodes in the registry, and since when that is known.
#[derive(Default)]
struct Known {
    nodes: BTreeSet<NodeId>,
    since: Option<Instant>,
}

#[derive(Clone)]
struct Desk {
    inbox: mpsc::Sender<Input>,
    registry: Registry,
    known: Arc<Mutex<Known>>,
    max_nodes: usize,
    keys: Keys,
    plain: Plain,
    refused: IntCounterVec,
}

pub fn router(
    ingest: Arc<Ingest>,
    config: &MonitorConfig,
    latest: watch::Receiver<Arc<Assignments>>,
    inbox: mpsc::Sender<Input>,
    registry: Registry,
    metrics: &Metrics,
) -> Router {
    let plain = if config.listen.plain { Plain::Accepted } else { Plain::Refused };
    let max_nodes = config.node.max_nodes;
    // All nodes, and the rounds of all monitors.
    let ballot_bytes = MAX_BODY_BYTES + (max_nodes + config.peers.len()) * NAMED_BYTES;
    let (keys, refused) = (ingest.keys().clone(), metrics.words_refused.clone());
    let known = Arc::default();
    Router::new()
        .route("/ballot", post(ballot).layer(DefaultBodyLimit::max(ballot_bytes)))
        .route("/register", post(register))
        .route("/status", get(status))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Desk { inbox, registry, known, max_nodes, keys, plain, refused })
        .merge(http::router(ingest, plain))
        .merge(assignments::router(latest))
}

/// Only sealed: nobody but monitors has anything to vote on.
async fn ballot(State(desk): State<Desk>, body: Bytes) -> Response {
    let ballot: Ballot = match frame::verify_control(&desk.keys, &body) {
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
        false => frame::verify_control(&desk.keys, &body),
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
    match desk.register(node).await {
        Ok(None) => {
            let detail = format!("there are {} nodes already, and no room for more (node.max_nodes)", desk.max_nodes);
            refused(StatusCode::SERVICE_UNAVAILABLE, problem::OVERLOADED, &detail)
        }
        Ok(Some(Answer::Registered)) => Json(Registered::Registered).into_response(),
        Ok(Some(_)) => Json(Registered::Outlived).into_response(),
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
    /// `None`: no room. Monitors that take a node each at the same moment may be a few beyond it.
    async fn register(&self, node: Registration) -> Result<Option<Answer>, RegistryError> {
        // Held over the round trips: who registers meanwhile waits for the same reading.
        let mut known = self.known.lock().await;
        if known.since.is_none_or(|since| since.elapsed() > KNOWN_FOR)
            && let Answer::Snapshot(snapshot) = self.registry.apply(Request::Read).await?
        {
            *known = Known { nodes: snapshot.nodes.keys().cloned().collect(), since: Some(Instant::now()) };
        }
        if known.nodes.len() >= self.max_nodes && !known.nodes.contains(&node.id) {
            return Ok(None);
        }
        known.nodes.insert(node.id.clone());
        drop(known);
        self.registry.apply(Request::Register(node)).await.map(Some)
    }

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
