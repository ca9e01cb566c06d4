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
use contract::http::{Counted, Problem, problem};
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
use stores::{Overruled, Store};
use tokio::sync::watch;

use crate::{
    beats::{By, Resumed, Senders},
    hold::Holding,
    life::Life,
    metrics::Metrics,
};

/// For a monitor that waits for the answer: the least that a round of probes takes.
const PROBE_FOR_OTHERS: Duration = Duration::from_millis(300);

#[derive(Clone)]
pub struct Desk {
    pub me: NodeId,
    pub life: Life,
    pub keys: Keys,
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
        Ok(Err(Overruled { by_epoch })) => desk.old_epoch(partition, by_epoch),
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
    match probe::ask(&desk.keys, udp, id, PROBE_FOR_OTHERS).await {
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
