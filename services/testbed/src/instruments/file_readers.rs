//! Clients that read files of segments again and again, and the comparison of what they got with the fold of the logs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::{SEGMENTS, SegmentId, VersionVector};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use segments::Digest;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::segment_files::{Fetched, Oracle, fetch};

/// Between two files of a reader.
const PAUSE: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Default, Serialize)]
pub struct Files {
    /// Files that workers sent whole, each compared with the fold.
    pub compared: u64,
    pub wrong: u64,
    /// Different versions of segments among them.
    pub versions: u64,
    /// The worker refused to send a damaged block, or has no version.
    pub refused: u64,
    /// Another version took the place of this one while it was read, or the worker was dead.
    pub gone: u64,
    pub megabytes: f64,
}

/// What the workers sent.
#[derive(Debug, Default)]
pub struct SentFiles {
    /// How often each content was sent as this version.
    sent: BTreeMap<(SegmentId, [u64; 16], Digest), u64>,
    refused: u64,
    gone: u64,
    bytes: u64,
}

/// Clients that read random segments from random workers until `finish`.
pub struct FileReaders {
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    files: Arc<Mutex<SentFiles>>,
}

impl FileReaders {
    /// `addresses`: of the workers, `host:port`.
    pub fn start(readers: usize, addresses: &[String], seed: u64) -> Self {
        let (stop, mut tasks, files) = (CancellationToken::new(), JoinSet::new(), Arc::<Mutex<SentFiles>>::default());
        for reader in 0..readers as u64 {
            let (stop, addresses, files) = (stop.clone(), addresses.to_vec(), Arc::clone(&files));
            tasks.spawn(read_files(addresses, StdRng::seed_from_u64(seed ^ reader), stop, files));
        }
        Self { stop, tasks, files }
    }

    /// Waits until files of this many versions were read, or for this long.
    pub async fn wait_versions(&self, versions: usize, longest: Duration) {
        let enough = async {
            while lock(&self.files).versions().count() < versions {
                sleep(PAUSE).await;
            }
        };
        // Whether there are enough is judged later.
        _ = timeout(longest, enough).await;
    }

    /// # Errors
    /// A worker gave an answer that the contract does not have.
    pub async fn finish(mut self) -> anyhow::Result<SentFiles> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(std::mem::take(&mut lock(&self.files)))
    }
}

async fn read_files(
    addresses: Vec<String>,
    mut random: StdRng,
    stop: CancellationToken,
    files: Arc<Mutex<SentFiles>>,
) -> anyhow::Result<()> {
    let http = runtime::http::plain().timeout(TIMEOUT).build()?;
    while !stop.is_cancelled() {
        let address = &addresses[random.random_range(0..addresses.len())];
        let Some(segment) = SegmentId::new(random.random_range(0..SEGMENTS)) else { continue };
        let fetched = fetch(&http, address, segment).await?;
        lock(&files).add(segment, fetched);
        sleep(PAUSE).await;
    }
    Ok(())
}

fn lock(files: &Mutex<SentFiles>) -> MutexGuard<'_, SentFiles> {
    // Each file is added in one step.
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SentFiles {
    fn add(&mut self, segment: SegmentId, fetched: Fetched) {
        match fetched {
            Fetched::Whole(sent) => {
                self.bytes += sent.bytes;
                *self.sent.entry((segment, *sent.version.vector.positions(), sent.content)).or_default() += 1;
            }
            Fetched::Refused => self.refused += 1,
            Fetched::Gone => self.gone += 1,
        }
    }

    /// Different ones.
    fn versions(&self) -> impl Iterator<Item = (SegmentId, [u64; 16])> {
        let versions: BTreeSet<_> = self.sent.keys().map(|(segment, positions, _)| (*segment, *positions)).collect();
        versions.into_iter()
    }

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
        for ((segment, positions, content), count) in versions {
            let is_right = oracle.content(*segment, &VersionVector::new(*positions))? == *content;
            (files.compared, files.wrong) = (files.compared + count, files.wrong + if is_right { 0 } else { *count });
        }
        files.versions = self.versions().count() as u64;
        Ok(files)
    }
}
