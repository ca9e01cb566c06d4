//! The item-neighbour model as a replica holds it: loaded once, before it is ready.

use anyhow::Context;
use contract::{ItemId, http::ScoredItem};
use model::NeighbourModel;
use stores::Store;

use crate::recommend::{MAX_LIMIT, list::RankedList};

pub struct ModelView {
    pub version: u64,
    pub neighbours: NeighbourModel,
    /// What unknown and cold users get, encoded once.
    pub popular: RankedList,
}

impl ModelView {
    /// Loads the newest complete model.
    ///
    /// # Errors
    /// The catalogue cannot be read, holds no model, or one of another format.
    pub async fn load(store: &Store) -> anyhow::Result<Self> {
        let stored = store.latest_model().await.context("cannot read the catalogue")?;
        let stored = stored.context("the catalogue holds no model: import data first (testbed data import FILE)")?;
        let rows = stored.rows.into_iter().map(|(item, blob)| (item.as_str().to_owned(), blob)).collect();
        let neighbours = NeighbourModel::from_rows(&stored.header, rows)
            .with_context(|| format!("cannot understand model {} of the catalogue", stored.version))?;
        tracing::info!(version = stored.version, items = neighbours.items().len(), "model loaded");
        Ok(Self::new(stored.version, neighbours))
    }

    fn new(version: u64, neighbours: NeighbourModel) -> Self {
        let top = &neighbours.popular()[..neighbours.popular().len().min(MAX_LIMIT)];
        let items = top.iter().map(|&(item, score)| (&neighbours.items()[item as usize], score));
        // Complete: a request for more gets no more. Fresh for ever: it lives as long as the model.
        let popular = RankedList::encode(items, true, version, u64::MAX);
        Self { version, neighbours, popular }
    }

    /// `ranked` came from asking for `wanted` items.
    pub fn encode(&self, ranked: &[(u32, f32)], wanted: usize, fresh_until_ms: u64) -> RankedList {
        let items = ranked.iter().map(|&(item, score)| (self.item(item), score));
        RankedList::encode(items, ranked.len() < wanted, self.version, fresh_until_ms)
    }

    pub fn item(&self, index: u32) -> &ItemId {
        &self.neighbours.items()[index as usize]
    }

    pub fn scored(&self, items: &[(u32, f32)], limit: usize) -> Vec<ScoredItem> {
        let scored = |&(item, score): &(u32, f32)| ScoredItem { item_id: self.item(item).as_str().to_owned(), score };
        items.iter().take(limit).map(scored).collect()
    }
}
