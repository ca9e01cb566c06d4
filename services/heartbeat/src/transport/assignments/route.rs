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
    /// Of the table that the asker has.
    #[serde(default)]
    epoch: u64,
    /// How long to wait for a later one; 0: answer what there is.
    #[serde(default)]
    wait_ms: u64,
}

type Latest = watch::Receiver<Arc<Assignments>>;

/// Serves what is sent to `latest`. After `wait_ms` without a change it is what the asker knows.
pub fn router(latest: Latest) -> Router {
    Router::new().route("/partitions", get(partitions)).with_state(latest)
}

async fn partitions(State(mut latest): State<Latest>, Query(poll): Query<Poll>) -> Json<Arc<Assignments>> {
    let wait = Duration::from_millis(poll.wait_ms).min(MAX_POLL);
    let later = latest.wait_for(|latest| latest.table.epoch > poll.epoch);
    // Neither a poll that finds nothing new nor a process that is about to end is an error: the asker has the latest.
    timeout(wait, later).await.map(|found| found.map(drop).ok()).ok();
    let known = Arc::clone(&latest.borrow());
    Json(known)
}
