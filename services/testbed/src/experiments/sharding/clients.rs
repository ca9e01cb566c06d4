//! What the clients do: they read and write users of one shard, or read users by their popularity, with or without Redis.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use contract::{Event, EventKind, ItemId, ShardId, UserId, keys, shard_of};
use rand::{RngExt as _, distr::Distribution as _, distr::weighted::WeightedIndex, rngs::SmallRng};
use runtime::telemetry::Span;
use stores::Store;

use super::window::{Answer, Client};

/// Reads or writes users of one shard.
pub enum ShardClient {
    Reader { store: Store, shard: ShardId, users: Arc<[UserId]>, random: SmallRng },
    Writer { store: Store, shard: ShardId, event: Event },
}

impl ShardClient {
    /// `number` differs among the writers of a shard: each writes a user of its own, and none of those who are read, so that a read costs the
    /// same in every round.
    ///
    /// # Errors
    /// Never: the ids are valid.
    pub fn writer(store: Store, shard: ShardId, number: u32) -> anyhow::Result<Self> {
        let mut of_shard = (0..).map(|n| format!("writer-{n}")).filter(|id| shard_of(id) == shard);
        let id = of_shard.nth(number as usize).context("a shard has no ids")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let event = Event {
            user_id: UserId::new(&id)?,
            item_id: ItemId::new("i1")?,
            kind: EventKind::View,
            at_ms: now.as_millis() as i64,
            weight: 1.0,
        };
        Ok(Self::Writer { store, shard, event })
    }
}

impl Client for ShardClient {
    async fn operate(&mut self) -> anyhow::Result<Answer> {
        match self {
            Self::Reader { store, shard, users, random } => {
                let user = &users[random.random_range(0..users.len())];
                store.history(user, None, &Span::NONE).await?;
                Ok(Answer::Store(*shard))
            }
            Self::Writer { store, shard, event } => {
                // The log keeps an event once: each has another time. A client writes fewer than one event per millisecond, so that a later
                // window, which begins at a later time, writes no event again.
                event.at_ms += 1;
                store.append(std::slice::from_ref(event), event.at_ms, &Span::NONE).await?;
                Ok(Answer::Store(*shard))
            }
        }
    }
}

/// Users by rank, the most popular first.
pub struct Ranked {
    pub ids: Vec<UserId>,
    pub shards: Vec<ShardId>,
}

impl Ranked {
    /// # Errors
    /// Never: the ids are valid.
    pub fn new(users: usize) -> anyhow::Result<Self> {
        let ids = (1..=users).map(|rank| UserId::new(&format!("rank-{rank}"))).collect::<Result<Vec<_>, _>>()?;
        let shards = ids.iter().map(|id| shard_of(id.as_str())).collect();
        Ok(Self { ids, shards })
    }
}

/// Reads users by their popularity. It asks Redis first if it has a connection.
pub struct PopularityClient {
    pub store: Store,
    pub redis: Option<redis::aio::ConnectionManager>,
    pub users: Arc<Ranked>,
    pub popularity: Arc<WeightedIndex<f64>>,
    pub random: SmallRng,
}

impl Client for PopularityClient {
    async fn operate(&mut self) -> anyhow::Result<Answer> {
        let rank = self.popularity.sample(&mut self.random);
        let user = &self.users.ids[rank];
        if let Some(redis) = &mut self.redis {
            let key = keys::recommendations(user.as_str());
            let list: Option<Vec<u8>> = redis::cmd("GET").arg(key).query_async(redis).await?;
            if list.is_some() {
                return Ok(Answer::Redis);
            }
        }
        self.store.history(user, None, &Span::NONE).await?;
        Ok(Answer::Store(self.users.shards[rank]))
    }
}
