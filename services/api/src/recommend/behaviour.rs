//! What a list is ranked from: the raw log (`features = "inline"`), or the features that a worker has prepared (`kafka`). The list is the
//! same.

use std::time::Instant as StdInstant;

use contract::{ShardId, UserId};
use lists::{ModelView, rank_history, rank_window};
use model::Features;
use prometheus::{Histogram, IntCounter};
use runtime::telemetry::Span;
use stores::{LoggedEvent, Store, StoreError, StoredFeatures, Turn};

use crate::config::FeaturesSource;

#[derive(Debug)]
pub struct Behaviour {
    content: Content,
    /// See `RankedList::arrival`.
    pub arrival: u64,
}

#[derive(Debug)]
enum Content {
    /// Newest first.
    History(Vec<LoggedEvent>),
    Features(Features),
}

impl Behaviour {
    /// The user's behaviour, from one read of the store. With `kafka` a second one follows for a user without features, such as one with
    /// imported events only, which `second_reads` counts.
    ///
    /// # Errors
    /// As `Store::history`.
    pub async fn read(
        store: &Store,
        source: FeaturesSource,
        user_id: &UserId,
        turn: Turn,
        (span, second_reads): (&Span, &IntCounter),
    ) -> Result<Self, StoreError> {
        let stored = match source {
            FeaturesSource::Inline => None,
            FeaturesSource::Kafka => store.features(user_id, turn, span).await?,
        };
        match stored.as_ref().and_then(|stored| decode(user_id, stored)) {
            Some(prepared) => Ok(prepared),
            None => {
                if source == FeaturesSource::Kafka {
                    second_reads.inc();
                }
                Ok(Self {
                    content: Content::History(store.history(user_id, turn, span).await?),
                    // The log is read after the row, so it has all events that the row counts.
                    arrival: stored.map_or(0, |stored| stored.arrival),
                })
            }
        }
    }

    /// As `read`, for many users of one shard, before all requests: it replaces hundreds of them. Users without events are left out.
    ///
    /// # Errors
    /// As `Store::histories`.
    pub async fn read_many(
        store: &Store,
        source: FeaturesSource,
        shard: ShardId,
        user_ids: &[UserId],
    ) -> Result<Vec<(UserId, Self)>, StoreError> {
        let stored = match source {
            FeaturesSource::Inline => Default::default(),
            FeaturesSource::Kafka => store.features_of(shard, user_ids, Turn::BATCH).await?,
        };
        let mut read = Vec::with_capacity(user_ids.len());
        let mut without = Vec::new();
        for user_id in user_ids {
            match stored.get(user_id).and_then(|stored| decode(user_id, stored)) {
                Some(prepared) => read.push((user_id.clone(), prepared)),
                None => without.push(user_id.clone()),
            }
        }
        if !without.is_empty() {
            for (user_id, history) in store.histories(shard, &without, Turn::BATCH).await? {
                let arrival = stored.get(&user_id).map_or(0, |stored| stored.arrival);
                read.push((user_id, Self { content: Content::History(history), arrival }));
            }
        }
        Ok(read)
    }

    /// The best `wanted` items that the user has not seen, as (item, score). `None`: the model knows no item of the behaviour. `seconds`
    /// records the duration, unless the result is `None`.
    pub fn rank(&self, model: &ModelView, wanted: usize, seconds: &Histogram) -> Option<Vec<(u32, f32)>> {
        let started = StdInstant::now();
        let ranked = match &self.content {
            Content::History(history) => rank_history(model, history, wanted),
            Content::Features(features) => rank_window(model, features, wanted),
        }?;
        seconds.observe(started.elapsed().as_secs_f64());
        Some(ranked)
    }
}

/// `None`: the row is in the format of another version, or damaged. The log has what it says.
fn decode(user_id: &UserId, stored: &StoredFeatures) -> Option<Behaviour> {
    match Features::decode(&stored.bytes) {
        Ok(features) => Some(Behaviour { content: Content::Features(features), arrival: stored.arrival }),
        Err(error) => {
            tracing::warn!(%user_id, %error, "cannot read the user's features, ranking the raw log");
            None
        }
    }
}
