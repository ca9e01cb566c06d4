//! Step 1: does this user exist? An unknown id must not cost a store query.
//!
//! A bloom filter of all users, built from the shards before the replica is ready, answers most. It can be wrong only
//! towards "maybe". A user created after it was built is in a Redis set that all replicas share; the set's generation
//! key tells whether the set is still the one that was there before the filter was built: where it is gone or another one (Redis
//! was restarted), the set may have lost members, and "absent" turns into "maybe".

use contract::{ShardId, UserId, keys};
use probabilistic_collections::{SipHasherBuilder, bloom::BloomFilter};
use redis::aio::ConnectionManager;
use stores::{Store, StoreError};

use crate::metrics::GuardMetrics;

pub struct Guard {
    filter: BloomFilter<String>,
    /// `None`: Redis did not answer while the filter was built, so no "absent" of this filter can be believed.
    generation: Option<String>,
}

/// Seeds of the two hash functions. Fixed, so that all replicas make the same mistakes and a test can be repeated.
const SEEDS: [(u64, u64); 2] = [(0x7465_7374, 0x6265_6431), (0x626c_6f6f, 0x6d32_3032)];
/// A filter for fewer users would be full after a few sign-ups.
const MIN_CAPACITY: usize = 1_000;
/// Ids that no one has, to measure the false-positive rate with.
const PROBES: u32 = 100_000;

impl Guard {
    /// Reads every user id of every shard.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub async fn build(
        store: &Store,
        redis: &mut ConnectionManager,
        fpr: f64,
        metrics: &GuardMetrics,
    ) -> Result<Self, StoreError> {
        // Before the first shard is read: whoever signs up from here on is in the set of this generation.
        let generation = match claim_generation(redis).await {
            Ok(generation) => Some(generation),
            Err(error) => {
                tracing::warn!(%error, "no generation of newcomers: unknown ids will reach the store");
                None
            }
        };
        let mut ids: Vec<String> = Vec::new();
        for shard in ShardId::all() {
            store.each_user(shard, |id| ids.push(String::from_utf8_lossy(id).into_owned())).await?;
        }
        let hashers = SEEDS.map(|(k0, k1)| SipHasherBuilder::from_seed(k0, k1));
        let mut filter = BloomFilter::<String>::with_hashers(ids.len().max(MIN_CAPACITY), fpr, hashers);
        for id in &ids {
            filter.insert::<str>(id);
        }
        let wrong = (0..PROBES).filter(|n| filter.contains::<str>(&format!("\u{1}probe-{n}"))).count();
        metrics.bloom_users.set(ids.len() as f64);
        metrics.bloom_bytes.set(filter.len() as f64 / 8.0);
        metrics.bloom_fpr.set(wrong as f64 / f64::from(PROBES));
        tracing::info!(
            users = ids.len(),
            bytes = filter.len() / 8,
            fpr = wrong as f64 / f64::from(PROBES),
            "bloom filter built"
        );
        Ok(Self { filter, generation })
    }

    /// False only if the user certainly did not exist when this was called.
    pub async fn may_exist(&self, user_id: &UserId, redis: &mut ConnectionManager, metrics: &GuardMetrics) -> bool {
        if self.filter.contains::<str>(user_id.as_str()) {
            metrics.present.inc();
            return true;
        }
        let asked = redis::pipe()
            .get(keys::NEWCOMERS_GENERATION)
            .sismember(keys::NEWCOMERS, user_id.as_str())
            .query_async::<(Option<String>, bool)>(redis)
            .await;
        match asked {
            Ok((_, true)) => {
                metrics.newcomer.inc();
                true
            }
            Ok((generation, false)) if generation.is_some() && generation == self.generation => {
                metrics.absent.inc();
                false
            }
            _ => {
                metrics.unsure.inc();
                true
            }
        }
    }
}

/// Tells all replicas that the user exists; to be done before the user is written.
///
/// # Errors
/// Redis did not take it: the user must not be created then.
pub async fn announce(user_ids: &[&UserId], redis: &mut ConnectionManager) -> redis::RedisResult<()> {
    let mut command = redis::cmd("SADD");
    command.arg(keys::NEWCOMERS);
    for user_id in user_ids {
        command.arg(user_id.as_str());
    }
    command.query_async(redis).await
}

/// The generation of the newcomers' set: the one that is there, or a new one.
async fn claim_generation(redis: &mut ConnectionManager) -> redis::RedisResult<String> {
    let mine = format!("{:016x}", rand::random::<u64>());
    let (_, current): (Option<String>, String) = redis::pipe()
        .cmd("SET")
        .arg(keys::NEWCOMERS_GENERATION)
        .arg(mine)
        .arg("NX")
        .get(keys::NEWCOMERS_GENERATION)
        .query_async(redis)
        .await?;
    Ok(current)
}
