//! Step 9: ranks users' lists from their features and writes them to Redis. Each list carries the arrival number of its features, so that
//! Redis keeps the newer one of two.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use contract::UserId;
use lists::{Model, ModelView, RankedList, Replaces, rank_window, set_lists};
use model::Features;
use stores::{Store, announce, redis::Redis};
use tokio::sync::{OnceCell, watch};

use crate::config::ListsConfig;

/// Lists that are ranked at a time and written in one round trip: heartbeats share the thread, and must not wait for many of them.
pub const CHUNK: usize = 100;

/// A user whose list is not in Redis yet.
pub struct Unpublished<'a> {
    pub user_id: &'a UserId,
    pub features: &'a Features,
    /// Arrival number of the last event in `features`.
    pub arrival: u64,
    /// The filters of replicas may not have the user: it was announced when its events were accepted, perhaps long ago.
    pub announce: bool,
}

pub struct Publisher {
    store: Store,
    redis: Redis,
    config: ListsConfig,
    model: ModelOfLists,
}

/// The model that the replicas have, too.
pub enum ModelOfLists {
    /// Loaded for the first lists: a worker may start before there is a model. Later models are for later processes, as in the replicas.
    Store(OnceCell<Arc<ModelView>>),
    /// `None`: a segment has not been published yet.
    Segments(watch::Receiver<Option<Model>>),
}

impl Publisher {
    pub fn new(store: Store, redis: Redis, config: ListsConfig, model: ModelOfLists) -> Self {
        Self { store, redis, config, model }
    }

    async fn model(&self) -> anyhow::Result<Arc<ModelView>> {
        match &self.model {
            ModelOfLists::Store(loaded) => {
                let load = async || ModelView::load(&self.store).await.map(Arc::new);
                loaded.get_or_try_init(load).await.map(Arc::clone)
            }
            ModelOfLists::Segments(model) => {
                let model = model.borrow().as_ref().map(Model::current);
                model.context("not all segments of the model have been published yet")
            }
        }
    }

    /// At most `CHUNK` users. Users whose items the model does not know get no list: replicas answer them with the popular items.
    ///
    /// # Errors
    /// There is no model yet, or Redis failed. Some lists may have been written; writing them again is harmless.
    pub async fn publish(&self, users: &[Unpublished<'_>]) -> anyhow::Result<()> {
        let model = &*self.model().await?;
        let redis = &mut self.redis.clone();
        let new: Vec<&UserId> = users.iter().filter(|user| user.announce).map(|user| user.user_id).collect();
        if !new.is_empty() {
            announce(&new, redis).await.context("cannot announce users in Redis")?;
        }
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        let lists = users.iter().filter_map(|user| Some((user.user_id.clone(), self.rank(model, user, now_ms)?)));
        let lists: Vec<(UserId, RankedList)> = lists.collect();
        let written = set_lists(&lists, Replaces::NotNewer, (now_ms, self.config.stale_ms), redis).await;
        written.map(drop).context("cannot write lists to Redis")
    }

    fn rank(&self, model: &ModelView, user: &Unpublished<'_>, now_ms: u64) -> Option<RankedList> {
        let wanted = self.config.items;
        let ranked = rank_window(model, user.features, wanted)?;
        // Lists written together do not expire together.
        let fresh_ms = self.config.fresh_ms as f64 * rand::random_range(0.9..1.1);
        Some(model.encode(&ranked, wanted, now_ms + fresh_ms as u64, user.arrival))
    }
}
