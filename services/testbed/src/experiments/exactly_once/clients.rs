//! Clients that send all events, and send a batch again until it is acknowledged.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use contract::{
    SHARDS,
    http::{EventsAccepted, NewEvent},
};
use reqwest::StatusCode;
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::workload::{BATCH, Workload};

const CLIENTS: usize = 12;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries of a batch.
const AGAIN: Duration = Duration::from_millis(100);
/// A batch that nobody takes for this time ends the run.
const GIVE_UP: Duration = Duration::from_secs(180);
/// An acknowledged event that is sent twice comes again with this many batches of its client in between.
const BATCHES_BETWEEN: u64 = 3;

/// What the clients were told.
pub struct Ledger {
    begun: Instant,
    /// By partition.
    acknowledged: [Mutex<Vec<Acknowledged>>; SHARDS as usize],
    /// Offsets after the last acknowledged event, by partition.
    ends: [AtomicU64; SHARDS as usize],
    /// Events, each counted once.
    pub events: AtomicU64,
    pub requests: AtomicU64,
    /// Answers that were no acknowledgement, or none at all.
    pub failed: AtomicU64,
    /// Events of such requests, which were sent again.
    pub resent: AtomicU64,
    /// Events that were sent twice although they were acknowledged.
    pub repeated: AtomicU64,
    gap: Mutex<Gap>,
}

#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    pub offset: u64,
    /// Of the event.
    pub number: u64,
}

struct Gap {
    last: Instant,
    longest: Duration,
}

impl Ledger {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            acknowledged: std::array::from_fn(|_| Mutex::default()),
            ends: std::array::from_fn(|_| AtomicU64::new(0)),
            events: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            gap: Mutex::new(Gap { last: now, longest: Duration::ZERO }),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The longest time without an acknowledgement.
    pub fn longest_gap(&self) -> Duration {
        lock(&self.gap).longest
    }

    /// Offset after the last acknowledged event of the partition.
    pub fn end(&self, partition: usize) -> u64 {
        self.ends[partition].load(Relaxed)
    }

    /// All of the partition.
    pub fn of_partition(&self, partition: usize) -> Vec<Acknowledged> {
        lock(&self.acknowledged[partition]).clone()
    }

    /// `numbers`: of the events, in the order of the answer's positions.
    fn record(&self, numbers: &[u64], accepted: &EventsAccepted) -> anyhow::Result<()> {
        let positions = &accepted.positions;
        if accepted.accepted != numbers.len() || positions.len() != numbers.len() {
            bail!("{} events were sent, and the answer has {} positions", numbers.len(), positions.len());
        }
        for (position, &number) in positions.iter().zip(numbers) {
            let partition = usize::from(position.partition);
            let acknowledged = self.acknowledged.get(partition).context("the answer names a partition above 15")?;
            lock(acknowledged).push(Acknowledged { offset: position.offset, number });
            self.ends[partition].fetch_max(position.offset + 1, Relaxed);
        }
        let mut gap = lock(&self.gap);
        gap.longest = gap.longest.max(gap.last.elapsed());
        gap.last = Instant::now();
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single step: no other thread sees half of one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends all events at the planned rate. After an outage it does not send faster: the faults come by the progress of the clients.
///
/// # Errors
/// An answer that says that a batch is wrong, or no acknowledgement for three minutes.
pub async fn send_all(gateway: &str, workload: &Arc<Workload>, ledger: &Arc<Ledger>) -> anyhow::Result<()> {
    let http = runtime::http::plain().timeout(TIMEOUT).build()?;
    let next = Arc::new(Next { batch: AtomicU64::new(0), at: Mutex::new(tokio::time::Instant::now()) });
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = Client {
            http: http.clone(),
            url: format!("{gateway}/events"),
            workload: Arc::clone(workload),
            ledger: Arc::clone(ledger),
        };
        clients.spawn(client.run(Arc::clone(&next)));
    }
    while let Some(ended) = clients.join_next().await {
        ended.context("a client panicked")??;
    }
    Ok(())
}

/// The next batch, and when it may be sent.
struct Next {
    batch: AtomicU64,
    at: Mutex<tokio::time::Instant>,
}

impl Next {
    /// Waits for the turn of the next batch.
    async fn batch(&self, interval: Duration) -> u64 {
        let turn = {
            let mut at = lock(&self.at);
            let turn = (*at).max(tokio::time::Instant::now());
            *at = turn + interval;
            turn
        };
        sleep_until(turn).await;
        self.batch.fetch_add(1, Relaxed)
    }
}

struct Client {
    http: reqwest::Client,
    url: String,
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
}

impl Client {
    async fn run(self, next: Arc<Next>) -> anyhow::Result<()> {
        let interval = Duration::from_secs_f64(self.workload.planned_ms(BATCH) / 1e3);
        // Events to send again, by the batch from which on.
        let mut again = VecDeque::<(u64, u64)>::new();
        for sent in 0.. {
            let new = self.workload.batch(next.batch(interval).await);
            let is_over = new.is_empty();
            let mut numbers: Vec<u64> = new.clone().collect();
            while let Some((_, number)) = again.pop_front_if(|(from, _)| *from <= sent || is_over) {
                self.ledger.repeated.fetch_add(1, Relaxed);
                numbers.push(number);
            }
            if numbers.is_empty() {
                break;
            }
            self.send(&numbers).await?;
            self.ledger.events.fetch_add(new.end - new.start, Relaxed);
            again.extend(new.filter(|n| self.workload.is_repeated(*n)).map(|n| (sent + BATCHES_BETWEEN, n)));
        }
        Ok(())
    }

    /// Until it is acknowledged. Each event has a time, so that a batch sent again is the same events.
    async fn send(&self, numbers: &[u64]) -> anyhow::Result<()> {
        let body: Vec<NewEvent> = numbers.iter().map(|&number| self.body(number)).collect();
        let since = Instant::now();
        loop {
            self.ledger.requests.fetch_add(1, Relaxed);
            match self.http.post(&self.url).json(&body).send().await {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    if let Ok(accepted) = answer.json::<EventsAccepted>().await {
                        return self.ledger.record(numbers, &accepted);
                    }
                }
                Ok(answer) if answer.status().is_client_error() => {
                    bail!("the API refused a batch, {}: {}", answer.status(), answer.text().await.unwrap_or_default());
                }
                Ok(_) | Err(_) => {}
            }
            self.ledger.failed.fetch_add(1, Relaxed);
            self.ledger.resent.fetch_add(numbers.len() as u64, Relaxed);
            if since.elapsed() > GIVE_UP {
                bail!("no acknowledgement of a batch within {GIVE_UP:?}");
            }
            sleep(AGAIN).await;
        }
    }

    fn body(&self, number: u64) -> NewEvent {
        let event = self.workload.event(number);
        NewEvent {
            user_id: event.user_id.to_string(),
            item_id: event.item_id.to_string(),
            event: event.kind,
            timestamp: Some(event.at_ms as f64 / 1e3),
            weight: Some(event.weight.into()),
        }
    }
}
