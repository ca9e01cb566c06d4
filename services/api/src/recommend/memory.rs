//! What this process remembers about users: for a short time, in a bounded number, and only until the user acts.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use contract::UserId;
use lists::RankedList;
use moka::sync::Cache;

use super::local::Local;
use crate::{
    config::{CacheConfig, GuardsConfig},
    metrics::MemoryMetrics,
};

pub struct Memory {
    /// Users share counters by hash. A change of one user may drop the list of another: that costs one load, not correctness.
    versions: [AtomicU32; COUNTERS],
    /// Lists that are read before Redis (`cache.local_ms`).
    lists: Option<Local>,
    /// Users whose load found no behaviour (`guards.negative`).
    no_behaviour: Option<Cache<UserId, ()>>,
    /// Users whose load has just ended (`guards.coalesce`): a request that missed before must re-read Redis, not load again.
    just_loaded: Option<Cache<UserId, ()>>,
    /// Users whose list this replica has tried to refresh (`guards.refresh_ahead`): further hits do not ask for the lease.
    refreshed: Option<Cache<UserId, ()>>,
    metrics: MemoryMetrics,
}

const COUNTERS: usize = 1024;
const MAX_USERS: u64 = 10_000;
/// Longer than a request needs between its read from Redis and its load.
const JUST_LOADED: Duration = Duration::from_secs(2);
/// As long as the lease in Redis.
const REFRESH_AGAIN: Duration = Duration::from_secs(10);

/// The version of a user's data. It is read before the data; if it has changed afterwards, the data may be stale and is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserVersion {
    counter: usize,
    pub value: u32,
}

impl Memory {
    pub fn new(cache: &CacheConfig, guards: &GuardsConfig, metrics: MemoryMetrics) -> Self {
        let lists = (cache.local_ms > 0).then(|| Local::new(cache.local_items, cache.local_ms));
        let no_behaviour = (guards.negative && cache.negative_ms > 0).then(|| users_for(cache.negative_ms));
        let just_loaded = guards.coalesce.then(|| users_for(JUST_LOADED.as_millis() as u64));
        let refreshed = guards.refresh_ahead.then(|| users_for(REFRESH_AGAIN.as_millis() as u64));
        let versions = std::array::from_fn(|_| AtomicU32::new(0));
        Self { versions, lists, no_behaviour, just_loaded, refreshed, metrics }
    }

    /// To be called before any of the user's data is read.
    pub fn version(&self, user_id: &UserId) -> UserVersion {
        let counter = contract::hash_of(user_id.as_str()) as usize % COUNTERS;
        UserVersion { counter, value: self.versions[counter].load(Ordering::Acquire) }
    }

    pub fn is_current(&self, version: UserVersion) -> bool {
        self.versions[version.counter].load(Ordering::Acquire) == version.value
    }

    /// The user has acted: all data read before is stale.
    pub fn forget(&self, user_id: &UserId) {
        // The version changes first: entries added from now on are checked against it, and earlier entries are removed below.
        self.versions[self.version(user_id).counter].fetch_add(1, Ordering::AcqRel);
        if let Some(lists) = &self.lists {
            lists.forget(user_id.as_str());
        }
        if let Some(no_behaviour) = &self.no_behaviour {
            no_behaviour.invalidate(user_id);
        }
        if let Some(just_loaded) = &self.just_loaded {
            just_loaded.invalidate(user_id);
        }
    }

    pub fn keeps_lists(&self) -> bool {
        self.lists.is_some()
    }

    pub fn list(&self, user_id: &str, limit: usize, now_ms: u64) -> Option<RankedList> {
        self.lists.as_ref()?.list(user_id, limit, now_ms).inspect(|_| self.metrics.local_hits.inc())
    }

    /// The whole response body.
    pub fn response_body(&self, user_id: &str, limit: usize, now_ms: u64) -> Option<Bytes> {
        self.lists.as_ref()?.response_body(user_id, limit, now_ms).inspect(|_| self.metrics.local_hits.inc())
    }

    pub fn keep_list(&self, user_id: &UserId, list: &RankedList, version: UserVersion, now_ms: u64) {
        let Some(lists) = &self.lists else { return };
        lists.keep(user_id, list, now_ms);
        if !self.is_current(version) {
            lists.forget(user_id.as_str());
        }
    }

    pub fn has_no_behaviour(&self, user_id: &UserId) -> bool {
        let known = self.no_behaviour.as_ref().is_some_and(|users| users.contains_key(user_id));
        if known {
            self.metrics.negative_hits.inc();
        }
        known
    }

    pub fn keep_no_behaviour(&self, user_id: &UserId, version: UserVersion) {
        let Some(no_behaviour) = &self.no_behaviour else { return };
        no_behaviour.insert(user_id.clone(), ());
        if !self.is_current(version) {
            no_behaviour.invalidate(user_id);
        }
    }

    pub fn keep_just_loaded(&self, user_id: &UserId) {
        if let Some(just_loaded) = &self.just_loaded {
            just_loaded.insert(user_id.clone(), ());
        }
    }

    /// True at most once per user in `REFRESH_AGAIN`. Always false if the guard is off.
    pub fn may_try_refresh(&self, user_id: &UserId) -> bool {
        let Some(refreshed) = &self.refreshed else { return false };
        if refreshed.contains_key(user_id) {
            return false;
        }
        refreshed.insert(user_id.clone(), ());
        true
    }

    pub fn was_just_loaded(&self, user_id: &UserId) -> bool {
        self.just_loaded.as_ref().is_some_and(|users| users.contains_key(user_id))
    }
}

fn users_for(ms: u64) -> Cache<UserId, ()> {
    Cache::builder().max_capacity(MAX_USERS).time_to_live(Duration::from_millis(ms)).build()
}
