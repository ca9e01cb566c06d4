//! Takes over what the table gives to this worker: a partition is served once the store has its fence up.

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
    tenure::{Fence, Tenure},
    transport::assignments::Assignments,
};
use runtime::telemetry::{Kind, Span, Telemetry};
use stores::{StaleEpoch, Store, StoreError};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{life::Life, metrics::Metrics};

/// A fence that the store did not take is tried again so often.
const AGAIN: Duration = Duration::from_millis(500);

/// Since when fences have been asked for that are not all up.
#[derive(Debug, Default)]
struct Waiting(Option<Instant>);

impl Waiting {
    /// A later table asks for so many. Those of an earlier one that are not up yet are among them, or are not wanted any more.
    fn asked(&mut self, fences: usize, now: Instant) {
        self.0 = if fences == 0 { None } else { self.0.or(Some(now)) };
    }

    /// So many are not up yet; how long it took once the last one is.
    fn left(&mut self, fences: usize, now: Instant) -> Option<Duration> {
        if fences == 0 { self.0.take().map(|since| now - since) } else { None }
    }
}

/// What this worker holds. Cheap to clone.
#[derive(Clone)]
pub struct Holding(Arc<Mutex<Tenure>>);

impl Holding {
    pub fn new(me: NodeId) -> Self {
        Self(Arc::new(Mutex::new(Tenure::new(me))))
    }

    pub fn tenure(&self) -> MutexGuard<'_, Tenure> {
        // Every change of it is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the table until `stop`.
    pub async fn keep(
        self,
        life: Life,
        store: Store,
        mut latest: watch::Receiver<Arc<Assignments>>,
        (metrics, telemetry): (Metrics, Telemetry),
        stop: CancellationToken,
    ) {
        let follow = async {
            let (mut open, mut waiting): (Vec<Fence>, _) = (Vec::new(), Waiting::default());
            let mut takeover = Span::NONE;
            loop {
                let changed = if open.is_empty() {
                    latest.changed().await.is_ok()
                } else {
                    // The store was away.
                    timeout(AGAIN, latest.changed()).await.is_ok_and(|changed| changed.is_ok())
                };
                if changed {
                    let table = Arc::clone(&latest.borrow_and_update().table);
                    metrics.epoch.set(table.epoch.cast_signed());
                    open = self.tenure().learn(Arc::clone(&table), life.incarnation());
                    waiting.asked(open.len(), Instant::now());
                    takeover = begin(&telemetry, &table, open.len());
                } else if open.is_empty() {
                    return;
                }
                open = self.fence(&store, &open, &takeover).await;
                if open.is_empty() {
                    takeover = Span::NONE;
                }
                let serving = self.tenure().serving().count();
                metrics.serving.set(serving as i64);
                if let Some(took) = waiting.left(open.len(), Instant::now()) {
                    metrics.takeover_seconds.observe(took.as_secs_f64());
                    tracing::info!(epoch = metrics.epoch.get(), serving, "partitions taken over");
                }
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    /// Puts fences up, all at once; answers those that are to be tried again.
    async fn fence(&self, store: &Store, fences: &[Fence], takeover: &Span) -> Vec<Fence> {
        let put_up = |fence: Fence| async move {
            let shard = shard(fence.partition)?;
            let told = fence_span(takeover, shard);
            match store.fence(shard, fence.epoch).await {
                Ok(Ok(())) => self.tenure().fenced(fence),
                Ok(Err(StaleEpoch { current })) => {
                    tracing::warn!(
                        partition = fence.partition,
                        epoch = fence.epoch,
                        by_epoch = current,
                        "a later owner was quicker"
                    );
                    told.fail("overruled");
                    self.tenure().overruled(fence.partition, fence.epoch);
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    told.fail("store_unavailable");
                    tracing::warn!(error, partition = fence.partition, "cannot put the fence up, trying again");
                    return Some(fence);
                }
            }
            None
        };
        join_all(fences.iter().copied().map(put_up)).await.into_iter().flatten().collect()
    }

    /// One piece of work under the epoch in which this worker holds the partition.
    ///
    /// # Errors
    /// The store's. `StaleEpoch`: somebody else has the partition, whatever the table here says.
    pub async fn count(
        &self,
        store: &Store,
        partition: usize,
        epoch: u64,
    ) -> Result<Result<u64, StaleEpoch>, StoreError> {
        let Some(shard) = shard(partition) else { return Ok(Err(StaleEpoch { current: epoch })) };
        let counted = store.count(shard, epoch).await?;
        if counted.is_err() {
            self.tenure().overruled(partition, epoch);
        }
        Ok(counted)
    }
}

/// Goes on with the trace of whoever wrote the table; nothing to be fenced is nothing to be told of.
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
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        waiting.asked(0, at(0));
        assert_eq!(waiting.left(0, at(1)), None, "a table without new partitions is no takeover");
        waiting.asked(3, at(10));
        assert_eq!(waiting.left(1, at(20)), None);
        assert_eq!(waiting.left(1, at(520)), None);
        assert_eq!(waiting.left(0, at(1_020)), Some(Duration::from_millis(1_010)));
        assert_eq!(waiting.left(0, at(1_030)), None, "once");
        // A table in between goes on with it, or ends it unfinished.
        waiting.asked(2, at(2_000));
        waiting.asked(1, at(2_100));
        assert_eq!(waiting.left(0, at(2_200)), Some(Duration::from_millis(200)));
        waiting.asked(1, at(3_000));
        waiting.asked(0, at(3_100));
        assert_eq!(waiting.left(0, at(3_200)), None);
    }
}
