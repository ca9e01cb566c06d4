//! Polls that wait for orders: at most one of each worker.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use heartbeat::assign::NodeId;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Polls(Mutex<BTreeMap<NodeId, Arc<Notify>>>);

/// A poll, until it is dropped.
#[derive(Debug)]
pub struct Poll<'a> {
    polls: &'a Polls,
    worker: NodeId,
    wake: Arc<Notify>,
}

impl Polls {
    /// Begins a poll. An older one of this worker is replaced.
    pub fn begin(&self, worker: &NodeId) -> Poll<'_> {
        let (worker, wake) = (worker.clone(), Arc::new(Notify::new()));
        if let Some(older) = self.lock().insert(worker.clone(), Arc::clone(&wake)) {
            older.notify_one();
        }
        Poll { polls: self, worker, wake }
    }

    pub fn wake<'a>(&self, workers: impl IntoIterator<Item = &'a NodeId>) {
        let waiting = self.lock();
        workers.into_iter().filter_map(|worker| waiting.get(worker)).for_each(|wake| wake.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Notify>>> {
        // Every change is complete when a panic could happen.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Poll<'_> {
    /// A wake-up between two calls is not lost. Cancel safe.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    pub fn is_replaced(&self) -> bool {
        self.polls.lock().get(&self.worker).is_none_or(|newest| !Arc::ptr_eq(newest, &self.wake))
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut waiting = self.polls.lock();
        if waiting.get(&self.worker).is_some_and(|newest| Arc::ptr_eq(newest, &self.wake)) {
            waiting.remove(&self.worker);
        }
    }
}
