//! The long poll behind `/partitions`: `GET` in plain JSON, `POST` with question and answer authenticated.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use super::Assignments;
use crate::{
    assign::NodeId,
    auth::{FrameKind, Keys},
    frame::{self, Poll},
    transport::{
        connections::Connection,
        http::{AUTHENTICATED, INVALID_REQUEST, OVERLOADED, refused},
        rendered::Rendered,
    },
};

/// Maximum wait of one poll.
pub const MAX_POLL: Duration = Duration::from_secs(30);
/// Maximum number of plain polls that wait at a time. Workers poll with authentication, and are not counted.
const MAX_PLAIN_POLLS: usize = 256;

#[derive(Debug, Deserialize)]
struct PlainPoll {
    /// Epoch of the client's table.
    #[serde(default)]
    epoch: u64,
    /// Milliseconds to wait for a later table; 0: answer immediately.
    #[serde(default)]
    wait_ms: u64,
}

type Latest = watch::Receiver<Arc<Assignments>>;

#[derive(Clone)]
struct Handlers {
    latest: Latest,
    json: Arc<Rendered<Assignments>>,
    slots: Arc<Semaphore>,
}

/// Serves the value of `latest` in plain JSON, for people and for clients. Without a change in `wait_ms` it answers the client's own table.
pub fn router(latest: Latest) -> Router {
    let (json, slots) = (Arc::default(), Arc::new(Semaphore::new(MAX_PLAIN_POLLS)));
    Router::new().route("/partitions", get(plain)).with_state(Handlers { latest, json, slots })
}

/// Serves the value of `latest` to workers with the key. At most `max_polls` wait at a time. `followed` gets each worker that has the latest
/// table, and the table's epoch.
pub fn authenticated(
    latest: Latest,
    keys: Keys,
    max_polls: usize,
    followed: impl Fn(NodeId, u64) + Clone + Send + Sync + 'static,
) -> Router {
    let (json, slots) = (Arc::default(), Arc::new(Semaphore::new(max_polls)));
    let handlers = Handlers { latest, json, slots };
    let answer = move |connection, body| sealed(handlers, keys, followed, connection, body);
    Router::new().route("/partitions", post(answer))
}

async fn plain(State(handlers): State<Handlers>, Query(poll): Query<PlainPoll>) -> Response {
    match handlers.poll(poll.epoch, poll.wait_ms).await {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(refusal) => refusal,
    }
}

async fn sealed(
    handlers: Handlers,
    keys: Keys,
    followed: impl Fn(NodeId, u64),
    connection: Option<Extension<Arc<Connection>>>,
    question: Bytes,
) -> Response {
    let poll: Poll = match frame::verify_control(&keys, &question) {
        Ok(poll) => poll,
        Err(reason) => {
            let detail = format!("a poll needs a MAC with the key of all monitors and workers: {}", reason.label());
            return refused(StatusCode::UNAUTHORIZED, INVALID_REQUEST, &detail);
        }
    };
    if let Some(Extension(connection)) = connection {
        connection.authenticate();
    }
    if poll.epoch == handlers.latest.borrow().table.epoch {
        followed(poll.node, poll.epoch);
    }
    match handlers.poll(poll.epoch, poll.wait_ms).await {
        Ok(json) => {
            let reply = frame::sign_reply(&keys, FrameKind::Table, &question, &json);
            ([(header::CONTENT_TYPE, AUTHENTICATED)], reply).into_response()
        }
        Err(refusal) => refusal,
    }
}

impl Handlers {
    /// The table as JSON, or a refusal.
    async fn poll(mut self, epoch: u64, wait_ms: u64) -> Result<Bytes, Response> {
        let wait = Duration::from_millis(wait_ms).min(MAX_POLL);
        if !wait.is_zero() {
            let Ok(_slot) = self.slots.try_acquire() else {
                let detail = "too many polls wait for a later table: try again later, or poll without wait_ms";
                return Err(refused(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, detail));
            };
            // Neither a timeout nor a closed channel is an error: the client has the latest table.
            let later = self.latest.wait_for(|latest| latest.table.epoch > epoch);
            timeout(wait, later).await.map(|found| found.map(drop).ok()).ok();
        }
        let latest = Arc::clone(&self.latest.borrow());
        let failed = |_| refused(StatusCode::INTERNAL_SERVER_ERROR, INVALID_REQUEST, "the table cannot be serialised");
        self.json.json(&latest).map_err(failed)
    }
}
