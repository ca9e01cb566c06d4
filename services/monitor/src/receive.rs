//! Step 1 of a heartbeat's path over HTTP: all routes of a monitor. Heartbeats over TCP and UDP arrive through `heartbeat::transport`.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use contract::{http::problem, id};
use heartbeat::{
    assign::NodeId,
    auth::{FrameKind, Keys, Reject},
    clock::latest_incarnation,
    codec::MAX_PAYLOAD_BYTES,
    frame,
    registry::{Registered, Registration, Request, Response as Answer},
    transport::{
        Ingest,
        assignments::{self, Assignments},
        connections::Connection,
        http::{self, AUTHENTICATED, FUTURE_INCARNATION, Unauthenticated},
    },
    vote::Ballot,
};
use prometheus::IntCounterVec;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};

use crate::{
    MonitorConfig,
    bodies::{self, Bodies},
    etcd::{Registry, RegistryError},
    input::Input,
    metrics::{BALLOT, Metrics, REGISTRATION},
    problems::refused,
    status_snapshots,
};

/// Bytes per worker in a ballot, worst case: the longest id with every character escaped, quotes, an incarnation, separators.
const NAMED_BYTES: usize = 2 * id::MAX_ID_BYTES + 2 + 20 + 2;
/// Limit of all other request bodies.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Maximum number of registrations in progress. Each asks etcd.
const MAX_REGISTRATIONS: usize = 256;
/// How long the set of registered workers is cached.
const CACHE_FOR: Duration = Duration::from_secs(1);
/// `host:port`.
const MAX_ADDRESS_BYTES: usize = 255;

/// Workers in the registry, cached.
#[derive(Default)]
struct RegisteredNodes {
    nodes: BTreeSet<NodeId>,
    since: Option<Instant>,
}

#[derive(Clone)]
struct Handlers {
    inbox: mpsc::Sender<Input>,
    registry: Registry,
    known: Arc<Mutex<RegisteredNodes>>,
    /// Limits registrations in progress.
    registering: Arc<Semaphore>,
    max_nodes: usize,
    keys: Keys,
    voter_keys: Keys,
    status: status_snapshots::Reader,
    plain: Unauthenticated,
    refused: IntCounterVec,
}

type From = Option<Extension<Arc<Connection>>>;

pub fn router(
    ingest: Arc<Ingest>,
    config: &MonitorConfig,
    latest: watch::Receiver<Arc<Assignments>>,
    inbox: mpsc::Sender<Input>,
    registry: Registry,
    status: status_snapshots::Reader,
    metrics: &Metrics,
) -> Router {
    let plain = if config.listen.plain { Unauthenticated::Accepted } else { Unauthenticated::Refused };
    let max_nodes = config.node.max_nodes;
    // All workers, and the rounds of all monitors.
    let ballot_bytes = MAX_BODY_BYTES + (max_nodes + config.peers.len()) * NAMED_BYTES;
    let (keys, refused) = (ingest.keys().clone(), metrics.control_refused.clone());
    let to_loop = inbox.clone();
    // If the queue is full, the worker's next heartbeat says it too.
    let followed = move |node, epoch| _ = to_loop.try_send(Input::Follows { node, epoch });
    let handlers = Handlers {
        inbox,
        registry,
        known: Arc::default(),
        registering: Arc::new(Semaphore::new(MAX_REGISTRATIONS)),
        max_nodes,
        keys: keys.clone(),
        voter_keys: config.node.voter_keys(),
        status,
        plain,
        refused,
    };
    let bodies = Bodies::new(ballot_bytes);
    let limited = |router: Router, max_bytes: usize| {
        let read = middleware::from_fn_with_state(bodies.up_to(max_bytes), bodies::read);
        router.layer(DefaultBodyLimit::max(max_bytes)).layer(read)
    };
    let ballots = Router::new().route("/ballot", post(ballot)).with_state(handlers.clone());
    let others =
        Router::new().route("/register", post(register)).route("/status", get(status_now)).with_state(handlers);
    let others = others
        .merge(assignments::router(latest.clone()))
        // Workers poll one at a time; two, because a broken connection may go unnoticed for a while.
        .merge(assignments::authenticated(latest, keys, 2 * max_nodes, followed));
    limited(ballots, ballot_bytes)
        .merge(limited(others, MAX_BODY_BYTES))
        .merge(limited(http::router(ingest, plain), MAX_PAYLOAD_BYTES))
}

