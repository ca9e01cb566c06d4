//! Closed clients on a store, and what they completed within a window.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use contract::{SHARDS, ShardId};
use launcher::cpu;
use report::Validity;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::instruments::clock_watch::ClockWatch;

/// A failed client tries again after this time.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Operations that failed, at most: more make another load.
const MAX_FAILED: f64 = 0.01;

/// Who answered.
pub enum Answer {
    /// The server that has this shard.
    Store(ShardId),
    Redis,
}

/// Sends its next operation when the last one is over.
pub trait Client: Send + 'static {
    fn operate(&mut self) -> impl Future<Output = anyhow::Result<Answer>> + Send;
}

#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// From the start of the clients.
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What the clients completed, and who worked for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Window {
    pub seconds: f64,
    /// Operations of the servers, by shard.
    pub by_shard: Vec<u64>,
    /// Reads that Redis answered.
    pub from_redis: u64,
    pub failed: u64,
    /// CPU seconds of the MySQL servers in use.
    pub servers_cpu_s: f64,
    /// CPU seconds of this process: the clients, and the proxies if there are any.
    pub own_cpu_s: f64,
    pub validity: Validity,
}

#[derive(Default)]
struct Counts {
    by_shard: [AtomicU64; SHARDS as usize],
    from_redis: AtomicU64,
    failed: AtomicU64,
    first_error: Mutex<Option<String>>,
}

/// The counts, and the CPU seconds of the servers and of this process.
#[derive(Debug, Clone, PartialEq)]
struct Reading {
    by_shard: Vec<u64>,
    from_redis: u64,
    failed: u64,
    servers_cpu_s: f64,
    own_cpu_s: f64,
}

impl Counts {
    fn failed(&self, error: &anyhow::Error) {
        self.failed.fetch_add(1, Relaxed);
        let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| format!("{error:#}"));
    }

    fn read(&self, servers: &[u32]) -> Reading {
        let cpu_s = |pid: &u32| cpu::process_seconds(*pid).unwrap_or(0.0);
        Reading {
            by_shard: self.by_shard.iter().map(|count| count.load(Relaxed)).collect(),
            from_redis: self.from_redis.load(Relaxed),
            failed: self.failed.load(Relaxed),
            servers_cpu_s: servers.iter().map(cpu_s).sum(),
            own_cpu_s: cpu_s(&std::process::id()),
        }
    }
}

/// Lets the clients work, and ends them after the window. `servers`: pids of the MySQL servers in use.
///
/// # Errors
/// As `ClockWatch::start`.
pub async fn measure<C: Client>(clients: Vec<C>, servers: &[u32], length: Length) -> anyhow::Result<Window> {
    let counts = Arc::new(Counts::default());
    let mut running = JoinSet::new();
    for client in clients {
        running.spawn(work(client, Arc::clone(&counts)));
    }
    sleep(length.warm_up).await;
    let watch = ClockWatch::start()?;
    let (since, before) = (Instant::now(), counts.read(servers));
    sleep(length.measured).await;
    let (seconds, after) = (since.elapsed().as_secs_f64(), counts.read(servers));
    let validity = watch.finish();
    running.shutdown().await;
    let first_error = counts.first_error.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(Window::between(&before, &after, seconds, validity, first_error.as_deref()))
}

async fn work(mut client: impl Client, counts: Arc<Counts>) {
    loop {
        match client.operate().await {
            Ok(Answer::Store(shard)) => counts.by_shard[shard.index()].fetch_add(1, Relaxed),
            Ok(Answer::Redis) => counts.from_redis.fetch_add(1, Relaxed),
            Err(error) => {
                counts.failed(&error);
                sleep(AFTER_FAILURE).await;
                continue;
            }
        };
    }
}

impl Window {
    fn between(
        before: &Reading,
        after: &Reading,
        seconds: f64,
        mut validity: Validity,
        first_error: Option<&str>,
    ) -> Self {
        let mut window = Self {
            seconds,
            by_shard: after.by_shard.iter().zip(&before.by_shard).map(|(after, before)| after - before).collect(),
            from_redis: after.from_redis - before.from_redis,
            failed: after.failed - before.failed,
            servers_cpu_s: after.servers_cpu_s - before.servers_cpu_s,
            own_cpu_s: after.own_cpu_s - before.own_cpu_s,
            ..Self::default()
        };
        let (completed, failed) = (window.completed(), window.failed);
        if failed as f64 > MAX_FAILED * (completed + failed) as f64 {
            let first = first_error.unwrap_or("unknown");
            validity.reasons.push(format!("{failed} of {} operations failed, the first: {first}", completed + failed));
        }
        if window.by_servers() == 0 {
            validity.reasons.push("the servers completed no operation".into());
        }
        window.validity = validity;
        window
    }

    fn by_servers(&self) -> u64 {
        self.by_shard.iter().sum()
    }

    fn completed(&self) -> u64 {
        self.by_servers() + self.from_redis
    }

    /// Operations of the servers per second.
    pub fn per_s(&self) -> f64 {
        self.by_servers() as f64 / self.seconds
    }

    /// Per second, with those that Redis answered.
    pub fn completed_per_s(&self) -> f64 {
        self.completed() as f64 / self.seconds
    }

    /// CPU time of the servers in use for an operation, in microseconds.
    pub fn server_us(&self) -> f64 {
        1e6 * self.servers_cpu_s / self.by_servers() as f64
    }

    /// CPU time of this process for an operation, in microseconds.
    pub fn own_us(&self) -> f64 {
        1e6 * self.own_cpu_s / self.completed() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers after 10 ms; every fourth time from Redis, and every fifth time not at all.
    struct Fake {
        operations: u32,
        fails: bool,
    }

    impl Client for Fake {
        async fn operate(&mut self) -> anyhow::Result<Answer> {
            sleep(Duration::from_millis(10)).await;
            self.operations += 1;
            anyhow::ensure!(!self.fails || !self.operations.is_multiple_of(5), "no answer {}", self.operations);
            Ok(if self.operations.is_multiple_of(4) {
                Answer::Redis
            } else {
                Answer::Store(contract::shard_of("someone"))
            })
        }
    }

    async fn window(clients: usize, fails: bool) -> Window {
        let clients = (0..clients).map(|_| Fake { operations: 0, fails }).collect();
        let length = Length { warm_up: Duration::from_secs(1), measured: Duration::from_secs(2) };
        measure(clients, &[std::process::id()], length).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn operations_within_the_window_are_counted_by_shard() {
        let window = window(3, false).await;
        assert_eq!(window.seconds, 2.0);
        // 100 a second of each client, of which a quarter is Redis'. Those at the ends may count or not.
        assert!((window.per_s() - 225.0).abs() <= 3.0 && (window.completed_per_s() - 300.0).abs() <= 3.0, "{window:?}");
        let shard = contract::shard_of("someone").index();
        assert_eq!(window.by_shard[shard], window.by_servers(), "{window:?}");
        assert_eq!(window.failed, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_silence_make_a_window_invalid_and_the_first_error_is_named() {
        let reasons = window(1, true).await.validity.reasons.join("; ");
        assert!(reasons.contains("operations failed, the first: no answer 5"), "{reasons}");
        let reasons = window(0, false).await.validity.reasons.join("; ");
        assert!(reasons.contains("completed no operation"), "{reasons}");
    }
}
