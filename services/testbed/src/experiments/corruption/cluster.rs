//! What the monitors say about the copies, and what is on the disks.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use contract::SegmentId;
use monitor::status::Status;
use segments::{Found, SegmentDirectory};
use stores::Store;
use tokio::{sync::Mutex, task::spawn_blocking, time::sleep};

use crate::{
    instruments::{scrape::Reading, segment_damage::Backup, segment_files::Oracle},
    stack::control_plane::{ControlPlane, Member},
};

pub const POLL: Duration = Duration::from_millis(50);
/// A damage that is not found or repaired by then is a failure of the run.
pub const LIMIT: Duration = Duration::from_secs(120);
const SETTLED: Duration = Duration::from_secs(1);
/// By workers for orders, also for those that failed.
const RECEIVED: &str = "testbed_worker_segment_received_bytes_total";
const ORDERS: &str = "testbed_segment_repairs_total";
const FAILURES: &str = "testbed_segment_repair_failures_total";

/// Counters of monitors and workers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counted {
    /// Orders that have ended.
    pub orders: f64,
    /// Received by workers, manifests included.
    pub bytes: f64,
}

pub struct Cluster {
    http: reqwest::Client,
    store: Store,
    oracle: Arc<Mutex<Oracle>>,
    /// Base URLs: of HTTP and of the admin port.
    monitors: Vec<(String, String)>,
    workers: BTreeMap<String, Holder>,
}

/// A worker that holds a copy.
#[derive(Debug, Clone)]
pub struct Holder {
    pub name: String,
    pub segments: PathBuf,
    admin: String,
    is_dead: bool,
}

impl Cluster {
    pub fn new(plane: &ControlPlane, store: Store) -> anyhow::Result<Self> {
        let worker = |worker: &Member| Holder {
            name: worker.name.clone(),
            segments: worker.segments.clone(),
            admin: worker.admin.clone(),
            is_dead: false,
        };
        let workers = plane.workers.iter().map(|one| (one.name.clone(), worker(one))).collect();
        let of =
            |member: &crate::stack::control_plane::Member| (format!("http://{}", member.http), member.admin.clone());
        Ok(Self {
            http: runtime::http::plain().timeout(Duration::from_secs(2)).build()?,
            store,
            oracle: Arc::new(Mutex::new(Oracle::with_lists())),
            monitors: plane.monitors.iter().map(of).collect(),
            workers,
        })
    }

    /// Of the leading monitor.
    pub async fn status(&self) -> anyhow::Result<Status> {
        let begun = Instant::now();
        loop {
            for (url, _) in &self.monitors {
                let asked = async { self.http.get(format!("{url}/status")).send().await?.json::<Status>().await };
                if let Ok(status) = asked.await
                    && status.leading
                {
                    return Ok(status);
                }
            }
            ensure!(begun.elapsed() < LIMIT, "no monitor leads");
            sleep(POLL).await;
        }
    }

    /// The primary, then the replicas.
    pub async fn holders(&self, segment: SegmentId) -> anyhow::Result<Vec<Holder>> {
        self.holders_by(&self.status().await?, segment)
    }

    /// Epoch in which each segment's version was published.
    pub async fn published_epochs(&self) -> anyhow::Result<BTreeMap<u8, u64>> {
        Ok(self.status().await?.segments.iter().map(|found| (found.segment, found.epoch)).collect())
    }

    /// Segments whose version was published again since, in another epoch.
    pub async fn published_since(&self, epochs: &BTreeMap<u8, u64>) -> anyhow::Result<Vec<SegmentId>> {
        let now = self.published_epochs().await?;
        Ok(SegmentId::all().filter(|id| now.get(&id.number()) != epochs.get(&id.number())).collect())
    }

    fn holders_by(&self, status: &Status, segment: SegmentId) -> anyhow::Result<Vec<Holder>> {
        let assignment = &status.table.partitions[segment.index()];
        let names = assignment.primary.iter().chain(&assignment.replicas);
        names.map(|name| self.workers.get(&**name).cloned().with_context(|| format!("there is no {name}"))).collect()
    }

    /// What monitors and workers have counted. A killed worker counts no more.
    ///
    /// # Errors
    /// A process does not answer.
    pub async fn counted(&self) -> anyhow::Result<Counted> {
        let mut counted = Counted::default();
        for (_, admin) in &self.monitors {
            let reading = Reading::get(&self.http, admin).await.context("a monitor")?;
            counted.orders += reading.sum(ORDERS, &[]) + reading.sum(FAILURES, &[]);
        }
        for worker in self.workers.values().filter(|worker| !worker.is_dead) {
            let reading = Reading::get(&self.http, &worker.admin).await.with_context(|| worker.name.clone())?;
            counted.bytes += reading.sum(RECEIVED, &[]);
        }
        Ok(counted)
    }

    /// Whether the worker is dead now, and cannot be asked.
    pub fn is_dead(&mut self, name: &str, is_dead: bool) {
        if let Some(worker) = self.workers.get_mut(name) {
            worker.is_dead = is_dead;
        }
    }

