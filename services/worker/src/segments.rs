//! The segments of the model that this worker holds, to be read from top to bottom. The steps have the same numbers in ARCHITECTURE.md, "A
//! segment, read downward".
//!
//! 1. Fold (`publish`): the primary of a segment reads the 16 logs of the store and folds them (`model::Fold`).
//! 2. Publish (`publish`): it writes a version's file and manifest.
//! 3. Report (`report`): which blocks this worker has, as they are on its disk (`scrub`), goes to all monitors.
//! 4. The leading monitor plans what to copy, fold again or remove.
//! 5. Carry out (`orders`, `transfer`): this worker fetches its orders, and blocks from other workers.
//! 6. Serve (`serve`): manifests and blocks over HTTP. Every block is verified first.

mod copies;
mod metrics;
mod orders;
mod pace;
mod publish;
mod report;
mod scrub;
mod serve;
mod transfer;

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use anyhow::Context;
use contract::{SEGMENTS, SegmentId};
use heartbeat::{assign::NodeId, auth::Keys, ownership::Phase, transport::assignments::Assignments};
use runtime::{background, telemetry::Telemetry};
use segments::SegmentDirectory;
use stores::Store;
use tokio::{
    sync::{Mutex, MutexGuard, SetOnce, watch},
    task::spawn_blocking,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{copies::Copies, pace::Pace};
pub use self::{metrics::SegmentMetrics, serve::router};
use crate::{
    config::{Monitor, SegmentsConfig},
    incarnation::Incarnation,
    ownership::PartitionOwnership,
};

/// Time for a request to another worker: 1 MiB at most.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What the tasks share. Cheap to clone.
#[derive(Clone)]
pub struct Segments(Arc<Shared>);

struct Shared {
    me: NodeId,
    directory: SegmentDirectory,
    config: SegmentsConfig,
    store: Store,
    ownership: PartitionOwnership,
    latest: watch::Receiver<Arc<Assignments>>,
    copies: Copies,
    /// One task at a time writes a segment.
    writing: [Mutex<()>; SEGMENTS as usize],
    /// One task at a time reads a copy for the reports: an earlier state must not replace a later one.
    reading: [Mutex<()>; SEGMENTS as usize],
    /// All copies have been read once.
    is_read: SetOnce<()>,
    /// One fold of all logs at a time, besides that of the publisher.
    rebuilding: Mutex<()>,
    /// Of all transfers together.
    pace: Pace,
    http: reqwest::Client,
    metrics: SegmentMetrics,
    telemetry: Telemetry,
}

/// What the rest of the worker gives to it.
pub struct Parts {
    pub me: NodeId,
    pub store: Store,
    pub ownership: PartitionOwnership,
    pub latest: watch::Receiver<Arc<Assignments>>,
    pub metrics: SegmentMetrics,
    pub telemetry: Telemetry,
}

impl Segments {
    /// Opens the directory.
    ///
    /// # Errors
    /// The directory cannot be created or read.
    pub async fn open(config: &SegmentsConfig, parts: Parts) -> anyhow::Result<Self> {
        let Parts { me, store, ownership, latest, metrics, telemetry } = parts;
        let path = config.dir.clone();
        let directory = spawn_blocking(move || SegmentDirectory::open(path))
            .await?
            .with_context(|| format!("cannot open the directory of the segments {} (segments.dir)", config.dir))?;
        // A worker that is the source itself never redirects a request for its own copy.
        let http = runtime::http::plain().connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self(Arc::new(Shared {
            me,
            directory,
            config: config.clone(),
            store,
            ownership,
            latest,
            copies: Copies::default(),
            writing: [const { Mutex::const_new(()) }; SEGMENTS as usize],
            reading: [const { Mutex::const_new(()) }; SEGMENTS as usize],
            is_read: SetOnce::new(),
            rebuilding: Mutex::new(()),
            pace: Pace::new(config.transfer_bytes_per_s),
            http,
            metrics,
            telemetry,
        })))
    }

    /// Starts all tasks. They run until `stop`.
    pub fn spawn(
        &self,
        monitors: &BTreeMap<String, Monitor>,
        keys: &Keys,
        incarnation: &Incarnation,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let run = |task| tasks.spawn(stop.clone().run_until_cancelled_owned(task));
        run(Box::pin(publish::run(self.clone())) as futures::future::BoxFuture<'static, ()>);
        run(Box::pin(scrub::run(self.clone())));
        for monitor in monitors.values() {
            let client = report::Client::new(&monitor.rpc, &self.0.me, keys, incarnation);
            run(Box::pin(report::run(self.clone(), client.clone())));
            run(Box::pin(orders::run(self.clone(), client)));
        }
    }

    /// Segments of which this worker is the primary by the table, with the epochs and phases of their partitions. Segment i belongs to
    /// partition i.
    fn owned(&self) -> BTreeMap<SegmentId, (u64, Phase)> {
        let owned = |segment: SegmentId| Some((segment, self.0.ownership.owned(segment.index())?));
        SegmentId::all().filter_map(owned).collect()
    }

    /// Runs what reads or writes the disk on a thread that may wait, also for a core: it hashes whole files.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SegmentDirectory) -> T + Send + 'static,
    ) -> io::Result<T> {
        let shared = Arc::clone(&self.0);
        Ok(background::run(move || work(&shared.directory)).await?)
    }

    async fn write_lock(&self, segment: SegmentId) -> MutexGuard<'_, ()> {
        self.0.writing[segment.index()].lock().await
    }

    /// Reads the segment's copy from the disk, so that the next report says what it is now.
    async fn refresh(&self, segment: SegmentId) {
        let reading = self.0.reading[segment.index()].lock().await;
        self.read(segment, reading).await;
    }

    /// As `refresh`, unless the copy is being read already.
    async fn refresh_unless_read(&self, segment: SegmentId) {
        if let Ok(reading) = self.0.reading[segment.index()].try_lock() {
            self.read(segment, reading).await;
        }
    }

    async fn read(&self, segment: SegmentId, _reading: MutexGuard<'_, ()>) {
        match self.on_disk(move |directory| directory.report(segment)).await.flatten() {
            Ok(report) => self.0.copies.set(segment, report),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, %segment, "cannot read the copy of a segment");
                self.0.copies.set(segment, None);
            }
        }
    }
}
