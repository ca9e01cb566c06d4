//! The partitions that the table assigns to this worker. Requests, heartbeats and the task of each partition share them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use contract::ShardId;
use heartbeat::{
    assign::{MAX_EPOCH_JUMP, NodeId, PARTITIONS, Table},
    ownership::{Fence, Ownership, Phase, Refusal},
    transport::assignments::Assignments,
};
use runtime::telemetry::{Span, Telemetry};
use stores::{Refused, Store, StoreError};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    health::{Limits, StoreHealth},
    incarnation::Incarnation,
    metrics::Metrics,
    takeover::Takeover,
};

const _: () = assert!(MAX_EPOCH_JUMP == stores::MAX_EPOCH_JUMP, "a table that is followed can be fenced");

/// The partitions that this worker owns. Cheap to clone.
#[derive(Clone)]
pub struct PartitionOwnership(Arc<Shared>);

struct Shared {
    me: NodeId,
    process: u64,
    ownership: Mutex<Ownership>,
    health: Mutex<StoreHealth>,
    takeover: Mutex<Takeover>,
    /// Changes with every table.
    tables: watch::Sender<u64>,
    metrics: Metrics,
}

impl PartitionOwnership {
    pub fn new(me: NodeId, process: u64, limits: Limits, store: &Store, metrics: Metrics) -> Self {
        let mut servers = [0; PARTITIONS];
        for shard in ShardId::all() {
            servers[shard.index()] = store.instance_of(shard);
        }
        Self(Arc::new(Shared {
            me: me.clone(),
            process,
            ownership: Mutex::new(Ownership::new(me)),
            health: Mutex::new(StoreHealth::new(limits, servers)),
            takeover: Mutex::default(),
            tables: watch::Sender::new(0),
            metrics,
        }))
    }

    /// Follows the table until `stop`.
    pub async fn follow_table(
        self,
        incarnation: Incarnation,
        mut latest: watch::Receiver<Arc<Assignments>>,
        telemetry: Telemetry,
        stop: CancellationToken,
    ) {
        let follow = async {
            while latest.changed().await.is_ok() {
                let table = Arc::clone(&latest.borrow_and_update().table);
                // Before it serves: a process that served gives way to another one of its name.
                incarnation.is_admitted(&self.0.me, &table);
                self.learn(&table, incarnation.current(), &telemetry);
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    fn learn(&self, table: &Arc<Table>, incarnation: u64, telemetry: &Telemetry) {
        let now = Instant::now();
        let fences = {
            let mut ownership = self.ownership();
            let fences = ownership.learn(Arc::clone(table), incarnation, self.0.process);
            self.health().own(epochs(&ownership), now);
            fences
        };
        // Before the partitions' tasks set the fences.
        lock(&self.0.takeover).needs(fences.len(), table, telemetry, now);
        self.0.metrics.epoch.set(table.epoch.cast_signed());
        self.show();
        self.0.tables.send_replace(table.epoch);
    }

    /// Changes with every table that this worker follows.
    pub fn tables(&self) -> watch::Receiver<u64> {
        self.0.tables.subscribe()
    }

    pub fn table(&self) -> Arc<Table> {
        Arc::clone(self.ownership().table())
    }

    /// A random number of this process: the owner of its fences.
    pub fn process(&self) -> u64 {
        self.0.process
    }

    pub fn owned(&self, partition: usize) -> Option<(u64, Phase)> {
        self.ownership().owned(partition)
    }

    /// See `Ownership::admit`.
    ///
    /// # Errors
    /// See `Refusal`.
    pub fn admit(&self, partition: usize, claimed: Option<u64>) -> Result<u64, Refusal> {
        self.ownership().admit(partition, claimed)
    }

    /// Bit mask of the partitions that are served now, and the latest epoch by which the store refused one of this worker.
    pub fn serving(&self) -> (u32, u64) {
        let ownership = self.ownership();
        (ownership.serving().fold(0, |mask, (partition, _)| mask | 1 << partition), ownership.overruled_by())
    }

    pub fn health(&self) -> MutexGuard<'_, StoreHealth> {
        lock(&self.0.health)
    }

    pub fn fence_span(&self, shard: ShardId) -> Span {
        lock(&self.0.takeover).fence_span(shard)
    }

    /// The store has set the fence.
    pub fn fenced(&self, fence: Fence) {
        self.health().answered(fence.partition, Instant::now());
        self.ownership().fenced(fence);
        self.show();
    }

    /// The store does not answer: the partition is refused until its fence is set again.
    pub fn resign(&self, fence: Fence) {
        self.ownership().resign(fence);
        self.show();
    }

    /// The store refused this epoch.
    pub fn overruled(&self, fence: Fence, refused: Refused) {
        tracing::warn!(
            partition = fence.partition,
            epoch = fence.epoch,
            reason = %refused,
            "the store refused the partition's epoch: the partition is not served until a later table assigns it"
        );
        {
            let mut ownership = self.ownership();
            ownership.overruled(fence, refused.overruled_by().unwrap_or_default());
            self.health().own(epochs(&ownership), Instant::now());
        }
        self.show();
    }

    /// Shows the state in metrics, and ends the takeover if no fence is missing.
    fn show(&self) {
        let (serving, missing) = {
            let ownership = self.ownership();
            (ownership.serving().count(), ownership.in_phase(Phase::TakingOver).count())
        };
        let metrics = &self.0.metrics;
        metrics.serving.set(serving as i64);
        if let Some(duration) = lock(&self.0.takeover).missing(missing, Instant::now()) {
            metrics.takeover_seconds.observe(duration.as_secs_f64());
            tracing::info!(epoch = metrics.epoch.get(), serving, "partitions taken over");
        }
    }

    /// Runs a write under the epoch in which this worker owns the partition. The result counts for the partition's health: run it to
    /// completion even if the client has disconnected.
    ///
    /// # Errors
    /// The store's. `Refused`: another worker owns the partition, although the table here does not show it yet.
    pub async fn write<T>(
        &self,
        shard: ShardId,
        epoch: u64,
        write: impl Future<Output = Result<Result<T, Refused>, StoreError>>,
    ) -> Result<Result<T, Refused>, StoreError> {
        let partition = shard.index();
        let limit = self.health().limits().silent_after;
        tokio::pin!(write);
        let (written, is_late) = match timeout(limit, &mut write).await {
            Ok(written) => (written, false),
            Err(_elapsed) => {
                self.health().failed(partition, Instant::now());
                (write.await, true)
            }
        };
        match &written {
            Ok(Err(refused)) => self.overruled(Fence { partition, epoch }, *refused),
            Ok(Ok(_)) if is_late => self.health().answered(partition, Instant::now()),
            Ok(Ok(_)) => self.health().succeeded(partition, Instant::now()),
            // A full queue is overload, which moves with the partition.
            Err(StoreError::QueueFull(_)) => {}
            Err(_) if !is_late => self.health().failed(partition, Instant::now()),
            Err(_) => {}
        }
        written
    }

    fn ownership(&self) -> MutexGuard<'_, Ownership> {
        lock(&self.0.ownership)
    }
}

/// Epochs of the partitions that the store has not refused.
fn epochs(ownership: &Ownership) -> [Option<u64>; PARTITIONS] {
    let not_refused = |(epoch, phase)| (phase != Phase::Overruled).then_some(epoch);
    std::array::from_fn(|partition| ownership.owned(partition).and_then(not_refused))
}

/// Every change is a single call: no other thread sees half of one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
