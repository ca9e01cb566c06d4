//! Step 6 of a heartbeat's path: takes over the partitions that the table assigns to this worker. A partition is served once the store has its fence.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use contract::{
    ShardId,
    spans::{attribute, name, system},
};
use futures::future::join_all;
use heartbeat::{
    assign::{NodeId, Table},
    ownership::{Fence, Ownership},
    transport::assignments::Assignments,
};
use runtime::telemetry::{Kind, Span, Telemetry};
use stores::{StaleEpoch, Store, StoreError};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{incarnation::Incarnation, metrics::Metrics};

/// Pause before a failed fence is set again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Measures a takeover: from the first table with missing fences until the last fence is set.
#[derive(Debug, Default)]
struct TakeoverTimer(Option<Instant>);

impl TakeoverTimer {
    /// A later table needs this many fences. Missing fences of an earlier table are among them or obsolete.
    fn needed(&mut self, fences: usize, now: Instant) {
        self.0 = if fences == 0 { None } else { self.0.or(Some(now)) };
    }

    /// This many fences are still missing. Returns the takeover's duration when none is.
    fn missing(&mut self, fences: usize, now: Instant) -> Option<Duration> {
        if fences == 0 { self.0.take().map(|since| now - since) } else { None }
    }
}

/// The partitions that this worker owns. Cheap to clone.
#[derive(Clone)]
pub struct PartitionOwnership(Arc<Mutex<Ownership>>);

impl PartitionOwnership {
    pub fn new(me: NodeId) -> Self {
        Self(Arc::new(Mutex::new(Ownership::new(me))))
    }

    pub fn ownership(&self) -> MutexGuard<'_, Ownership> {
        // Every change is a single call: no other thread sees half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the table until `stop`.
    pub async fn follow_table(
        self,
        incarnation: Incarnation,
        store: Store,
        mut latest: watch::Receiver<Arc<Assignments>>,
        (metrics, telemetry): (Metrics, Telemetry),
        stop: CancellationToken,
    ) {
        let follow = async {
            let (mut open, mut waiting): (Vec<Fence>, _) = (Vec::new(), TakeoverTimer::default());
            let mut takeover = Span::NONE;
            loop {
                let changed = if open.is_empty() {
                    latest.changed().await.is_ok()
                } else {
                    // The store was unreachable.
                    timeout(RETRY_PAUSE, latest.changed()).await.is_ok_and(|changed| changed.is_ok())
                };
                if changed {
                    let table = Arc::clone(&latest.borrow_and_update().table);
                    metrics.epoch.set(table.epoch.cast_signed());
                    open = self.ownership().learn(Arc::clone(&table), incarnation.current(), incarnation.process());
                    waiting.needed(open.len(), Instant::now());
                    takeover = begin(&telemetry, &table, open.len());
                } else if open.is_empty() {
                    return;
                }
                open = self.fence(&store, &open, &takeover).await;
                if open.is_empty() {
                    takeover = Span::NONE;
                }
                let serving = self.ownership().serving().count();
                metrics.serving.set(serving as i64);
                if let Some(duration) = waiting.missing(open.len(), Instant::now()) {
                    metrics.takeover_seconds.observe(duration.as_secs_f64());
                    tracing::info!(epoch = metrics.epoch.get(), serving, "partitions taken over");
                }
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    /// Sets fences concurrently. Returns those to try again.
    async fn fence(&self, store: &Store, fences: &[Fence], takeover: &Span) -> Vec<Fence> {
        let set_fence = |fence: Fence| async move {
            let shard = shard(fence.partition)?;
            let span = fence_span(takeover, shard);
            match store.fence(shard, fence.epoch).await {
                Ok(Ok(())) => self.ownership().fenced(fence),
                Ok(Err(StaleEpoch { current })) => {
                    tracing::warn!(
                        partition = fence.partition,
                        epoch = fence.epoch,
                        by_epoch = current,
                        "another worker owns the partition in a later epoch"
                    );
                    span.fail("overruled");
                    self.ownership().overruled(fence.partition, fence.epoch);
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    span.fail("store_unavailable");
                    tracing::warn!(error, partition = fence.partition, "cannot set the fence, trying again");
                    return Some(fence);
                }
            }
            None
        };
        join_all(fences.iter().copied().map(set_fence)).await.into_iter().flatten().collect()
    }

    /// Counts one write under the epoch in which this worker owns the partition.
    ///
    /// # Errors
    /// The store's. `StaleEpoch`: another worker owns the partition, although the table here does not show it yet.
    pub async fn count(
        &self,
        store: &Store,
        partition: usize,
        epoch: u64,
    ) -> Result<Result<u64, StaleEpoch>, StoreError> {
        let Some(shard) = shard(partition) else { return Ok(Err(StaleEpoch { current: epoch })) };
        let counted = store.count(shard, epoch).await?;
        if counted.is_err() {
            self.ownership().overruled(partition, epoch);
        }
        Ok(counted)
    }
}

/// Continues the trace in the table. Without fences to set there is no span.
fn begin(telemetry: &Telemetry, table: &Table, fences: usize) -> Span {
    let traceparent = table.traceparent.as_deref().filter(|_| fences > 0);
    let Some(traceparent) = traceparent else { return Span::NONE };
    let span = telemetry.follow(traceparent, Kind::Internal, name::TAKEOVER);
    span.set(attribute::EPOCH, table.epoch);
    span.set(attribute::PARTITIONS, fences);
    span
}

fn fence_span(takeover: &Span, shard: ShardId) -> Span {
    const SUMMARY: &str = "UPDATE ownership";
    let span = takeover.child(Kind::Client, SUMMARY);
    span.set(attribute::DB_SYSTEM_NAME, system::MYSQL);
    span.set_with(attribute::DB_NAMESPACE, || shard.schema());
    span.set(attribute::DB_COLLECTION_NAME, "ownership");
    span.set(attribute::DB_OPERATION_NAME, "UPDATE");
    span.set(attribute::DB_QUERY_SUMMARY, SUMMARY);
    span
}

/// Partition i is shard i.
pub fn shard(partition: usize) -> Option<ShardId> {
    ShardId::all().nth(partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_lasts_from_the_table_to_the_last_fence_also_when_the_store_was_away() {
        let (mut waiting, start) = (TakeoverTimer::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        waiting.needed(0, at(0));
        assert_eq!(waiting.missing(0, at(1)), None, "a table without new partitions is no takeover");
        waiting.needed(3, at(10));
        assert_eq!(waiting.missing(1, at(20)), None);
        assert_eq!(waiting.missing(1, at(520)), None);
        assert_eq!(waiting.missing(0, at(1_020)), Some(Duration::from_millis(1_010)));
        assert_eq!(waiting.missing(0, at(1_030)), None, "once");
        // A table in between continues the takeover, or cancels it.
        waiting.needed(2, at(2_000));
        waiting.needed(1, at(2_100));
        assert_eq!(waiting.missing(0, at(2_200)), Some(Duration::from_millis(200)));
        waiting.needed(1, at(3_000));
        waiting.needed(0, at(3_100));
        assert_eq!(waiting.missing(0, at(3_200)), None);
    }
}
