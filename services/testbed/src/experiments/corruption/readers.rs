//! Clients that read lists through the gateway meanwhile.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::Dataset;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::judgement::Latencies;

/// Also bounds the reads in flight.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Reads lists at a fixed rate, whether earlier reads are answered or not.
pub struct ListReaders {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    reads: Arc<Mutex<Vec<Read>>>,
}

/// A list that was read.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    pub sent: Instant,
    pub ms: f64,
    pub is_answered: bool,
}

impl ListReaders {
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn start(gateway: &str, dataset: &Dataset, per_second: u32) -> anyhow::Result<Self> {
        let http = runtime::http::plain().timeout(TIMEOUT).build()?;
        let users: Vec<String> =
            dataset.users.iter().map(|id| format!("{gateway}/recommendations?user_id={}", id.as_str())).collect();
        let (stop, reads) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let (until, into) = (stop.clone(), Arc::clone(&reads));
        let sending = async move {
            let mut tick = interval(Duration::from_secs(1) / per_second);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut in_flight = JoinSet::new();
            for url in users.into_iter().cycle() {
                if until.run_until_cancelled(tick.tick()).await.is_none() {
                    break;
                }
                let (http, reads) = (http.clone(), Arc::clone(&into));
                in_flight.spawn(async move {
                    let sent = Instant::now();
                    let answer = async { http.get(url).send().await?.error_for_status()?.bytes().await };
                    let is_answered = answer.await.is_ok();
                    let read = Read { sent, ms: sent.elapsed().as_secs_f64() * 1e3, is_answered };
                    lock(&reads).push(read);
                });
                while in_flight.try_join_next().is_some() {}
            }
            in_flight.join_all().await;
        };
        let task = tokio::spawn(sending);
        Ok(Self { stop, task, reads })
    }

    /// Also returns the reads that were sent during the work.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> (T, Vec<Read>) {
        let began = Instant::now();
        let done = work.await;
        let ended = Instant::now();
        // The reads in flight.
        sleep(TIMEOUT).await;
        let is_during = |read: &&Read| read.sent >= began && read.sent < ended;
        (done, lock(&self.reads).iter().filter(is_during).copied().collect())
    }

    pub fn latencies(&self, of: impl Fn(&Read) -> bool) -> Latencies {
        Latencies::of(lock(&self.reads).iter().filter(|read| of(read)).map(|read| (read.ms, read.is_answered)))
    }

    /// All reads, and those without an answer.
    ///
    /// # Errors
    /// The readers crashed.
    pub async fn finish(self) -> anyhow::Result<(u64, u64)> {
        self.stop.cancel();
        self.task.await?;
        let reads = lock(&self.reads);
        let failed = reads.iter().filter(|read| !read.is_answered).count();
        Ok((reads.len() as u64, failed as u64))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A push is a single step: no other task sees half of one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
