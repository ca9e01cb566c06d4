//! Step 8 of a heartbeat's path: the report in this worker's heartbeats: what it does with its partitions, and what its clients complain about.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use contract::ShardId;
use heartbeat::{assign::NodeId, message::WorkerReport};
use prometheus::IntGauge;
use stores::Store;
use tokio::time::timeout;

use crate::{
    complaints::{Complaints, PROMPT, WINDOW},
    ownership::PartitionOwnership,
};

/// Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    ownership: PartitionOwnership,
    complaints: Arc<Mutex<Complaints>>,
    failing: IntGauge,
}

impl Reporter {
    pub fn new(me: NodeId, ownership: PartitionOwnership, failing: IntGauge) -> Self {
        Self { ownership, complaints: Arc::new(Mutex::new(Complaints::new(me))), failing }
    }

    /// A client's request for this partition named workers that it had no success with. Returns whether to `compare`: see `Complaints`.
    pub fn complain(&self, names: &str, partition: usize) -> bool {
        self.complaints().record(names, partition, &self.ownership.table(), Instant::now())
    }

    /// Asks the partition's store whether this worker's own path to it is good.
    pub async fn compare(&self, store: &Store, shard: ShardId) {
        let (begun, limit) = (Instant::now(), self.ownership.health().limits().silent_after);
        // A late answer is awaited: it leaves an open connection, and the next comparison does not have to connect.
        let answer = timeout(limit, store.ownership(shard)).await;
        let is_prompt = matches!(answer, Ok(Ok(_))) && begun.elapsed() <= PROMPT;
        self.complaints().compared(shard.index(), is_prompt, Instant::now());
    }

    pub fn report(&self) -> WorkerReport {
        let (now, table, (serving, overruled_by)) = (Instant::now(), self.ownership.table(), self.ownership.serving());
        let (failing, store_age, served) = {
            let mut health = self.ownership.health();
            (health.failing(now), health.oldest_answer(now), health.requests_within(WINDOW, now))
        };
        self.failing.set(failing.count_ones().into());
        WorkerReport {
            process: self.ownership.process(),
            history: table.history,
            epoch: table.epoch,
            serving,
            failing,
            store_age_ms: u32::try_from(store_age.as_millis()).unwrap_or(u32::MAX),
            overruled_by,
            complaints: self.complaints().report(&table, served, now),
        }
    }

    fn complaints(&self) -> MutexGuard<'_, Complaints> {
        // Every change is a single call: no other thread sees half of one.
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
