//! Step 4 of a heartbeat's path: probes over three paths at a time: UDP, HTTP on a fresh connection, and another worker. One answer refutes the suspicion.
//! Question and answer are authenticated on every path.

use std::{sync::Arc, time::Duration};

use heartbeat::{
    assign::NodeId,
    auth::Keys,
    message::Alive,
    registry::Registration,
    transport::{
        http::AUTHENTICATED,
        probe::{self, Question},
    },
};
use prometheus::{IntCounter, IntCounterVec};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::input::Input;

/// Maximum number of probe rounds in flight. Further rounds count as unanswered.
const MAX_ROUNDS: usize = 1_024;
/// Maximum number of workers that are asked for a proof of life at a time. The others are asked with a later heartbeat.
const MAX_PROOFS: usize = 1_024;

pub struct Probes {
    keys: Keys,
    /// Reuses no connections: an old one may work where a new one does not.
    http: reqwest::Client,
    wait: Duration,
    rounds: Arc<Semaphore>,
    proofs: Arc<Semaphore>,
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
        let [rounds, proofs] = [MAX_ROUNDS, MAX_PROOFS].map(|room| Arc::new(Semaphore::new(room)));
        Ok(Self { keys, http, wait, rounds, proofs, inbox, tasks, outcomes })
    }

    /// Sends a round of probes; answers go to the queue. `via`: another, healthy worker.
    pub fn send(&self, node: &Registration, via: Option<&Registration>, round: u64) {
        let Ok(permit) = Arc::clone(&self.rounds).try_acquire_owned() else {
            self.outcomes.dropped.inc();
            return;
        };
        let (probe, round) = (self.probe(node, via), self.round(node, round));
        let paths = self.outcomes.paths.clone();
        self.tasks.spawn(async move {
            let [by_udp, by_http, by_worker] = &paths;
            tokio::join!(round.hear(probe.over_udp(), by_udp), round.hear(probe.over_http(), by_http), async {
                if let Some(via) = &probe.via {
                    round.hear(probe.over_worker(via), by_worker).await;
                }
            });
            drop(permit);
        });
    }

    /// Asks a worker whose heartbeats may be recorded ones. One path after the other: most workers answer on the first.
    pub fn prove(&self, node: &Registration, via: Option<&Registration>, round: u64) {
        let Ok(permit) = Arc::clone(&self.proofs).try_acquire_owned() else { return };
        let (probe, round) = (self.probe(node, via), self.round(node, round));
        self.tasks.spawn(async move {
            let mut answer = probe.over_udp().await;
            if answer.is_none() {
                answer = probe.over_http().await;
            }
            if let (None, Some(via)) = (answer, &probe.via) {
                answer = probe.over_worker(via).await;
            }
            round.report(answer).await;
            drop(permit);
        });
    }

    fn probe(&self, node: &Registration, via: Option<&Registration>) -> Probe {
        Probe {
            question: Question::new(&self.keys, &node.id),
            keys: self.keys.clone(),
            http: self.http.clone(),
            wait: self.wait,
            node: node.clone(),
            via: via.map(|via| via.http.clone()),
        }
    }

    fn round(&self, node: &Registration, number: u64) -> Round {
        Round { node: node.id.clone(), number, inbox: self.inbox.clone() }
    }
}

/// One question, which each path carries.
struct Probe {
    question: Question,
    keys: Keys,
    http: reqwest::Client,
    wait: Duration,
    node: Registration,
    /// `host:port` of the worker that passes the question on.
    via: Option<String>,
}

impl Probe {
    async fn over_udp(&self) -> Option<Alive> {
        let answer = self.question.ask(&self.keys, &self.node.udp, self.wait).await?;
        self.question.alive(&self.keys, &answer)
    }

    async fn over_http(&self) -> Option<Alive> {
        self.post(self.http.post(format!("http://{}/probe", self.node.http))).await
    }

    async fn over_worker(&self, via: &str) -> Option<Alive> {
        self.post(self.http.post(format!("http://{via}/probe")).query(&[("udp", &self.node.udp)])).await
    }

    async fn post(&self, request: reqwest::RequestBuilder) -> Option<Alive> {
        let request = request.header("content-type", AUTHENTICATED).body(self.question.frame().to_vec());
        let response = request.send().await.ok()?.error_for_status().ok()?;
        let answer = runtime::http::body_within(response, probe::MAX_BYTES).await.ok()?;
        self.question.alive(&self.keys, &answer)
    }
}

struct Round {
    node: NodeId,
    number: u64,
    inbox: mpsc::Sender<Input>,
}

impl Round {
    async fn hear(&self, path: impl Future<Output = Option<Alive>>, outcomes: &[IntCounter; 2]) {
        let answer = path.await;
        outcomes[usize::from(answer.is_none())].inc();
        self.report(answer).await;
    }

    async fn report(&self, answer: Option<Alive>) {
        if let Some(alive) = answer {
            let answer = Input::Answer { node: self.node.clone(), alive, round: self.number };
            // An error means that the control loop has ended: the process stops.
            self.inbox.send(answer).await.ok();
        }
    }
}
