//! Clients around a switch-over: one follows the monitors, some ask workers, and some write all the time.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use contract::http::{Counted, Problem, problem};
use heartbeat::{
    assign::{NodeId, PARTITIONS, Table},
    transport::assignments::Assignments,
};
use rand::RngExt as _;
use reqwest::{StatusCode, header, redirect::Policy};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{WORKERS, recorder::Recorder};
use crate::stack::control_plane::ControlPlane;

/// A running worker answers in a few milliseconds; a stopped one never does.
const ANSWER: Duration = Duration::from_millis(50);
/// Timeout of measuring clients: they retry soon if the worker is dead. A living one may need longer on a busy machine. There, retries would
/// only queue up for the partition's row in the store.
const ANSWER_OF_DEAD: Duration = Duration::from_millis(25);
const ANSWER_OF_LIVING: Duration = Duration::from_secs(2);
/// Between two tries of a measuring client: the resolution of the instants.
const AGAIN: Duration = Duration::from_millis(2);
const COME_BACK: Duration = Duration::from_secs(60);
const WRITERS: usize = 8;
/// Between two writes of one writer: about 500 writes a second in all.
const PAUSE: Duration = Duration::from_millis(15);
const HOPS: usize = 3;
/// With three workers that share the 16 partitions evenly, each has at least this many.
const LEAST_PRIMARIES: usize = 5;

/// A client whose writes are recorded.
#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    /// In the record.
    number: u32,
    recorder: Arc<Recorder>,
}

/// The latest table of any monitor, by long polls.
pub struct Monitors {
    latest: watch::Receiver<Arc<Assignments>>,
    /// Nodes that went offline since the last call of `take_offline`.
    offline: Arc<Mutex<BTreeSet<NodeId>>>,
    asking: Client,
    _pollers: JoinSet<()>,
}

impl Monitors {
    pub fn follow(control_plane: &ControlPlane, recorder: &Arc<Recorder>, interval: Duration) -> anyhow::Result<Self> {
        let (newest, latest) = watch::channel(Arc::<Assignments>::default());
        let offline = Arc::<Mutex<BTreeSet<NodeId>>>::default();
        let http = runtime::http::plain().timeout(Duration::from_secs(12)).build()?;
        let mut pollers = JoinSet::new();
        for monitor in &control_plane.monitors {
            let (url, newest, http) = (format!("http://{}/partitions", monitor.http), newest.clone(), http.clone());
            let (offline, recorder) = (Arc::clone(&offline), Arc::clone(recorder));
            pollers.spawn(async move {
                loop {
                    let known = newest.borrow().table.epoch;
                    match poll(&http, &url, known).await {
                        Ok(seen) => {
                            recorder.table(&seen.table);
                            note(&newest, &offline, seen);
                        }
                        Err(_) => sleep(interval).await,
                    }
                }
            });
        }
        Ok(Self { latest, offline, asking: Client::new(recorder, ANSWER_OF_LIVING)?, _pollers: pollers })
    }

    pub fn latest(&self) -> Arc<Assignments> {
        Arc::clone(&self.latest.borrow())
    }

    /// # Errors
    /// The pollers have ended.
    pub async fn wait_for(&self, condition: impl Fn(&Assignments) -> bool) -> anyhow::Result<Arc<Assignments>> {
        let mut latest = self.latest.clone();
        let seen = latest.wait_for(|seen| condition(seen)).await.context("the pollers of the monitors have ended")?;
        Ok(Arc::clone(&seen))
    }

    /// # Errors
    /// The condition is not met within a minute.
    pub async fn until(&self, what: &str, condition: impl Fn(&Assignments) -> bool) -> anyhow::Result<()> {
        let reached = tokio::time::timeout(COME_BACK, self.wait_for(condition)).await;
        reached.with_context(|| format!("not within {COME_BACK:?}: {what}"))?.map(drop)
    }

    /// Asks the worker at this address for work on the partition, and follows redirects, until it is done. `dead`: the address of the worker
    /// that was killed or stopped.
    pub async fn counting(&self, partition: usize, address: &str, dead: &str) -> Counted {
        loop {
            if let Answer::Done(counted) = self.asking.write(partition, address, Some(dead)).await {
                return counted;
            }
            sleep(AGAIN).await;
        }
    }

    /// How many other workers went offline since the last call.
    pub fn others_offline(&self, worker: &NodeId) -> usize {
        self.take_offline().iter().filter(|node| *node != worker).count()
    }

    /// How many workers went offline since the last call.
    pub fn offline(&self) -> usize {
        self.take_offline().len()
    }

