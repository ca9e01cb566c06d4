//! The long poll behind `GET /partitions`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::get,
};
use serde::Deserialize;
use tokio::{sync::watch, time::timeout};

use super::Assignments;

/// Maximum wait of one poll.
pub const MAX_POLL: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
struct Poll {
    /// Epoch of the client's table.
    #[serde(default)]
    epoch: u64,
    /// Milliseconds to wait for a later table; 0: answer immediately.
    #[serde(default)]
    wait_ms: u64,
}

type Latest = watch::Receiver<Arc<Assignments>>;

/// Serves the value of `latest`. Without a change in `wait_ms` it answers the client's own table.
pub fn router(latest: Latest) -> Router {
    Router::new().route("/partitions", get(partitions)).with_state(latest)
}

async fn partitions(State(mut latest): State<Latest>, Query(poll): Query<Poll>) -> Json<Arc<Assignments>> {
    let wait = Duration::from_millis(poll.wait_ms).min(MAX_POLL);
    let later = latest.wait_for(|latest| latest.table.epoch > poll.epoch);
    // Neither a timeout nor a closed channel is an error: the client has the latest table.
    timeout(wait, later).await.map(|found| found.map(drop).ok()).ok();
    let known = Arc::clone(&latest.borrow());
    Json(known)
}
