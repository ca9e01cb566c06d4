//! Clients that read meanwhile: files of segments from all workers, and lists through the gateway.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::{SegmentId, VersionVector};
use model::Dataset;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use segments::Digest;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::judgement::{Files, Latencies};
use crate::{
    instruments::segment_files::{Fetched, Oracle, fetch},
    stack::control_plane::ControlPlane,
};

/// Between two files of a reader.
const PAUSE: Duration = Duration::from_millis(20);
/// Also bounds the reads in flight.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What the workers sent.
#[derive(Debug, Default)]
pub struct SentFiles {
    /// How often each content was sent as this version.
    sent: BTreeMap<(SegmentId, [u64; 16], Digest), u64>,
    refused: u64,
    gone: u64,
    bytes: u64,
}

pub struct FileReaders {
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<SentFiles>>,
}

impl FileReaders {
    pub fn start(readers: usize, plane: &ControlPlane, seed: u64) -> Self {
        let addresses: Vec<String> = plane.workers.iter().map(|worker| worker.for_clients.clone()).collect();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        for reader in 0..readers as u64 {
            let (stop, addresses) = (stop.clone(), addresses.clone());
            tasks.spawn(read_files(addresses, StdRng::seed_from_u64(seed ^ reader), stop));
        }
        Self { stop, tasks }
    }

    /// # Errors
    /// A worker gave an answer that the contract does not have.
    pub async fn finish(mut self) -> anyhow::Result<SentFiles> {
        self.stop.cancel();
        let mut all = SentFiles::default();
        while let Some(of_one) = self.tasks.join_next().await {
            let of_one = of_one??;
            of_one.sent.into_iter().for_each(|(key, count)| *all.sent.entry(key).or_default() += count);
            (all.refused, all.gone) = (all.refused + of_one.refused, all.gone + of_one.gone);
            all.bytes += of_one.bytes;
        }
        Ok(all)
    }
}

async fn read_files(
    addresses: Vec<String>,
    mut random: StdRng,
    stop: CancellationToken,
) -> anyhow::Result<SentFiles> {
    let http = runtime::http::plain().timeout(TIMEOUT).build()?;
    let mut files = SentFiles::default();
    while !stop.is_cancelled() {
        let address = &addresses[random.random_range(0..addresses.len())];
        let Some(segment) = SegmentId::new(random.random_range(0..contract::SEGMENTS)) else { continue };
        match fetch(&http, address, segment).await? {
            Fetched::Whole(sent) => {
                files.bytes += sent.bytes;
                *files.sent.entry((segment, *sent.version.vector.positions(), sent.content)).or_default() += 1;
            }
            Fetched::Refused => files.refused += 1,
            Fetched::Gone => files.gone += 1,
        }
        sleep(PAUSE).await;
    }
    Ok(files)
}

impl SentFiles {
    /// Compares each content with the fold of the logs at its version.
    ///
    /// # Errors
    /// A version is not in the logs.
    pub fn judge(&self, oracle: &mut Oracle) -> anyhow::Result<Files> {
        let mut files =
            Files { refused: self.refused, gone: self.gone, megabytes: self.bytes as f64 / 1e6, ..Files::default() };
        // Versions of one primary follow each other, so that its fold goes on.
        let mut versions: Vec<_> = self.sent.iter().collect();
        versions.sort_by_key(|((_, positions, _), _)| positions.iter().sum::<u64>());
        let mut vectors = std::collections::BTreeSet::new();
        for ((segment, positions, content), count) in versions {
            let is_right = oracle.content(*segment, &VersionVector::new(*positions))? == *content;
            (files.compared, files.wrong) = (files.compared + count, files.wrong + if is_right { 0 } else { *count });
            vectors.insert((*segment, *positions));
        }
        files.versions = vectors.len() as u64;
        Ok(files)
    }
}

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
                tick.tick().await;
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
        };
        let task = tokio::spawn(async move { until.run_until_cancelled(sending).await.unwrap_or_default() });
        Ok(Self { stop, task, reads })
    }

    /// Also returns the latencies of the reads that were sent during the work.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> (T, Latencies) {
        let began = Instant::now();
        let done = work.await;
        let ended = Instant::now();
        // The reads in flight.
        sleep(TIMEOUT / 2).await;
        (done, self.latencies(|read| read.sent >= began && read.sent < ended))
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
