//! Heartbeats over HTTP: `GET /heartbeat?id=` as in the article, and `POST /heartbeat` with a request body. A monitor mounts the router.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Extension, Json as JsonAnswer, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::{Ingest, Scratch, connections::Connection, reason, refusal};
use crate::{
    auth::Reject,
    clock::wall_ms,
    codec::{Codec, DecodeError, Json, MAX_PAYLOAD_BYTES, Protobuf},
    message::Beat,
};

/// Media type of a frame with a MAC, the same bytes as in a datagram.
pub const AUTHENTICATED: &str = "application/vnd.heartbeat.sealed";
pub const PROTOBUF: &str = "application/x-protobuf";
/// `type` of the problem documents.
pub(super) const INVALID_REQUEST: &str = "/problems/invalid-request";
pub(super) const OVERLOADED: &str = "/problems/overloaded";

/// Whether heartbeats without a MAC are accepted (insecure: any client can then impersonate any node).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unauthenticated {
    Accepted,
    Refused,
}

/// Detail of the response to an incarnation that is too far in the future.
pub const FUTURE_INCARNATION: &str = "incarnation is more than a day ahead of this clock: it must be the Unix time in milliseconds at which the node started";

/// Response body of an accepted request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// `received`, or the reason for which the heartbeat was dropped (a metric's label).
    pub outcome: String,
}

#[derive(Clone)]
struct HttpState {
    ingest: Arc<Ingest>,
    plain: Unauthenticated,
    /// Buffers for authenticated request bodies; locked for microseconds.
    scratch: Arc<Mutex<Scratch>>,
}

/// `id` alone is the article's form: an unnumbered heartbeat.
#[derive(Debug, Deserialize)]
struct BeatQuery {
    id: String,
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    incarnation: u64,
    #[serde(default)]
    load: f32,
}

/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`; otherwise every peer is `0.0.0.0:0`.
pub fn router(ingest: Arc<Ingest>, plain: Unauthenticated) -> Router {
    let scratch = Arc::default();
    Router::new()
        .route("/heartbeat", get(get_beat).post(post_beat))
        .layer(DefaultBodyLimit::max(MAX_PAYLOAD_BYTES))
        .with_state(HttpState { ingest, plain, scratch })
}

type Peer = Option<Extension<ConnectInfo<SocketAddr>>>;

async fn get_beat(
    State(state): State<HttpState>,
    peer: Peer,
    query: Result<Query<BeatQuery>, QueryRejection>,
) -> Response {
    let Query(asked) = match query {
        Ok(query) => query,
        Err(error) => return refused(StatusCode::BAD_REQUEST, INVALID_REQUEST, &error.body_text()),
    };
    let beat = Beat {
        timestamp: wall_ms(),
        node_id: asked.id,
        services: Vec::new(),
        sequence: asked.sequence,
        incarnation: asked.incarnation,
        load: asked.load,
        report: None,
    };
    match beat.check() {
        Ok(()) => state.accept_unauthenticated(peer, beat),
        Err(error) => state.unreadable(&error.into()),
    }
}

async fn post_beat(
    State(state): State<HttpState>,
    peer: Peer,
    connection: Option<Extension<Arc<Connection>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let decoded = match kind.split(';').next().map(str::trim) {
        Some(AUTHENTICATED) => return state.accept_frame(peer, connection, &body),
        Some(PROTOBUF) => Protobuf.decode(&body),
        Some("application/json") => Json.decode(&body),
        _ => {
            let detail = format!("send application/json, {PROTOBUF} or {AUTHENTICATED}");
            return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, &detail);
        }
    };
    match decoded {
        Ok(beat) => state.accept_unauthenticated(peer, beat),
        Err(error) => state.unreadable(&error),
    }
}

impl HttpState {
    fn accept_unauthenticated(&self, peer: Peer, beat: Beat) -> Response {
        if self.plain == Unauthenticated::Refused {
            self.ingest.counts().reject(Reject::Mac);
            let detail =
                format!("unauthenticated heartbeats are refused: send a frame with a MAC, POST {AUTHENTICATED}");
            return refused(StatusCode::UNAUTHORIZED, INVALID_REQUEST, &detail);
        }
        if let Err(reason) = self.ingest.check_incarnation(beat.incarnation) {
            self.ingest.counts().reject(reason);
            return refused(StatusCode::BAD_REQUEST, INVALID_REQUEST, FUTURE_INCARNATION);
        }
        let recorded = self.ingest.record_beat(self.ingest.clock().now(), address(peer), beat);
        match refusal(recorded) {
            Some(Reject::Full) => refused(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "the limit of nodes is reached"),
            refusal => received(refusal),
        }
    }

    fn accept_frame(&self, peer: Peer, connection: Option<Extension<Arc<Connection>>>, body: &[u8]) -> Response {
        // A panic leaves nothing behind: the buffers are rewritten for each message.
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        match self.ingest.frame(&mut scratch, self.ingest.clock().now(), address(peer), body) {
            Ok(handled) => {
                if let Some(Extension(connection)) = connection.filter(|_| handled.is_new) {
                    connection.authenticate();
                }
                received(None)
            }
            Err(Reject::Mac | Reject::Key) => {
                refused(StatusCode::UNAUTHORIZED, INVALID_REQUEST, "the MAC was not made with a key in use")
            }
            Err(Reject::FutureIncarnation) => refused(StatusCode::BAD_REQUEST, INVALID_REQUEST, FUTURE_INCARNATION),
            Err(reason) => refused(StatusCode::BAD_REQUEST, INVALID_REQUEST, reason.label()),
        }
    }

    fn unreadable(&self, error: &DecodeError) -> Response {
        self.ingest.counts().reject(reason(error));
        let detail = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        refused(StatusCode::BAD_REQUEST, INVALID_REQUEST, &detail)
    }
}

fn address(peer: Peer) -> SocketAddr {
    peer.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |Extension(ConnectInfo(peer))| peer)
}

fn received(refusal: Option<Reject>) -> Response {
    JsonAnswer(Received { outcome: refusal.map_or("received", Reject::label).to_owned() }).into_response()
}

/// Problem document (RFC 9457).
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

pub(super) fn refused(status: StatusCode, kind: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let problem = Problem { kind, title, status: status.as_u16(), detail };
    (status, [(header::CONTENT_TYPE, "application/problem+json")], JsonAnswer(problem)).into_response()
}
