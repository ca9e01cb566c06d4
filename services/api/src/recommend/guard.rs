//! Step 1: does this user exist? An unknown id must not cost a store query.
//!
//! A bloom filter of all users, built from the shards before the replica is ready and rebuilt now and then, answers most. It
//! can be wrong only towards "maybe". A user created after it was built is in a Redis set that all replicas share; the marks in
//! the set tell whether it can have lost members since (`newcomers`). Where it can, "absent" turns into "unsure": such an id goes
//! on to the store, a bounded number of them at a time, until the filter is rebuilt (`rebuild`).

mod filter;
mod newcomers;
pub mod rebuild;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use contract::{ShardId, UserId, spans::attribute};
use futures::{StreamExt, TryStreamExt, stream};
use runtime::telemetry::Span;
use stores::{Store, StoreError, redis::Redis};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::{filter::Filter, newcomers::Verdict};
use crate::{config::GuardsConfig, error::ApiError, metrics::GuardMetrics};

pub use newcomers::announce;

/// Shards that are read at the same time: until a lost filter is built anew, ids nobody has reach the store, and each shard's answer
/// waits behind theirs.
const SHARDS_AT_ONCE: usize = 4;

pub struct Guard {
    /// Swapped whole by `rebuild`. Never held over an await.
    filter: RwLock<Arc<Filter>>,
    unsure_loads: Arc<Semaphore>,
    /// This replica's name in its leases.
    replica: String,
    metrics: GuardMetrics,
}

/// The lease on a generation while the replica builds a filter, or is about to.
const BUILD_LEASE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    Maybe,
    /// Did certainly not exist when this was asked.
    No,
    /// Perhaps: what would tell may be lost. Its load needs `unsure_permit`.
    Unsure,
}

impl Guard {
    /// Reads every user id of every shard.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub async fn build(
        store: &Store,
        redis: &mut Redis,
        config: &GuardsConfig,
        metrics: &GuardMetrics,
    ) -> anyhow::Result<Self> {
        let replica = format!("{:016x}", rand::random::<u64>());
        let filter = build_filter(store, redis, config.bloom_fpr, &replica, metrics).await?;
        Ok(Self {
            replica,
            filter: RwLock::new(Arc::new(filter)),
            unsure_loads: Arc::new(Semaphore::new(config.unsure_loads)),
            metrics: metrics.clone(),
        })
    }

    pub async fn check(&self, user_id: &UserId, redis: &mut Redis, span: &Span) -> Existence {
        let generation = {
            let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
            if filter.contains(user_id.as_str()) {
                self.metrics.present.inc();
                span.set(attribute::GUARD_RESULT, "present");
                return Existence::Maybe;
            }
            filter.generation.clone()
        };
        // Without a generation of its own the filter can still be told of a newcomer, and of nothing else.
        // In a box of its own: users the filter knows would carry it along.
        let asked = Box::pin(newcomers::ask(user_id, generation.as_deref().unwrap_or_default(), redis));
        match asked.await {
            Ok(Verdict::Newcomer) => {
                self.metrics.newcomer.inc();
                span.set(attribute::GUARD_RESULT, "newcomer");
                Existence::Maybe
            }
            Ok(Verdict::Absent) => {
                self.metrics.absent.inc();
                span.set(attribute::GUARD_RESULT, "absent");
                Existence::No
            }
            Ok(Verdict::Unsure) | Err(_) => {
                self.metrics.unsure.inc();
                span.set(attribute::GUARD_RESULT, "unsure");
                Existence::Unsure
            }
        }
    }

    /// Leave to ask the store about an id of which nothing is known. Bounded: while Redis is away, ids made up by a client
    /// must not take all connections. Not `popular` beyond it, as the user may exist.
    ///
    /// # Errors
    /// Too many are under way.
    pub fn unsure_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.unsure_loads).try_acquire_owned().map_err(|_full| {
            self.metrics.unsure_refused.inc();
            ApiError::UnsureOverload
        })
    }

    fn current(&self) -> Arc<Filter> {
        Arc::clone(&self.filter.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the former one.
    fn swap(&self, filter: Filter) -> Arc<Filter> {
        std::mem::replace(&mut *self.filter.write().unwrap_or_else(PoisonError::into_inner), Arc::new(filter))
    }
}

async fn build_filter(
    store: &Store,
    redis: &mut Redis,
    fpr: f64,
    replica: &str,
    metrics: &GuardMetrics,
) -> anyhow::Result<Filter> {
    // Before the first shard is read: whoever signs up from here on is in the set of this generation.
    let generation = match newcomers::claim(replica, BUILD_LEASE.as_millis() as u64, redis).await {
        Ok(generation) => Some(generation.into()),
        Err(error) => {
            tracing::warn!(%error, "no generation of newcomers: unknown ids will reach the store");
            None
        }
    };
    metrics.generation_valid.set(if generation.is_some() { 1.0 } else { 0.0 });
    let users_of = |shard| async move {
        let mut ids: Vec<String> = Vec::new();
        store.each_user(shard, |id| ids.push(String::from_utf8_lossy(id).into_owned())).await?;
        Ok::<_, StoreError>(ids)
    };
    let shards = stream::iter(ShardId::all()).map(users_of).buffer_unordered(SHARDS_AT_ONCE);
    let ids = shards.try_collect::<Vec<_>>().await?;
    // A second of CPU for a million users: requests must not wait for it.
    let built = tokio::task::spawn_blocking(move || {
        let filter = Filter::build(&ids, fpr, generation);
        let measured = filter.measured_fpr();
        (filter, measured)
    });
    let (filter, measured) = built.await?;
    metrics.bloom_users.set(filter.users as f64);
    metrics.bloom_bytes.set(filter.bytes() as f64);
    metrics.bloom_fpr.set(measured);
    tracing::info!(users = filter.users, bytes = filter.bytes(), fpr = measured, "bloom filter built");
    Ok(filter)
}