    fn take_offline(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut *self.offline.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether all workers are online and share the partitions evenly.
pub fn is_level(seen: &Assignments) -> bool {
    let table = &seen.table;
    let primaries = |node: &NodeId| table.partitions.iter().filter(|a| a.primary.as_ref() == Some(node)).count();
    let online: Vec<&NodeId> = table.nodes.iter().filter(|(_, standing)| standing.online).map(|(id, _)| id).collect();
    online.len() == WORKERS && online.iter().all(|node| primaries(node) >= LEAST_PRIMARIES)
}

/// The partitions of which the worker is the primary.
pub fn of_primary(table: &Table, worker: &NodeId) -> Vec<usize> {
    let is_primary = |n: &usize| table.partitions[*n].primary.as_ref() == Some(worker);
    (0..table.partitions.len()).filter(is_primary).collect()
}

fn note(newest: &watch::Sender<Arc<Assignments>>, offline: &Mutex<BTreeSet<NodeId>>, seen: Arc<Assignments>) {
    newest.send_if_modified(|known| {
        if seen.table.epoch <= known.table.epoch {
            return false;
        }
        let gone = seen.table.nodes.iter().filter(|(node, standing)| !standing.online && known.table.is_online(node));
        offline.lock().unwrap_or_else(PoisonError::into_inner).extend(gone.map(|(node, _)| node.clone()));
        *known = seen;
        true
    });
}

async fn poll(http: &reqwest::Client, url: &str, epoch: u64) -> reqwest::Result<Arc<Assignments>> {
    let poll = http.get(url).query(&[("epoch", epoch), ("wait_ms", 10_000)]);
    poll.send().await?.error_for_status()?.json().await
}

enum Answer {
    Done(Counted),
    /// An epoch that is over.
    OldEpoch,
    /// The write had no effect.
    NotWritten,
    /// The write may have had an effect.
    Unknown,
}

impl Client {
    fn new(recorder: &Arc<Recorder>, timeout: Duration) -> anyhow::Result<Self> {
        // `request` follows redirects.
        let http = runtime::http::plain().redirect(Policy::none()).timeout(timeout).build()?;
        Ok(Self { http, number: recorder.client(), recorder: Arc::clone(recorder) })
    }

    async fn write(&self, partition: usize, address: &str, dead: Option<&str>) -> Answer {
        let write = self.recorder.begin(self.number, partition);
        let answer = self.request(partition, address, dead).await;
        match &answer {
            Answer::Done(counted) => write.acknowledged(counted),
            Answer::OldEpoch | Answer::NotWritten => write.refused(),
            Answer::Unknown => drop(write),
        }
        answer
    }

    async fn request(&self, partition: usize, address: &str, dead: Option<&str>) -> Answer {
        let url_at = |address: &str| format!("http://{address}/partitions/{partition}/count");
        let (mut url, dead) = (url_at(address), dead.map(url_at));
        for _ in 0..HOPS {
            let mut post = self.http.post(&url);
            if dead.as_ref() == Some(&url) {
                post = post.timeout(ANSWER_OF_DEAD);
            }
            let answer = match post.send().await {
                Ok(answer) => answer,
                Err(error) => return if error.is_connect() { Answer::NotWritten } else { Answer::Unknown },
            };
            match answer.status() {
                StatusCode::OK => return answer.json().await.map_or(Answer::Unknown, Answer::Done),
                StatusCode::CONFLICT => return Answer::OldEpoch,
                StatusCode::TEMPORARY_REDIRECT => {
                    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
                    let Some(location) = location else { return Answer::NotWritten };
                    url = location.to_owned();
                }
                _ => return answer.json().await.map_or(Answer::Unknown, |problem: Problem| not_done(&problem)),
            }
        }
        Answer::NotWritten
    }
}

/// A worker that does not serve the partition has not asked the store.
fn not_done(problem: &Problem) -> Answer {
    match problem.kind.as_str() {
        problem::NOT_THE_PRIMARY | problem::TAKING_OVER => Answer::NotWritten,
        _ => Answer::Unknown,
    }
}

/// Writers of all partitions, each write through a random worker.
pub struct Load {
    writers: JoinSet<()>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    refused: AtomicU64,
    stale: AtomicU64,
    /// The latest epoch that an answer named, by partition.
    epochs: [AtomicU64; PARTITIONS],
}

pub struct Written {
    pub done: u64,
    /// 409.
    pub refused: u64,
    /// Done under an earlier epoch than the client knew when it sent the write.
    pub stale: u64,
}

impl Load {
    pub fn start(control_plane: &ControlPlane, recorder: &Arc<Recorder>) -> anyhow::Result<Self> {
        let addresses: Vec<String> = control_plane.workers.iter().map(|worker| worker.http.clone()).collect();
        let counts = Arc::<Counts>::default();
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let (client, counts, addresses) = (Client::new(recorder, ANSWER)?, Arc::clone(&counts), addresses.clone());
            writers.spawn(async move {
                loop {
                    let (partition, worker) = {
                        let mut random = rand::rng();
                        (random.random_range(0..PARTITIONS), random.random_range(0..addresses.len()))
                    };
                    counts.write(&client, partition, &addresses[worker]).await;
                    sleep(PAUSE).await;
                }
            });
        }
        Ok(Self { writers, counts })
    }

    /// Writes so far.
    pub fn done(&self) -> u64 {
        self.counts.done.load(Relaxed)
    }

    pub async fn stop(mut self) -> Written {
        self.writers.shutdown().await;
        let Counts { done, refused, stale, .. } = &*self.counts;
        Written { done: done.load(Relaxed), refused: refused.load(Relaxed), stale: stale.load(Relaxed) }
    }
}

impl Counts {
    async fn write(&self, client: &Client, partition: usize, address: &str) {
        let known = self.epochs[partition].load(Relaxed);
        match client.write(partition, address, None).await {
            Answer::Done(counted) => {
                self.done.fetch_add(1, Relaxed);
                self.stale.fetch_add((counted.epoch < known).into(), Relaxed);
                self.epochs[partition].fetch_max(counted.epoch, Relaxed);
            }
            Answer::OldEpoch => _ = self.refused.fetch_add(1, Relaxed),
            Answer::NotWritten | Answer::Unknown => {}
        }
    }
}
