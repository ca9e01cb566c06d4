//! One client per partition, which writes all the time. It remembers the worker that served it last. After a failure it asks another
//! worker, and tells it which one it had no success with.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::http::{Problem, problem};
use heartbeat::assign::PARTITIONS;
use rand::RngExt as _;
use reqwest::{StatusCode, header, redirect::Policy};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::judgement::Write;
use crate::stack::control_plane::ControlPlane;

/// As long as a user waits for one write.
pub const TIMEOUT: Duration = Duration::from_millis(500);
/// Between the begins of two writes to a partition.
pub const PAUSE: Duration = Duration::from_millis(100);
/// Writes in flight to one partition: more than begin within the timeout.
const MAX_IN_FLIGHT: usize = 8;
const HOPS: usize = 3;
/// Request header: the worker that the client had no success with, for this partition.
const UNSERVED_BY: &str = "x-unserved-by";

pub struct Load {
    clients: JoinSet<()>,
    writes: Arc<Mutex<Vec<Write>>>,
    begun: Instant,
}

/// The workers, as clients reach them.
struct Workers {
    names: Vec<String>,
    addresses: Vec<String>,
    /// Index of a worker by the address in a redirect.
    advertised: BTreeMap<String, usize>,
}

/// What a client knows of its partition's worker.
#[derive(Debug, Default, Clone, Copy)]
struct Knowledge {
    /// Served the last write.
    server: Option<usize>,
    /// Served the last write not.
    accused: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Served,
    /// The worker did not serve the write, although it does not say that another one is the primary.
    Failed,
    /// The worker knows of no primary.
    NoPrimary,
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    workers: Arc<Workers>,
    knowledge: Arc<Mutex<Knowledge>>,
    partition: usize,
}

impl Load {
    /// # Errors
    /// No HTTP client can be built.
    pub fn start(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let members = &control_plane.workers;
        let workers = Arc::new(Workers {
            names: members.iter().map(|worker| worker.name.clone()).collect(),
            addresses: members.iter().map(|worker| worker.for_clients.clone()).collect(),
            advertised: members.iter().enumerate().map(|(n, worker)| (worker.advertised.clone(), n)).collect(),
        });
        // `Client::ask` follows redirects.
        let http = runtime::http::plain().redirect(Policy::none()).timeout(TIMEOUT).build()?;
        let (writes, begun) = (Arc::<Mutex<Vec<Write>>>::default(), Instant::now());
        let mut clients = JoinSet::new();
        for partition in 0..PARTITIONS {
            let (http, workers, writes) = (http.clone(), Arc::clone(&workers), Arc::clone(&writes));
            let client = Client { http, workers, knowledge: Arc::default(), partition };
            clients.spawn(client.write_all_the_time(writes, begun));
        }
        Ok(Self { clients, writes, begun })
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// All writes, by the time of their begin since `begun`.
    pub async fn stop(mut self) -> Vec<Write> {
        self.clients.shutdown().await;
        let mut writes = std::mem::take(&mut *lock(&self.writes));
        writes.sort_by_key(|write| write.at);
        writes
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single step: no other thread sees half of one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Begins a write at each tick, also while others are in flight: a slow worker does not slow down its users.
    async fn write_all_the_time(self, writes: Arc<Mutex<Vec<Write>>>, begun: Instant) {
        let mut in_flight = JoinSet::new();
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            while in_flight.try_join_next().is_some() {}
            if in_flight.len() < MAX_IN_FLIGHT {
                let (client, writes) = (self.clone(), Arc::clone(&writes));
                in_flight.spawn(async move {
                    let at = begun.elapsed();
                    let succeeded = client.write().await;
                    lock(&writes).push(Write { at, succeeded });
                });
            }
        }
    }

    async fn write(&self) -> bool {
        let Knowledge { server, accused } = *lock(&self.knowledge);
        let mut worker = server.unwrap_or_else(|| self.another_than(accused));
        let outcome = timeout(TIMEOUT, self.ask(&mut worker, accused)).await.unwrap_or(Outcome::Failed);
        let mut knowledge = lock(&self.knowledge);
        match outcome {
            Outcome::Served => *knowledge = Knowledge { server: Some(worker), accused: None },
            // Another write has found another worker meanwhile.
            _ if knowledge.server != server => {}
            Outcome::Failed => *knowledge = Knowledge { server: None, accused: Some(worker) },
            Outcome::NoPrimary => *knowledge = Knowledge { server: None, ..*knowledge },
        }
        outcome == Outcome::Served
    }

    /// Asks this worker and follows its redirects. Then `worker` is the one that decided the outcome.
    async fn ask(&self, worker: &mut usize, accused: Option<usize>) -> Outcome {
        for hop in 0..HOPS {
            let url = format!("http://{}/partitions/{}/count", self.workers.addresses[*worker], self.partition);
            let mut request = self.http.post(url);
            if let Some(accused) = accused.filter(|accused| hop == 0 && accused != worker) {
                request = request.header(UNSERVED_BY, &self.workers.names[accused]);
            }
            let Ok(answer) = request.send().await else { return Outcome::Failed };
            match answer.status() {
                StatusCode::OK => {
                    return if answer.bytes().await.is_ok() { Outcome::Served } else { Outcome::Failed };
                }
                StatusCode::TEMPORARY_REDIRECT => {
                    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
                    let Some(next) = location.and_then(|location| self.workers.at(location)) else {
                        return Outcome::Failed;
                    };
                    *worker = next;
                }
                StatusCode::SERVICE_UNAVAILABLE => {
                    let problem = answer.json::<Problem>().await;
                    let is_primary = problem.map_or(true, |problem| problem.kind != problem::NOT_THE_PRIMARY);
                    return if is_primary { Outcome::Failed } else { Outcome::NoPrimary };
                }
                _ => return Outcome::Failed,
            }
        }
        Outcome::Failed
    }

    fn another_than(&self, accused: Option<usize>) -> usize {
        let count = self.workers.addresses.len();
        match accused {
            Some(accused) => (accused + rand::rng().random_range(1..count)) % count,
            None => rand::rng().random_range(0..count),
        }
    }
}

impl Workers {
    /// The worker that a redirect names.
    fn at(&self, location: &str) -> Option<usize> {
        let (address, _) = location.strip_prefix("http://")?.split_once('/')?;
        self.advertised.get(address).copied()
    }
}
