//! One version of the item-neighbour model, as requests use it.

use std::sync::Arc;

use anyhow::Context;
use contract::{ItemId, SegmentId, http::ScoredItem};
use model::{ModelItems, NeighbourModel, PublishedSegment};
use segments::{FileError, decode};
use stores::Store;

use crate::ranked_list::RankedList;

/// Most items of an answer, and of a list.
pub const MAX_ITEMS: usize = 100;

pub struct ModelView {
    /// From the store: its number there. From segments: the sum of all positions of their 16 version vectors, which only grows.
    pub version: u64,
    pub neighbours: NeighbourModel,
    /// The popular items, encoded once. Unknown users and users without behaviour get them.
    pub popular: RankedList,
}

impl ModelView {
    /// Loads the newest complete model.
    ///
    /// # Errors
    /// The catalogue cannot be read, has no model, or has a model in another format.
    pub async fn load(store: &Store) -> anyhow::Result<Self> {
        let stored = store.latest_model().await.context("cannot read the catalogue")?;
        let stored = stored.context("the catalogue has no model: import data first (testbed data import FILE)")?;
        let rows = stored.rows.into_iter().map(|(item, blob)| (item.as_str().to_owned(), blob)).collect();
        let neighbours = NeighbourModel::from_rows(&stored.header, rows)
            .with_context(|| format!("cannot decode model {} of the catalogue", stored.version))?;
        tracing::info!(version = stored.version, items = neighbours.items().len(), "model loaded");
        Ok(Self::new(stored.version, neighbours))
    }

    /// The model of all 16 segments, which may have different versions.
    pub fn of_segments(segments: &[PublishedSegment]) -> Self {
        let positions = segments.iter().flat_map(|segment| segment.version.positions());
        let version = positions.fold(0, |sum: u64, &position| sum.saturating_add(position));
        Self::new(version, NeighbourModel::from_segments(segments))
    }

    /// As `of_segments`, from the segments' files, of which one is decoded at a time.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of_files(files: &[(SegmentId, Arc<Vec<u8>>)]) -> Result<Self, FileError> {
        let (mut items, mut version) = (ModelItems::default(), 0_u64);
        for (segment, bytes) in files {
            let segment = decode(bytes, *segment)?;
            version = segment.version.positions().iter().fold(version, |sum, position| sum.saturating_add(*position));
            items.add(&segment);
        }
        let mut assembly = items.assemble();
        for (segment, bytes) in files {
            assembly.add(&decode(bytes, *segment)?);
        }
        Ok(Self::new(version, assembly.finish()))
    }

    fn new(version: u64, neighbours: NeighbourModel) -> Self {
        let top = &neighbours.popular()[..neighbours.popular().len().min(MAX_ITEMS)];
        let items = top.iter().map(|&(item, score)| (&neighbours.items()[item as usize], score));
        // Complete, as there are no more popular items; always fresh, as long as the model is loaded.
        let popular = RankedList::encode(items, true, version, u64::MAX, 0);
        Self { version, neighbours, popular }
    }

    /// `wanted`: the number of items that the ranking was asked for. `arrival`: see `RankedList::arrival`.
    pub fn encode(&self, ranked: &[(u32, f32)], wanted: usize, fresh_until_ms: u64, arrival: u64) -> RankedList {
        let items = ranked.iter().map(|&(item, score)| (self.item(item), score));
        RankedList::encode(items, ranked.len() < wanted, self.version, fresh_until_ms, arrival)
    }

    pub fn item(&self, index: u32) -> &ItemId {
        &self.neighbours.items()[index as usize]
    }

    pub fn scored(&self, items: &[(u32, f32)], limit: usize) -> Vec<ScoredItem> {
        let scored = |&(item, score): &(u32, f32)| ScoredItem { item_id: self.item(item).as_str().to_owned(), score };
        items.iter().take(limit).map(scored).collect()
    }
}
