//! What this process remembers of users, for a short time and bounded; and when to forget it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use contract::UserId;
use moka::sync::Cache;

use super::{list::RankedList, local::Local};
use crate::{
    config::{CacheConfig, GuardsConfig},
    metrics::MemoryMetrics,
};

pub struct Memory {
    /// One for many users: a change of another user of the same place costs one fill, no more.
    changes: [AtomicU32; PLACES],
    /// Lists in front of Redis (`cache.local_ms`).
    lists: Option<Local>,
    /// Users whose load found no behaviour (`guards.negative`).
    nothing: Option<Cache<UserId, ()>>,
    /// Users whose load has just ended (`guards.coalesce`): who missed before it must look into Redis again, not load again.
    landed: Option<Cache<UserId, ()>>,
    /// Users whose refresh this replica has tried (`guards.refresh_ahead`): a hit need not ask for the lease again.
    refreshed: Option<Cache<UserId, ()>>,
    metrics: MemoryMetrics,
}

const PLACES: usize = 1024;
const MAX_NOTHING: u64 = 10_000;
const MAX_LANDED: u64 = 10_000;
/// Longer than a request can take from its look into Redis to its load.
const LANDED: Duration = Duration::from_secs(2);

const MAX_REFRESHED: u64 = 10_000;
/// As long as the lease in Redis.
const REFRESH_AGAIN: Duration = Duration::from_secs(10);

/// What a user's data looked like when it was begun to be read; a later change makes it another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    place: usize,
    pub value: u32,
}

impl Memory {
    pub fn new(cache: &CacheConfig, guards: &GuardsConfig, metrics: MemoryMetrics) -> Self {
        let lists = (cache.local_ms > 0).then(|| Local::new(cache.local_items, cache.local_ms));
        let nothing = (guards.negative && cache.negative_ms > 0).then(|| bounded(MAX_NOTHING, cache.negative_ms));
        let landed = guards.coalesce.then(|| bounded(MAX_LANDED, LANDED.as_millis() as u64));
        let refreshed = guards.refresh_ahead.then(|| bounded(MAX_REFRESHED, REFRESH_AGAIN.as_millis() as u64));
        Self { changes: std::array::from_fn(|_| AtomicU32::new(0)), lists, nothing, landed, refreshed, metrics }
    }

    /// To be taken before anything of the user is read.
    pub fn epoch(&self, user_id: &UserId) -> Epoch {
        let place = contract::hash_of(user_id.as_str()) as usize % PLACES;
        Epoch { place, value: self.changes[place].load(Ordering::Acquire) }
    }

    pub fn is_current(&self, epoch: Epoch) -> bool {
        self.changes[epoch.place].load(Ordering::Acquire) == epoch.value
    }

    /// The user has changed: whatever was read until now is old.
    pub fn forget(&self, user_id: &UserId) {
        // First this: what is remembered from here on is checked against it, what was remembered before is removed below.
        self.changes[self.epoch(user_id).place].fetch_add(1, Ordering::AcqRel);
        if let Some(lists) = &self.lists {
            lists.forget(user_id.as_str());
        }
        if let Some(nothing) = &self.nothing {
            nothing.invalidate(user_id);
        }
        if let Some(landed) = &self.landed {
            landed.invalidate(user_id);
        }
    }

    pub fn keeps_lists(&self) -> bool {
        self.lists.is_some()
    }

    pub fn list(&self, user_id: &str, limit: usize, now_ms: u64) -> Option<RankedList> {
        self.lists.as_ref()?.list(user_id, limit, now_ms).inspect(|_| self.metrics.local_hits.inc())
    }

    /// The body of the whole answer.
    pub fn answer(&self, user_id: &str, limit: usize, now_ms: u64) -> Option<Bytes> {
        self.lists.as_ref()?.answer(user_id, limit, now_ms).inspect(|_| self.metrics.local_hits.inc())
    }

    pub fn keep_list(&self, user_id: &UserId, list: &RankedList, epoch: Epoch, now_ms: u64) {
        let Some(lists) = &self.lists else { return };
        lists.keep(user_id, list, now_ms);
        if !self.is_current(epoch) {
            lists.forget(user_id.as_str());
        }
    }

    pub fn has_nothing(&self, user_id: &UserId) -> bool {
        let known = self.nothing.as_ref().is_some_and(|nothing| nothing.contains_key(user_id));
        if known {
            self.metrics.negative_hits.inc();
        }
        known
    }

    pub fn keep_nothing(&self, user_id: &UserId, epoch: Epoch) {
        let Some(nothing) = &self.nothing else { return };
        nothing.insert(user_id.clone(), ());
        if !self.is_current(epoch) {
            nothing.invalidate(user_id);
        }
    }

    pub fn keep_landed(&self, user_id: &UserId) {
        if let Some(landed) = &self.landed {
            landed.insert(user_id.clone(), ());
        }
    }

    /// True once per user and `REFRESH_AGAIN`; never if the guard is off.
    pub fn may_try_refresh(&self, user_id: &UserId) -> bool {
        let Some(refreshed) = &self.refreshed else { return false };
        if refreshed.contains_key(user_id) {
            return false;
        }
        refreshed.insert(user_id.clone(), ());
        true
    }

    pub fn has_landed(&self, user_id: &UserId) -> bool {
        self.landed.as_ref().is_some_and(|landed| landed.contains_key(user_id))
    }
}

fn bounded<V: Clone + Send + Sync + 'static>(items: u64, ms: u64) -> Cache<UserId, V> {
    Cache::builder().max_capacity(items).time_to_live(Duration::from_millis(ms)).build()
}
