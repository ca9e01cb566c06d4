//! Step 2: may this user exist? An unknown id must not cost a store query.
//!
//! A bloom filter of all users answers most checks. It is built from the shards before the replica is ready, and rebuilt regularly. Its
//! only errors are false positives. Users created after the build ("newcomers") are in a Redis set that all replicas share; marks in the
//! set show whether it may have lost members (`newcomers`). If it may have, an absent user is "unverified": the store is asked, for a
//! bounded number of such users at a time, until the filter is rebuilt (`rebuild`).

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

use self::{filter::Filter, newcomers::Membership};
use crate::{config::GuardsConfig, error::ApiError, metrics::GuardMetrics};

/// Shards that a build reads concurrently. While a lost filter is rebuilt, unknown ids reach the store and compete with these reads.
const CONCURRENT_SHARDS: usize = 4;

pub struct Guard {
    /// Replaced as a whole by `rebuild`. The lock is never held over an await.
    filter: RwLock<Arc<Filter>>,
    unverified_loads: Arc<Semaphore>,
    /// Identifies this replica in its leases.
    replica: String,
    metrics: GuardMetrics,
}

/// Duration of the lease on a generation while the replica builds a filter.
const BUILD_LEASE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserStatus {
    MayExist,
    /// The user did not exist at the time of the check.
    Absent,
    /// The user may exist; the set of newcomers may have lost members. Its load needs `unverified_load_permit`.
    Unverified,
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
            unverified_loads: Arc::new(Semaphore::new(config.unsure_loads)),
            metrics: metrics.clone(),
        })
    }

    pub async fn check(&self, user_id: &UserId, redis: &mut Redis, span: &Span) -> UserStatus {
        let generation = {
            let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
            if filter.contains(user_id.as_str()) {
                self.metrics.present.inc();
                span.set(attribute::GUARD_RESULT, "present");
                return UserStatus::MayExist;
            }
            filter.generation.clone()
        };
        // A filter without a generation never matches a mark, so the result is `Member` or `Unknown`.
        // Boxed: otherwise the future of a check that the filter answers would contain it.
        let membership = Box::pin(newcomers::membership_of(user_id, generation.as_deref().unwrap_or_default(), redis));
        match membership.await {
            Ok(Membership::Member) => {
                self.metrics.newcomer.inc();
                span.set(attribute::GUARD_RESULT, "newcomer");
                UserStatus::MayExist
            }
            Ok(Membership::NotMember) => {
                self.metrics.absent.inc();
                span.set(attribute::GUARD_RESULT, "absent");
                UserStatus::Absent
            }
            Ok(Membership::Unknown) | Err(_) => {
                self.metrics.unverified.inc();
                span.set(attribute::GUARD_RESULT, "unsure");
                UserStatus::Unverified
            }
        }
    }

    /// The right to load an unverified user. Bounded: while Redis is down, random ids from a client must not occupy all connections. The
    /// answer beyond the limit is an error, not popular items, because the user may exist.
    ///
    /// # Errors
    /// `UnverifiedOverload`: the limit is reached.
    pub fn unverified_load_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.unverified_loads).try_acquire_owned().map_err(|_full| {
            self.metrics.unverified_refused.inc();
            ApiError::UnverifiedOverload
        })
    }

    fn current(&self) -> Arc<Filter> {
        Arc::clone(&self.filter.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the previous filter.
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
    // Before the first shard is read: a user that signs up from now on is in the set of this generation.
    let generation = match newcomers::claim(replica, BUILD_LEASE.as_millis() as u64, redis).await {
        Ok(generation) => Some(generation.into()),
        Err(error) => {
            tracing::warn!(%error, "cannot claim a generation of newcomers in redis: unknown ids reach the store until the next rebuild");
            None
        }
    };
    metrics.generation_valid.set(if generation.is_some() { 1.0 } else { 0.0 });
    let users_of = |shard| async move {
        let mut ids: Vec<String> = Vec::new();
        store.each_user(shard, |id| ids.push(String::from_utf8_lossy(id).into_owned())).await?;
        Ok::<_, StoreError>(ids)
    };
    let shards = stream::iter(ShardId::all()).map(users_of).buffer_unordered(CONCURRENT_SHARDS);
    let ids = shards.try_collect::<Vec<_>>().await?;
    // This takes a second of CPU per million users, and must not delay requests.
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
