//! Step 7 of a heartbeat's path: HTTP routes of a worker. A request for another worker's partition is redirected to its primary (307). A request under an old epoch is
//! refused (409).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use contract::{
    ShardId,
    http::{Counted, Problem, UNSERVED_BY, problem},
};
use heartbeat::{
    assign::NodeId,
    auth::Keys,
    ownership::Refusal,
    transport::{
        assignments::{self, Assignments},
        http::AUTHENTICATED,
        probe::{self, Question},
    },
};
use serde::Deserialize;
use stores::Store;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::{
    beats::{ResumeOutcome, ResumedBy, Senders},
    incarnation::Incarnation,
    metrics::Metrics,
    ownership::PartitionOwnership,
    report::Reporter,
};

/// Timeout of a probe for a monitor: within a probe round at 1 s heartbeats (350 ms). A monitor with shorter rounds disconnects earlier,
/// which also ends the probe.
const PROBE_FOR_OTHERS: Duration = Duration::from_millis(300);
/// Maximum number of such probes at a time: each sends a few datagrams to an address that the monitor chose.
pub const MAX_PROBES_FOR_OTHERS: usize = 256;
/// `host:port`.
const MAX_ADDRESS_BYTES: usize = 255;

#[derive(Clone)]
pub struct Handlers {
    pub me: NodeId,
    pub incarnation: Incarnation,
    pub keys: Keys,
    /// Limits probes of other workers.
    pub probe_slots: Arc<Semaphore>,
    pub ownership: PartitionOwnership,
    pub reporter: Reporter,
    /// Writes, which outlive clients that disconnect.
    pub tasks: TaskTracker,
    pub store: Store,
    pub latest: watch::Receiver<Arc<Assignments>>,
    pub senders: Senders,
    pub metrics: Metrics,
}

pub fn router(handlers: Handlers) -> Router {
    let latest = handlers.latest.clone();
    Router::new()
        .route("/partitions/{number}/count", post(count))
        .route("/probe", post(probed).layer(DefaultBodyLimit::max(probe::MAX_BYTES)))
        .route("/beats/resume", post(resume))
        .with_state(handlers)
        .merge(assignments::router(latest))
}

#[derive(Debug, Deserialize)]
struct CountQuery {
    /// The partition's epoch that the writer knows, if any.
    epoch: Option<u64>,
}

async fn count(
    State(handlers): State<Handlers>,
    Path(partition): Path<usize>,
    Query(query): Query<CountQuery>,
    headers: HeaderMap,
) -> Response {
    let Some(shard) = ShardId::all().nth(partition) else {
        return handlers.refuse(partition, Refusal::NoSuchPartition);
    };
    if let Some(names) = headers.get(UNSERVED_BY).and_then(|names| names.to_str().ok())
        && handlers.reporter.complain(names, partition)
    {
        let (reporter, store) = (handlers.reporter.clone(), handlers.store.clone());
        handlers.tasks.spawn(async move { reporter.compare(&store, shard).await });
    }
    let epoch = match handlers.ownership.admit(partition, query.epoch) {
        Ok(epoch) => epoch,
        Err(refusal) => return handlers.refuse(partition, refusal),
    };
    let (ownership, store) = (handlers.ownership.clone(), handlers.store.clone());
    let counted = handlers.tasks.spawn(async move {
        let count = store.count(shard, epoch, ownership.process());
        ownership.write(shard, epoch, count).await
    });
    let counted = counted.await;
    let error: &(dyn std::error::Error + Send + Sync) = match &counted {
        Ok(Ok(Ok(counter))) => {
            handlers.outcome("done");
            let worker = handlers.me.to_string();
            return Json(Counted { partition, epoch, counter: *counter, worker }).into_response();
        }
        Ok(Ok(Err(refused))) => return handlers.old_epoch(partition, refused.overruled_by().unwrap_or(epoch)),
        Ok(Err(error)) => error,
        Err(panicked) => panicked,
    };
    tracing::warn!(error = error as &dyn std::error::Error, partition, "cannot count");
    handlers.outcome("failed");
    answer(StatusCode::SERVICE_UNAVAILABLE, problem::STORE_UNAVAILABLE, "the store did not answer".into())
}

