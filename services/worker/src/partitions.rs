//! What a worker answers, on one screen. Work for a partition that is another's is sent on to its primary (307), work under an
//! epoch that is over is refused (409).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use contract::{
    http::{Counted, Problem, problem},
    id,
};
use heartbeat::{
    assign::NodeId,
    auth::Keys,
    tenure::Refusal,
    transport::{
        assignments::{self, Assignments},
        probe,
    },
};
use serde::{Deserialize, Serialize};
use stores::{StaleEpoch, Store};
use tokio::sync::{Semaphore, watch};

use crate::{
    beats::{By, Resumed, Senders},
    hold::Holding,
    life::Life,
    metrics::Metrics,
};

/// At most, for a monitor that waits for the answer: within a round of probes at a beat a second (350 ms). A monitor with shorter rounds
/// hangs up sooner, and that ends the probe, too.
const PROBE_FOR_OTHERS: Duration = Duration::from_millis(300);
/// Such probes at once; each sends a few datagrams wherever it is told to.
pub const MAX_PROBES_FOR_OTHERS: usize = 256;
/// `host:port`.
const MAX_ADDRESS_BYTES: usize = 255;

#[derive(Clone)]
pub struct Desk {
    pub me: NodeId,
    pub life: Life,
    pub keys: Keys,
    /// For probes of other workers.
    pub room: Arc<Semaphore>,
    pub holding: Holding,
    pub store: Store,
    pub latest: watch::Receiver<Arc<Assignments>>,
    pub senders: Senders,
    pub metrics: Metrics,
}

pub fn router(desk: Desk) -> Router {
    let latest = desk.latest.clone();
    Router::new()
        .route("/partitions/{number}/count", post(count))
        .route("/probe", get(probed))
        .route("/beats/resume", post(resume))
        .with_state(desk)
        .merge(assignments::router(latest))
}

#[derive(Debug, Deserialize)]
struct Claim {
    /// The epoch of the partition by which the writer goes, if it knows one.
    epoch: Option<u64>,
}

async fn count(State(desk): State<Desk>, Path(partition): Path<usize>, Query(claim): Query<Claim>) -> Response {
    // The guard must not live on to the store's answer.
    let admitted = desk.holding.tenure().admit(partition, claim.epoch);
    let epoch = match admitted {
        Ok(epoch) => epoch,
        Err(refusal) => return desk.refuse(partition, refusal),
    };
    match desk.holding.count(&desk.store, partition, epoch).await {
        Ok(Ok(counter)) => {
            desk.outcome("done");
            Json(Counted { partition, epoch, counter, worker: desk.me.to_string() }).into_response()
        }
        Ok(Err(StaleEpoch { current })) => desk.old_epoch(partition, current),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, partition, "cannot count");
            desk.outcome("failed");
            answer(StatusCode::SERVICE_UNAVAILABLE, problem::STORE_UNAVAILABLE, "the store did not answer".into())
        }
    }
}

impl Desk {
    fn refuse(&self, partition: usize, refusal: Refusal) -> Response {
        match refusal {
            Refusal::NoSuchPartition => {
                self.outcome("no_such_partition");
                answer(StatusCode::NOT_FOUND, problem::NOT_FOUND, format!("there is no partition {partition}"))
            }
            Refusal::OldEpoch { epoch } => self.old_epoch(partition, epoch),
            Refusal::TakingOver { epoch } => {
                self.outcome("taking_over");
                let detail = format!("partition {partition} is being taken over in epoch {epoch}");
                answer(StatusCode::SERVICE_UNAVAILABLE, problem::TAKING_OVER, detail)
            }
            Refusal::NotMine { primary, epoch } => self.send_on(partition, primary, epoch),
        }
    }

