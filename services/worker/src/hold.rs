//! Takes over what the table gives to this worker: a partition is served once the store has its fence up.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use contract::ShardId;
use futures::future::join_all;
use heartbeat::{
    assign::NodeId,
    tenure::{Fence, Tenure},
    transport::assignments::Assignments,
};
use stores::{Overruled, Store, StoreError};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// A fence that the store did not take is tried again so often.
const AGAIN: Duration = Duration::from_millis(500);

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
        store: Store,
        mut latest: watch::Receiver<Arc<Assignments>>,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let follow = async {
            let (mut open, mut since): (Vec<Fence>, _) = (Vec::new(), Instant::now());
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
                    (open, since) = (self.tenure().learn(table), Instant::now());
                } else if open.is_empty() {
                    return;
                }
                open = self.fence(&store, &open).await;
                let serving = self.tenure().serving().count();
                metrics.serving.set(serving as i64);
                if open.is_empty() && changed {
                    metrics.takeover_seconds.observe(since.elapsed().as_secs_f64());
                    tracing::info!(epoch = metrics.epoch.get(), serving, "partitions taken over");
                }
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    /// Puts fences up, all at once; answers those that are to be tried again.
    async fn fence(&self, store: &Store, fences: &[Fence]) -> Vec<Fence> {
        let put_up = |fence: Fence| async move {
            let shard = shard(fence.partition)?;
            match store.fence(shard, fence.epoch).await {
                Ok(Ok(())) => self.tenure().fenced(fence),
                Ok(Err(Overruled { by_epoch })) => {
                    tracing::warn!(
                        partition = fence.partition,
                        epoch = fence.epoch,
                        by_epoch,
                        "a later owner was quicker"
                    );
                    self.tenure().overruled(fence.partition, fence.epoch);
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
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
    /// The store's. `Overruled`: somebody else has the partition, whatever the table here says.
    pub async fn count(
        &self,
        store: &Store,
        partition: usize,
        epoch: u64,
    ) -> Result<Result<u64, Overruled>, StoreError> {
        let Some(shard) = shard(partition) else { return Ok(Err(Overruled { by_epoch: epoch })) };
        let counted = store.count(shard, epoch).await?;
        if counted.is_err() {
            self.tenure().overruled(partition, epoch);
        }
        Ok(counted)
    }
}

/// Partition i is shard i.
pub fn shard(partition: usize) -> Option<ShardId> {
    ShardId::all().nth(partition)
}