impl Handlers {
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
            Refusal::NotMine { primary, epoch } => self.redirect(partition, primary, epoch),
        }
    }

    fn redirect(&self, partition: usize, primary: Option<NodeId>, epoch: u64) -> Response {
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
        // Without the epoch: the primary knows the current one.
        let location = format!("http://{address}/partitions/{partition}/count");
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }

    fn old_epoch(&self, partition: usize, epoch: u64) -> Response {
        self.outcome("old_epoch");
        let detail = format!("partition {partition} is in epoch {epoch}: get the current owner from /partitions");
        answer(StatusCode::CONFLICT, problem::OLD_EPOCH, detail)
    }

    fn outcome(&self, outcome: &str) {
        self.metrics.requests.with_label_values(&[outcome]).inc();
    }
}

#[derive(Debug, Deserialize)]
struct ProbeQuery {
    /// `host:port` of another worker that the monitor cannot reach: this worker passes question and answer on.
    udp: Option<String>,
}

/// A monitor's question: see `heartbeat::transport::probe`.
async fn probed(State(handlers): State<Handlers>, Query(query): Query<ProbeQuery>, question: Bytes) -> Response {
    let Some(question) = Question::read(&handlers.keys, &question) else {
        let detail = "a probe needs a MAC with the key of all monitors and workers (node.key)";
        return answer(StatusCode::UNAUTHORIZED, problem::INVALID_REQUEST, detail.into());
    };
    match query.udp {
        Some(udp) => probe_for_others(&handlers.keys, &handlers.probe_slots, &question, &udp).await,
        None if question.node() == &*handlers.me => {
            sealed(question.answer(&handlers.keys, handlers.incarnation.current()))
        }
        None => answer(StatusCode::NOT_FOUND, problem::NOT_FOUND, format!("this worker is {}", handlers.me)),
    }
}

async fn probe_for_others(keys: &Keys, room: &Semaphore, question: &Question, udp: &str) -> Response {
    if udp.len() > MAX_ADDRESS_BYTES || !udp.contains(':') {
        return answer(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, "udp must be host:port".into());
    }
    let Ok(_permit) = room.try_acquire() else {
        return answer(
            StatusCode::SERVICE_UNAVAILABLE,
            problem::OVERLOADED,
            "this worker is at its limit of concurrent probes; try again later".into(),
        );
    };
    match question.ask(keys, udp, PROBE_FOR_OTHERS).await {
        Some(found) => sealed(found),
        None => {
            let detail = format!("{} did not answer", question.node());
            answer(StatusCode::GATEWAY_TIMEOUT, problem::DEADLINE_EXCEEDED, detail)
        }
    }
}

fn sealed(frame: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, AUTHENTICATED)], frame).into_response()
}

/// `testbed fault resume`
async fn resume(State(handlers): State<Handlers>) -> Json<BTreeMap<String, ResumeOutcome>> {
    Json(handlers.senders.resume_all(ResumedBy::Operator))
}

/// A problem document. With 503 it has Retry-After.
pub fn answer(status: StatusCode, kind: &str, detail: String) -> Response {
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
    async fn probes_of_others_are_passed_on_and_limited() {
        let (keys, room) = (Keys::new(b"of this test"), Semaphore::new(1));
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = udp.local_addr().unwrap().to_string();
        let answering = keys.clone();
        tokio::spawn(async move { probe::answer(&udp, &answering, "w", || 7).await });
        let question = Question::new(&keys, "w");
        let passed_on = probe_for_others(&keys, &room, &question, &at).await;
        let found = axum::body::to_bytes(passed_on.into_body(), probe::MAX_BYTES).await.unwrap();
        assert_eq!(question.alive(&keys, &found).map(|alive| alive.incarnation), Some(7));
        let asked = async |id: &str, udp: &str| {
            probe_for_others(&keys, &room, &Question::new(&keys, id), udp).await.status().as_u16()
        };
        assert_eq!((asked("x", &at).await, asked("w", "here").await), (504, 400));
        let _taken = room.acquire().await.unwrap();
        let refused = probe_for_others(&keys, &room, &question, &at).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
    }
}
