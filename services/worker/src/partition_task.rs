//! Step 6 of a heartbeat's path: one task per partition, so that a server that hangs delays only its own partitions. While the table assigns
//! the partition to this worker, the task sets its fence, then serves it and verifies that the store accepts its writes.
//!
//! ```text
//! not owned ── table ──→ take over ── fence set ──→ serve ── the store is silent for long ──→ take over
//!                            └────────────── table, or refused by the store ─────────┴──→ not owned
//! ```

use std::{
    error::Error,
    time::{Duration, Instant},
};

use contract::ShardId;
use heartbeat::ownership::{Fence, Phase};
use stores::{Store, StoreError};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{events::EventPath, ownership::PartitionOwnership};

/// Time for the first attempt to set a fence, connecting included. Each further attempt gets twice the time, for a store that is slow.
const FENCE_TIMEOUT: Duration = Duration::from_secs(2);
const LONGEST_FENCE_TIMEOUT: Duration = Duration::from_secs(8);
/// Pauses between attempts, before jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

struct PartitionTask {
    shard: ShardId,
    ownership: PartitionOwnership,
    store: Store,
    /// `None`: there is no Kafka.
    events: Option<EventPath>,
}

/// Starts the tasks of all partitions. They run until `stop`.
pub fn spawn(
    ownership: &PartitionOwnership,
    store: &Store,
    events: Option<&EventPath>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    for shard in ShardId::all() {
        let (ownership, store, events) = (ownership.clone(), store.clone(), events.cloned());
        let task = PartitionTask { shard, ownership, store, events };
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move { task.run().await }));
    }
}

impl PartitionTask {
    async fn run(&self) {
        let mut tables = self.ownership.tables();
        loop {
            tables.mark_unchanged();
            let Some((epoch, phase)) = self.ownership.owned(self.partition()) else {
                tables.changed().await.ok();
                continue;
            };
            let fence = Fence { partition: self.partition(), epoch };
            // A later table that keeps epoch and phase does not disturb the work.
            let is_obsolete = |_: &u64| self.ownership.owned(self.partition()) != Some((epoch, phase));
            let obsolete = tables.wait_for(is_obsolete);
            match phase {
                Phase::TakingOver => tokio::select! {
                    () = self.take_over(fence) => {}
                    _ = obsolete => {}
                },
                Phase::Serving => tokio::select! {
                    () = self.serve(fence) => {}
                    () = self.consume(fence) => {}
                    _ = obsolete => {}
                },
                Phase::Overruled => {
                    obsolete.await.ok();
                }
            }
        }
    }

    /// Partition i is shard i.
    fn partition(&self) -> usize {
        self.shard.index()
    }

    /// Returns when the store has set or refused the fence.
    async fn take_over(&self, fence: Fence) {
        let (mut pause, mut limit) = (FIRST_PAUSE, FENCE_TIMEOUT);
        loop {
            let span = self.ownership.fence_span(self.shard);
            let set = self.store.fence(self.shard, fence.epoch, self.ownership.process(), limit).await;
            match &set {
                Ok(Ok(())) => {}
                Ok(Err(_)) => span.fail("overruled"),
                Err(_) => span.fail("store_unavailable"),
            }
            // Ends before the takeover's span does.
            drop(span);
            match set {
                Ok(Ok(())) => return self.ownership.fenced(fence),
                Ok(Err(refused)) => return self.ownership.overruled(fence, refused),
                Err(error) => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, partition = fence.partition, "cannot set the fence, trying again");
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
            (pause, limit) = ((pause * 2).min(LONGEST_PAUSE), (limit * 2).min(LONGEST_FENCE_TIMEOUT));
        }
    }

    /// Returns when the store refused this worker. Without Kafka: never.
    async fn consume(&self, fence: Fence) {
        match &self.events {
            Some(events) => events.consume(self.shard, fence, &self.ownership).await,
            None => std::future::pending().await,
        }
    }

    /// Asks the store when no request did for a while. Returns when it refused this worker, or was silent for long.
    async fn serve(&self, fence: Fence) {
        let limits = self.ownership.health().limits();
        // After a failed check the next one has more time, for a store that is slow to accept a new connection.
        let mut limit = limits.silent_after;
        loop {
            while let Some(left) = limits.check_every.checked_sub(self.age(fence)).filter(|left| !left.is_zero()) {
                sleep(left).await;
            }
            match self.store.verify(self.shard, fence.epoch, self.ownership.process(), limit).await {
                Ok(Ok(())) => {
                    self.ownership.health().answered(fence.partition, Instant::now());
                    limit = limits.silent_after;
                }
                Ok(Err(refused)) => return self.ownership.overruled(fence, refused),
                Err(error) if self.is_silent(fence, &error) => return self.ownership.resign(fence),
                Err(_) => {
                    limit = limits.resign_after;
                    sleep(limits.check_every.mul_f64(rand::random_range(0.5..=1.0))).await;
                }
            }
        }
    }

    /// Whether the partition must not be served any more, because the store has been silent for long.
    fn is_silent(&self, fence: Fence, error: &StoreError) -> bool {
        let (error, partition, age) = (error as &dyn Error, fence.partition, self.age(fence));
        let is_silent = age >= self.ownership.health().limits().resign_after;
        if is_silent {
            tracing::warn!(
                error,
                partition,
                ?age,
                "the store does not answer: refusing requests until the fence is set again"
            );
        } else {
            tracing::debug!(error, partition, ?age, "cannot verify the fence");
        }
        is_silent
    }

    /// Time since the store last answered for this partition.
    fn age(&self, fence: Fence) -> Duration {
        self.ownership.health().age(fence.partition, Instant::now())
    }
}
