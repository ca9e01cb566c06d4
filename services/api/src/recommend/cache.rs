//! Steps 3 and 6: the user's list in Redis, key `rec_<id>`.

use std::sync::Arc;

use bytes::Bytes;
use contract::{
    UserId, keys,
    spans::{attribute, name},
};
use lists::{RankedList, Replaces, Written};
use runtime::telemetry::{Kind, Span};
use stores::redis::Redis;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::task::TaskTracker;

use super::memory::{Memory, UserVersion};
use crate::{
    config::{ApiConfig, CacheConfig, FeaturesSource},
    metrics::CacheMetrics,
};

#[derive(Clone)]
pub struct Cache {
    redis: Redis,
    memory: Arc<Memory>,
    config: CacheConfig,
    replaces: Replaces,
    metrics: CacheMetrics,
    fills: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// The result of a read from Redis.
pub enum Lookup {
    Fresh(RankedList),
    /// Expired: used only if the store fails.
    Stale(RankedList),
    Nothing,
}

impl Cache {
    pub fn new(
        redis: Redis,
        memory: Arc<Memory>,
        config: &ApiConfig,
        metrics: CacheMetrics,
        tasks: TaskTracker,
    ) -> Self {
        let replaces = match config.features {
            FeaturesSource::Inline => Replaces::Any,
            FeaturesSource::Kafka => Replaces::NotNewer,
        };
        let config = config.cache.clone();
        let fills = Arc::new(Semaphore::new(config.max_fills));
        Self { redis, memory, config, replaces, metrics, fills, tasks }
    }

    /// A failure or timeout of Redis is counted, and the result is `Nothing`.
    pub async fn get(&self, user_id: &UserId, limit: usize, now_ms: u64, redis: &mut Redis, span: &Span) -> Lookup {
        let answer =
            redis::cmd("GET").arg(keys::recommendations(user_id.as_str())).query_async::<Option<Bytes>>(redis).await;
        let list = match answer {
            Ok(bytes) => bytes.and_then(RankedList::decode).filter(|list| list.answers(limit)),
            Err(error) => {
                tracing::debug!(%error, "cache read failed");
                self.metrics.error.inc();
                span.set(attribute::CACHE_RESULT, "error");
                return Lookup::Nothing;
            }
        };
        match list {
            Some(list) if now_ms < list.fresh_until_ms() => {
                self.metrics.hit.inc();
                span.set(attribute::CACHE_RESULT, "hit");
                Lookup::Fresh(list)
            }
            Some(list) => {
                self.metrics.expired.inc();
                span.set(attribute::CACHE_RESULT, "expired");
                Lookup::Stale(list)
            }
            None => {
                self.metrics.miss.inc();
                span.set(attribute::CACHE_RESULT, "miss");
                Lookup::Nothing
            }
        }
    }

    /// The time until which a list computed now is fresh, Unix ms: `fresh_ms` ± 10 % from now.
    pub fn fresh_until(&self, now_ms: u64) -> u64 {
        let varied = self.config.fresh_ms as f64 * rand::random_range(0.9..1.1);
        now_ms + varied as u64
    }

    /// Writes the list in a background task, so that the response does not wait. Skipped if the user has acted since `version` was read: a
    /// stale list must not come back. `None`: dropped, because too many writes are in flight.
    pub fn fill(
        &self,
        user_id: &UserId,
        list: &RankedList,
        version: UserVersion,
        now_ms: u64,
        span: &Span,
    ) -> Option<JoinHandle<()>> {
        let filling = span.child(Kind::Internal, name::CACHE_FILL);
        let Ok(permit) = Arc::clone(&self.fills).try_acquire_owned() else {
            self.metrics.fill_dropped.inc();
            filling.fail("dropped");
            return None;
        };
        let (mut redis, metrics, memory) =
            (self.redis.traced(&filling), self.metrics.clone(), Arc::clone(&self.memory));
        let (user_id, list) = (user_id.clone(), list.clone());
        let (replaces, times) = (self.replaces, (now_ms, self.config.stale_ms));
        let filled = self.tasks.spawn(async move {
            let _permit = permit;
            if !memory.is_current(version) {
                return;
            }
            match lists::set_list(&user_id, &list, replaces, times, &mut redis).await {
                Ok(written) => metrics.count_fill(written),
                Err(error) => {
                    tracing::debug!(%error, "cache fill failed");
                    filling.fail("redis");
                    metrics.fill_failed.inc();
                }
            }
        });
        Some(filled)
    }

    /// Writes many lists in one round trip, for warm-up.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn fill_many(&self, lists: &[(UserId, RankedList)], now_ms: u64) -> redis::RedisResult<()> {
        let times = (now_ms, self.config.stale_ms);
        for written in lists::set_lists(lists, self.replaces, times, &mut self.redis.clone()).await? {
            self.metrics.count_fill(written);
        }
        Ok(())
    }

    /// Deletes the lists of users that have acted. To be called after `Memory::forget`; otherwise a background write could restore a list.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn forget(&self, user_ids: &[&UserId], redis: &mut Redis) -> redis::RedisResult<()> {
        let mut command = redis::cmd("DEL");
        for user_id in user_ids {
            command.arg(keys::recommendations(user_id.as_str()));
        }
        command.query_async(redis).await
    }
}

impl CacheMetrics {
    fn count_fill(&self, written: Written) {
        match written {
            Written::Set => self.fill_ok.inc(),
            Written::KeptNewer => self.fill_outdated.inc(),
        }
    }
}
