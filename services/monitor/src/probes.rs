//! Step 4 of a heartbeat's path: probes over three paths at a time: UDP, HTTP on a fresh connection, and another worker. One answer refutes the suspicion.

use std::{sync::Arc, time::Duration};

use heartbeat::{assign::NodeId, auth::Keys, registry::Registration, transport::probe};
use prometheus::{IntCounter, IntCounterVec};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::input::Input;

/// Maximum number of probe rounds in flight. Further rounds count as unanswered.
const MAX_ROUNDS: usize = 1_024;

/// A worker's answer to `GET /probe`, about itself or about the worker it probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    pub id: String,
    pub incarnation: u64,
}

pub struct Probes {
    keys: Keys,
    /// Reuses no connections: an old one may work where a new one does not.
    http: reqwest::Client,
    wait: Duration,
    room: Arc<Semaphore>,
    inbox: mpsc::Sender<Input>,
    tasks: TaskTracker,
    outcomes: Outcomes,
}

#[derive(Clone)]
struct Outcomes {
    /// UDP, HTTP, another worker: answered, unanswered.
    paths: [[IntCounter; 2]; 3],
    dropped: IntCounter,
}

impl Probes {
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(
        keys: Keys,
        wait: Duration,
        inbox: mpsc::Sender<Input>,
        tasks: TaskTracker,
        probes: &IntCounterVec,
    ) -> anyhow::Result<Self> {
        let http = runtime::http::plain().pool_max_idle_per_host(0).timeout(wait).build()?;
        let of = |path: &str| ["answered", "unanswered"].map(|outcome| probes.with_label_values(&[path, outcome]));
        let outcomes = Outcomes {
            paths: ["udp", "http", "worker"].map(of),
            dropped: probes.with_label_values(&["any", "dropped"]),
        };
        Ok(Self { keys, http, wait, room: Arc::new(Semaphore::new(MAX_ROUNDS)), inbox, tasks, outcomes })
    }

    /// Sends a round of probes; answers go to the queue. `via`: another, healthy worker.
    pub fn send(&self, node: &Registration, via: Option<&Registration>, round: u64) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            self.outcomes.dropped.inc();
            return;
        };
        let (keys, wait, udp, id) = (self.keys.clone(), self.wait, node.udp.clone(), node.id.clone());
        let over_udp = async move { probe::ask(&keys, &udp, &id, wait).await };
        let over_http = ask(self.http.get(format!("http://{}/probe", node.http)), node.id.clone());
        let query = [("id", &*node.id), ("udp", &node.udp)];
        let request = via.map(|via| self.http.get(format!("http://{}/probe", via.http)).query(&query));
        let over_worker = request.map(|request| ask(request, node.id.clone()));
        let round = Round { node: node.id.clone(), number: round, inbox: self.inbox.clone() };
        let paths = self.outcomes.paths.clone();
        self.tasks.spawn(async move {
            let [by_udp, by_http, by_worker] = &paths;
            tokio::join!(round.hear(over_udp, by_udp), round.hear(over_http, by_http), async {
                if let Some(over_worker) = over_worker {
                    round.hear(over_worker, by_worker).await;
                }
            });
            drop(permit);
        });
    }
}

struct Round {
    node: NodeId,
    number: u64,
    inbox: mpsc::Sender<Input>,
}

impl Round {
    async fn hear(&self, path: impl Future<Output = Option<u64>>, outcomes: &[IntCounter; 2]) {
        let answer = path.await;
        outcomes[usize::from(answer.is_none())].inc();
        if let Some(incarnation) = answer {
            let answer = Input::Answer { node: self.node.clone(), incarnation, round: self.number };
            // An error means that the control loop has ended: the process stops.
            self.inbox.send(answer).await.ok();
        }
    }
}

async fn ask(request: reqwest::RequestBuilder, node: NodeId) -> Option<u64> {
    let answer = request.send().await.ok()?.error_for_status().ok()?;
    let found: ProbeAnswer = answer.json().await.ok()?;
    // Another worker may have taken the address.
    (*found.id == *node).then_some(found.incarnation)
}
