//! Steps 1 and 2: the primary of segments folds the logs of the store, and publishes versions of its segments.
//!
//! A file is a pure function of its version vector, so a new primary begins at the start of the logs, and what it publishes continues what
//! its predecessor published. `due` decides when, and is pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    time::{Duration, Instant},
};

use anyhow::Context;
use contract::{SegmentId, VersionVector};
use heartbeat::ownership::Phase;
use model::Fold;
use runtime::background;
use segments::{Found, Version, WriteError, encode};
use tokio::time::sleep;

use super::Segments;

/// Publishing takes at most a tenth of the time.
const PAUSE_PER_PUBLICATION: u32 = 9;
/// `lists::advance` reads no more than this of each log at a time: with fewer events in all, it has reached the ends.
const A_ROUND: u64 = 100_000;
/// Pause after an error, before jitter.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Folds and publishes for ever.
pub async fn run(segments: Segments) {
    let mut publisher = Publisher::new(segments.clone());
    let mut tables = segments.0.ownership.tables();
    let poll = Duration::from_millis(segments.0.config.poll_ms);
    loop {
        tables.mark_unchanged();
        let pause = match publisher.step().await {
            Ok(()) => poll,
            Err(error) => {
                tracing::warn!(error = &*error as &dyn Error, "cannot fold or publish segments, trying again");
                RETRY_PAUSE.mul_f64(rand::random_range(0.5..=1.0))
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            _ = tables.changed() => {}
        }
    }
}

struct Publisher {
    segments: Segments,
    /// The state of the logs. It outlives errors of the store and the disk.
    fold: Option<Fold>,
    /// The segments in `fold`: those whose primary this worker is by the table.
    held: BTreeSet<SegmentId>,
    /// What is on this worker's disk, of the segments that it serves.
    published: BTreeMap<SegmentId, VersionVector>,
    pending: Pending,
    /// The fold was begun and has not reached the end of the logs, or a segment has been served since then that is not published.
    is_first: bool,
}

/// What has been folded but not published.
#[derive(Debug, Clone, Copy)]
struct Pending {
    events: u64,
    /// When the first of these events was folded.
    since: Option<Instant>,
    /// No publication begins before.
    not_before: Instant,
}

impl Pending {
    /// Whether enough has changed, or enough time has passed.
    fn is_due(&self, now: Instant, after_events: u64, every: Duration) -> bool {
        let is_old = self.since.is_some_and(|since| now.duration_since(since) >= every);
        now >= self.not_before && (self.events >= after_events || is_old)
    }

    fn folded(&mut self, events: u64, now: Instant) {
        self.events += events;
        if events > 0 {
            self.since.get_or_insert(now);
        }
    }

    fn published(&mut self, began: Instant, now: Instant) {
        let pause = now.duration_since(began) * PAUSE_PER_PUBLICATION;
        *self = Self { events: 0, since: None, not_before: now + pause };
    }
}

impl Publisher {
    fn new(segments: Segments) -> Self {
        let pending = Pending { events: 0, since: None, not_before: Instant::now() };
        Self { segments, fold: None, held: BTreeSet::new(), published: BTreeMap::new(), pending, is_first: true }
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        let owned = self.segments.owned();
        let is_served = |(segment, (epoch, phase))| (phase == Phase::Serving).then_some((segment, epoch));
        let served: BTreeMap<SegmentId, u64> = owned.clone().into_iter().filter_map(is_served).collect();
        self.segments.0.metrics.primaries.set(served.len() as i64);
        if owned.is_empty() {
            (self.fold, self.held, self.published) = (None, BTreeSet::new(), BTreeMap::new());
            return Ok(());
        }
        // Partitions are taken over one by one, and none is served while the store is silent: the logs are not folded again for that.
        if served.is_empty() {
            return Ok(());
        }
        let owned: BTreeSet<SegmentId> = owned.into_keys().collect();
        self.release(&owned);
        if self.fold.is_none() || !owned.is_subset(&self.held) {
            self.begin(owned);
        }
        self.find_published(&served).await?;
        let read = loop {
            let fold = self.fold.take().context("the fold was begun above")?;
            let before = fold.events();
            let (fold, read) = lists::advance(fold, &self.segments.0.store).await.context("the fold is lost")?;
            // Also after an error: the logs of the other servers were folded.
            let events = fold.events() - before;
            self.fold = Some(fold);
            self.segments.0.metrics.folded.inc_by(events);
            self.pending.folded(events, Instant::now());
            // The first version is that of the logs' ends.
            if read.is_err() || !self.is_first || events < A_ROUND {
                break read.context("cannot read the logs");
            }
        };
        if self.is_first && read.is_err() {
            return read;
        }
        let config = &self.segments.0.config;
        let every = Duration::from_millis(config.publish_every_ms);
        if self.is_first || self.pending.is_due(Instant::now(), config.publish_after_events, every) {
            self.publish(&served).await?;
            self.is_first = false;
        }
        read
    }

    /// Gives back the memory of segments that have another primary now.
    fn release(&mut self, owned: &BTreeSet<SegmentId>) {
        if let Some(fold) = &mut self.fold {
            self.held.difference(owned).for_each(|segment| fold.release(*segment));
            self.held.retain(|segment| owned.contains(segment));
        }
    }

    /// Begins with the whole logs for these segments. A fold has the pairs of its own segments only, so further ones need the logs again.
    fn begin(&mut self, held: BTreeSet<SegmentId>) {
        tracing::info!(segments = held.len(), "folding the logs from their start");
        // A fold of too few segments makes room first.
        self.fold = None;
        self.fold = Some(Fold::new(held.iter().copied()));
        (self.held, self.published, self.is_first) = (held, BTreeMap::new(), true);
    }

    /// Finds what is on the disk of segments that are served since the last step. Between two times its copy may have been replaced or removed.
    async fn find_published(&mut self, served: &BTreeMap<SegmentId, u64>) -> anyhow::Result<()> {
        self.published.retain(|segment, _| served.contains_key(segment));
        for &segment in served.keys() {
            if self.published.contains_key(&segment) {
                continue;
            }
            let found = self.segments.on_disk(move |directory| directory.find(segment)).await?;
            let vector = match found {
                Ok(Found::Version(file)) => Some(file.manifest().version().vector),
                _ => None,
            };
            // Nothing there: no fold has this version, so that even the empty one is published.
            self.published.insert(segment, vector.unwrap_or(VersionVector::new([u64::MAX; 16])));
            self.is_first = true;
        }
        Ok(())
    }

    async fn publish(&mut self, served: &BTreeMap<SegmentId, u64>) -> anyhow::Result<()> {
        let began = Instant::now();
        for (&segment, &epoch) in served {
            let fold = self.fold.take().context("the fold was lost by a panic")?;
            let vector = *fold.version();
            if self.published.get(&segment) == Some(&vector) {
                self.fold = Some(fold);
                continue;
            }
            let encoding = background::run(move || {
                let bytes = fold.publish(segment).map(|segment| encode(&segment));
                (fold, bytes)
            });
            let (fold, bytes) = encoding.await.context("encoding a segment panicked")?;
            self.fold = Some(fold);
            let bytes = bytes.with_context(|| format!("segment {segment} is not folded here"))?;
            let length = bytes.len();
            let _writing = self.segments.write_lock(segment).await;
            let version = Version { epoch, vector };
            match self.segments.on_disk(move |directory| directory.write(segment, version, &bytes)).await? {
                Ok(_file) => {
                    self.segments.0.metrics.published(segment, &vector, length);
                }
                // A replica's copy of a later primary: this worker is no primary any more, and does not know it yet.
                Err(error @ WriteError::Older(_)) => {
                    tracing::warn!(error = &error as &dyn Error, "a version is not published");
                }
                Err(error) => return Err(error).with_context(|| format!("cannot publish segment {segment}")),
            }
            self.published.insert(segment, vector);
            self.segments.refresh(segment).await;
        }
        let now = Instant::now();
        self.pending.published(began, now);
        self.segments.0.metrics.publish_seconds.observe(now.duration_since(began).as_secs_f64());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_due_after_enough_events_or_time_and_publishing_takes_a_tenth_of_the_time() {
        let (start, every) = (Instant::now(), Duration::from_secs(5));
        let mut pending = Pending { events: 0, since: None, not_before: start };
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!pending.is_due(at(100), 10, every), "nothing has changed");
        pending.folded(9, at(1));
        pending.folded(0, at(2));
        assert!(!pending.is_due(at(5), 10, every) && pending.is_due(at(6), 10, every));
        pending.folded(1, at(2));
        assert!(pending.is_due(at(2), 10, every));
        pending.published(at(2), at(4));
        pending.folded(100, at(4));
        assert!(!pending.is_due(at(21), 10, every) && pending.is_due(at(22), 10, every));
    }
}