    fn send_on(&self, partition: usize, primary: Option<NodeId>, epoch: u64) -> Response {
        let latest = Arc::clone(&self.latest.borrow());
        let found = primary.and_then(|primary| Some((latest.addresses.get(&primary)?.clone(), primary)));
        let Some((address, primary)) = found else {
            self.outcome("nobodys");
            let detail = format!("partition {partition} has no primary in epoch {epoch}");
            return answer(StatusCode::SERVICE_UNAVAILABLE, problem::NOT_THE_PRIMARY, detail);
        };
        self.outcome("sent_on");
        let detail = format!("{primary} is the primary of partition {partition} in epoch {epoch}");
        let mut response = answer(StatusCode::TEMPORARY_REDIRECT, problem::NOT_THE_PRIMARY, detail);
        // Without the epoch that the writer went by: the one that it is sent to knows better.
        let location = format!("http://{address}/partitions/{partition}/count");
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }

    fn old_epoch(&self, partition: usize, epoch: u64) -> Response {
        self.outcome("old_epoch");
        let detail = format!("partition {partition} is in epoch {epoch}: ask /partitions who has it");
        answer(StatusCode::CONFLICT, problem::OLD_EPOCH, detail)
    }

    fn outcome(&self, outcome: &str) {
        self.metrics.requests.with_label_values(&[outcome]).inc();
    }
}

/// Whom a monitor looks for: this worker, or another that it has no answer from.
#[derive(Debug, Deserialize)]
struct Sought {
    id: Option<String>,
    udp: Option<String>,
}

#[derive(Debug, Serialize)]
struct Alive<'a> {
    id: &'a str,
    incarnation: u64,
}

async fn probed(State(desk): State<Desk>, Query(sought): Query<Sought>) -> Response {
    let (Some(id), Some(udp)) = (&sought.id, &sought.udp) else {
        return Json(Alive { id: &desk.me, incarnation: desk.life.incarnation() }).into_response();
    };
    probe_for_others(&desk.keys, &desk.room, id, udp).await
}

async fn probe_for_others(keys: &Keys, room: &Semaphore, id: &str, udp: &str) -> Response {
    if let Err(error) = id::check(id) {
        return answer(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, format!("id {error}"));
    }
    if udp.len() > MAX_ADDRESS_BYTES || !udp.contains(':') {
        return answer(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, "udp must be host:port".into());
    }
    let Ok(_permit) = room.try_acquire() else {
        return answer(
            StatusCode::SERVICE_UNAVAILABLE,
            problem::OVERLOADED,
            "too many probes of others at once".into(),
        );
    };
    match probe::ask(keys, udp, id, PROBE_FOR_OTHERS).await {
        Some(incarnation) => Json(Alive { id, incarnation }).into_response(),
        None => answer(StatusCode::GATEWAY_TIMEOUT, problem::DEADLINE_EXCEEDED, format!("{id} did not answer")),
    }
}

/// `testbed fault resume`
async fn resume(State(desk): State<Desk>) -> Json<BTreeMap<String, Resumed>> {
    Json(desk.senders.resume_all(By::Operator))
}

/// A problem document; whoever may try again is told so.
fn answer(status: StatusCode, kind: &str, detail: String) -> Response {
    let title = status.canonical_reason().unwrap_or("Error").to_owned();
    let body = Problem { kind: kind.to_owned(), title, status: status.as_u16(), detail, field: None };
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;

    #[tokio::test]
    async fn others_are_probed_by_their_names_and_so_many_at_once() {
        let (keys, room) = (Keys::new(1, b"of this test"), Semaphore::new(1));
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = udp.local_addr().unwrap().to_string();
        let answering = keys.clone();
        tokio::spawn(async move { probe::answer(&udp, &answering, "w", || 7).await });
        let asked = async |id: &str, udp: &str| probe_for_others(&keys, &room, id, udp).await.status().as_u16();
        assert_eq!((asked("w", &at).await, asked("x", &at).await), (200, 504));
        assert_eq!(
            (asked("", &at).await, asked(&"w".repeat(65), &at).await, asked("w", "here").await),
            (400, 400, 400)
        );
        let _taken = room.acquire().await.unwrap();
        let refused = probe_for_others(&keys, &room, "w", &at).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
    }
}
