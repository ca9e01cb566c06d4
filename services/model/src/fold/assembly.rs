//! The whole model, from its segments, one after the other: all of them decoded at the same time take several times the model's memory.

use std::collections::BTreeSet;

use contract::ItemId;

use super::{DecayedCount, PublishedSegment};
use crate::neighbours::{BuiltFrom, NeighbourModel, POPULAR_KEPT, Params, Scored, best_first};

/// First pass: the items of all segments.
#[derive(Debug, Default)]
pub struct ModelItems(BTreeSet<ItemId>);

/// Second pass: their neighbours.
#[derive(Debug)]
pub struct Assembly {
    /// In order of id.
    items: Vec<ItemId>,
    neighbours: Vec<Vec<Scored>>,
    counts: Vec<(u32, DecayedCount)>,
    built_from: BuiltFrom,
}

impl ModelItems {
    pub fn add(&mut self, segment: &PublishedSegment) {
        for row in &segment.rows {
            for id in row.neighbours.iter().map(|(id, _)| id).chain([&row.item]) {
                if !self.0.contains(id) {
                    self.0.insert(id.clone());
                }
            }
        }
    }

    pub fn assemble(self) -> Assembly {
        let items: Vec<ItemId> = self.0.into_iter().collect();
        let neighbours = vec![Vec::new(); items.len()];
        Assembly { items, neighbours, counts: Vec::new(), built_from: BuiltFrom { users: 0, events: 0 } }
    }
}

impl Assembly {
    /// A segment whose items were all named in the first pass; others are left out.
    pub fn add(&mut self, segment: &PublishedSegment) {
        let items = &self.items;
        let number = |id: &ItemId| items.binary_search(id).ok().map(|at| at as u32);
        for row in &segment.rows {
            let Some(item) = number(&row.item) else { continue };
            let scored = row.neighbours.iter().filter_map(|(id, score)| Some((number(id)?, *score)));
            self.neighbours[item as usize] = scored.collect();
            self.counts.push((item, row.popularity));
        }
        self.built_from.users = self.built_from.users.max(segment.users);
        self.built_from.events = self.built_from.events.max(segment.events);
    }

    /// The segments may have different versions: a neighbour without a row has no neighbours itself.
    pub fn finish(self) -> NeighbourModel {
        let popular = most_popular(self.counts.iter().copied());
        NeighbourModel::from_parts(self.items, self.neighbours, popular, Params::default(), self.built_from)
    }
}

impl NeighbourModel {
    /// Items are in order of id. The segments may have different versions: a neighbour without a row has no neighbours itself.
    pub fn from_segments(segments: &[PublishedSegment]) -> Self {
        let mut items = ModelItems::default();
        segments.iter().for_each(|segment| items.add(segment));
        let mut assembly = items.assemble();
        segments.iter().for_each(|segment| assembly.add(segment));
        assembly.finish()
    }
}

/// The popular list. `counts`: of each item, by position.
pub(super) fn most_popular(counts: impl Iterator<Item = (u32, DecayedCount)> + Clone) -> Vec<Scored> {
    let newest = counts.clone().map(|(_, count)| count.period).max().unwrap_or(0);
    let mut popular: Vec<Scored> = counts.map(|(item, count)| (item, count.at(newest) as f32)).collect();
    popular.retain(|&(_, score)| score > 0.0);
    best_first(&mut popular, POPULAR_KEPT);
    popular
}