    /// Until no order has ended for a second: the report of the last one comes after its bytes.
    ///
    /// # Errors
    /// A process does not answer.
    pub async fn settled(&self) -> anyhow::Result<Counted> {
        let (mut known, mut since) = (self.counted().await?, Instant::now());
        while since.elapsed() < SETTLED {
            sleep(POLL).await;
            let now = self.counted().await?;
            if now != known {
                (known, since) = (now, Instant::now());
            }
        }
        Ok(known)
    }

    /// Until the monitors know of the damage, or an order about it has ended already: the status is a snapshot, and may miss a quick repair.
    pub async fn wait_found(&self, segments: &[SegmentId], before: Counted) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        loop {
            let status = self.status().await?;
            let is_damaged = |segment: &&SegmentId| {
                let found = status.segments.iter().find(|found| found.segment == segment.number());
                found.is_some_and(|found| found.good < found.holders)
            };
            // One of them: with many, the first may be repaired before the last is found.
            let is_known = segments.iter().any(|segment| is_damaged(&segment));
            if is_known || self.counted().await?.orders > before.orders {
                return Ok(Instant::now());
            }
            ensure!(begun.elapsed() < LIMIT, "the damage was not found within {LIMIT:?}");
            sleep(POLL / 5).await;
        }
    }

    /// Until all holders of all segments have a complete copy, by their reports and on their disks, of one version, and its bytes are the fold
    /// of the logs. `None`: they were at once.
    pub async fn wait_complete(&self) -> anyhow::Result<Option<Duration>> {
        let (begun, mut waited) = (Instant::now(), None);
        loop {
            let why = match self.incomplete().await {
                Ok(None) => return Ok(waited),
                Ok(Some(why)) => why,
                Err(error) => format!("{error:#}"),
            };
            ensure!(begun.elapsed() < LIMIT, "not complete within {LIMIT:?}: {why}");
            sleep(POLL).await;
            waited = Some(begun.elapsed());
        }
    }

    /// Which copies are not complete by the reports.
    pub fn unreported(status: &Status) -> Option<String> {
        if status.segments.len() != SegmentId::all().count() {
            return Some(format!("the monitors know {} segments", status.segments.len()));
        }
        let bad = status.segments.iter().find(|found| found.good < found.holders || found.holders < 3)?;
        Some(format!("segment {} has {} good copies of {}", bad.segment, bad.good, bad.holders))
    }

    async fn incomplete(&self) -> anyhow::Result<Option<String>> {
        let status = self.status().await?;
        if let Some(why) = Self::unreported(&status) {
            return Ok(Some(why));
        }
        let mut holders = Vec::new();
        for segment in SegmentId::all() {
            holders.push((segment, self.holders_by(&status, segment)?));
        }
        // Not on a thread that measures latencies.
        let oracle = self.oracle().await?;
        spawn_blocking(move || {
            let oracle = &mut oracle.blocking_lock();
            let whys = holders.into_iter().map(|(segment, holders)| wrong_on_disk(segment, &holders, oracle));
            Ok(whys.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().next())
        })
        .await?
    }

    /// What the files have to contain, by the logs as they are now.
    ///
    /// # Errors
    /// The store's.
    pub async fn oracle(&self) -> anyhow::Result<Arc<Mutex<Oracle>>> {
        self.oracle.lock().await.read(&self.store).await?;
        Ok(Arc::clone(&self.oracle))
    }

    /// Until the copies that were saved have been replaced by a newer version.
    pub async fn wait_new_version(&self, backups: &BTreeMap<SegmentId, Backup>) -> anyhow::Result<()> {
        let begun = Instant::now();
        for (&segment, backup) in backups {
            let replica = self.holders(segment).await?.get(1).cloned().context("the segment has no replica")?;
            while !backup.is_replaced(&replica.segments, segment) {
                ensure!(begun.elapsed() < LIMIT, "no new version of segment {segment} within {LIMIT:?}");
                sleep(POLL).await;
            }
        }
        Ok(())
    }
}

/// What is wrong with the segment's copies on the disks; `None`: each is complete, of the same version, and the fold of the logs.
fn wrong_on_disk(segment: SegmentId, holders: &[Holder], oracle: &mut Oracle) -> anyhow::Result<Option<String>> {
    let mut versions = Vec::new();
    for Holder { name, segments, .. } in holders {
        let Found::Version(file) = SegmentDirectory::of_another(segments).find(segment)? else {
            return Ok(Some(format!("{name} has no version of segment {segment} on its disk")));
        };
        // Compares every block with the manifest.
        file.all()?;
        let (version, content) = (file.manifest().version(), file.manifest().content());
        if content != oracle.content(segment, &version.vector)? {
            return Ok(Some(format!("the file of segment {segment} on {name} is not the fold of the logs")));
        }
        versions.push(version);
    }
    let is_one = versions.windows(2).all(|pair| pair[0] == pair[1]);
    Ok((!is_one).then(|| format!("the copies of segment {segment} have several versions")))
}