/// Always authenticated, with the monitors' key: only monitors vote.
async fn ballot(State(handlers): State<Handlers>, from: From, body: Bytes) -> Response {
    let ballot: Ballot = match frame::verify_control(&handlers.voter_keys, &body) {
        Ok(ballot) => ballot,
        Err(reason) => return handlers.reject(BALLOT, reason),
    };
    authenticate(from);
    // A full queue drops the ballot, as the network might. The next ballot is newer.
    match handlers.inbox.try_send(Input::Ballot(ballot)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Authenticated, or plain JSON where the configuration allows it. A leaving worker must always be authenticated: any other client could
/// take it offline.
async fn register(State(handlers): State<Handlers>, from: From, headers: HeaderMap, body: Bytes) -> Response {
    let is_sealed = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == AUTHENTICATED);
    let is_plain = handlers.plain == Unauthenticated::Accepted && !is_sealed;
    let node = match is_plain {
        true => serde_json::from_slice(&body).map_err(|_| Reject::Decode),
        false => frame::verify_control(&handlers.keys, &body),
    };
    let node: Registration = match node {
        Ok(node) => node,
        Err(reason) => return handlers.reject(REGISTRATION, reason),
    };
    if !is_plain {
        authenticate(from);
    }
    if is_plain && node.leaving {
        return handlers.reject(REGISTRATION, Reject::Mac);
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
        return refused(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, FUTURE_INCARNATION);
    }
    let Ok(_permit) = handlers.registering.try_acquire() else {
        let detail = "too many registrations are in progress: try again later";
        return refused(StatusCode::SERVICE_UNAVAILABLE, problem::OVERLOADED, detail);
    };
    let answer = match handlers.register(node).await {
        Ok(None) => {
            let detail = format!("the limit of {} workers is reached; raise node.max_nodes", handlers.max_nodes);
            return refused(StatusCode::SERVICE_UNAVAILABLE, problem::OVERLOADED, &detail);
        }
        Ok(Some(Answer::Superseded { incarnation })) => Registered::Superseded { incarnation },
        Ok(Some(_)) => Registered::Registered,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot register a node");
            return refused(StatusCode::SERVICE_UNAVAILABLE, problem::STORE_UNAVAILABLE, "the registry did not answer");
        }
    };
    let wants_seal = headers.get(header::ACCEPT).is_some_and(|kind| kind == AUTHENTICATED);
    match serde_json::to_vec(&answer) {
        Ok(json) if wants_seal => {
            let reply = frame::sign_reply(&handlers.keys, FrameKind::Registered, &body, &json);
            ([(header::CONTENT_TYPE, AUTHENTICATED)], reply).into_response()
        }
        _ => Json(answer).into_response(),
    }
}

async fn status_now(State(handlers): State<Handlers>) -> Response {
    match handlers.status.json().await {
        Some(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        None => {
            let detail = "the monitor is busy or stopping";
            refused(StatusCode::SERVICE_UNAVAILABLE, problem::OVERLOADED, detail)
        }
    }
}

/// The sender of this connection's message has a key.
fn authenticate(from: From) {
    if let Some(Extension(connection)) = from {
        connection.authenticate();
    }
}

impl Handlers {
    /// `None`: no room. Concurrent registrations at several monitors may exceed the limit by a few.
    async fn register(&self, node: Registration) -> Result<Option<Answer>, RegistryError> {
        // Locked during the round trips: concurrent registrations share one read.
        let mut known = self.known.lock().await;
        if known.since.is_none_or(|since| since.elapsed() > CACHE_FOR)
            && let Answer::Snapshot(snapshot) = self.registry.apply(Request::Read).await?
        {
            *known = RegisteredNodes { nodes: snapshot.nodes.keys().cloned().collect(), since: Some(Instant::now()) };
        }
        if known.nodes.len() >= self.max_nodes && !known.nodes.contains(&node.id) {
            return Ok(None);
        }
        known.nodes.insert(node.id.clone());
        drop(known);
        self.registry.apply(Request::Register(node)).await.map(Some)
    }

    fn reject(&self, word: &str, reason: Reject) -> Response {
        self.refused.with_label_values(&[word, reason.label()]).inc();
        if reason == Reject::Decode {
            let detail = format!("the request body is not a valid {word}");
            return refused(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, &detail);
        }
        let key = if word == BALLOT { "node.monitor_key" } else { "node.key" };
        let detail = format!("a {word} needs a MAC with the key that all have ({key}): {}", reason.label());
        refused(StatusCode::UNAUTHORIZED, problem::INVALID_REQUEST, &detail)
    }
}
