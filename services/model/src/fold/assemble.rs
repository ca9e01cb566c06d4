//! The whole model, from its segments.

use std::{collections::BTreeSet, num::NonZero, thread};

use contract::{Event, ItemId, SHARDS, SegmentId, ShardId, shard_of};

use super::{DecayedCount, Fold, PublishedSegment};
use crate::{
    dataset::Dataset,
    neighbours::{BuiltFrom, NeighbourModel, POPULAR_KEPT, Params, Scored, best_first},
};

impl Fold {
    /// Folds a whole dataset, in its order. An event's place in its log, from 1, is its arrival number, as in a store that has only this
    /// dataset. `threads` share the logs; the result does not depend on their number.
    pub fn of(data: &Dataset, held: &[SegmentId], threads: NonZero<usize>) -> Self {
        let logs: Vec<ShardId> = data.users.iter().map(|user| shard_of(user.as_str())).collect();
        let part = |thread: usize| {
            let mut fold = Self::new(held.iter().copied());
            let mut arrivals = [0; SHARDS as usize];
            for e in &data.events {
                let (user, item) = (e.user as usize, e.item as usize);
                let log = logs[user].index();
                if log % threads == thread {
                    arrivals[log] += 1;
                    let (user_id, item_id) = (data.users[user].clone(), data.items[item].clone());
                    let event = Event { user_id, item_id, kind: e.kind, at_ms: e.at_ms, weight: e.weight };
                    fold.add(&event, arrivals[log]);
                }
            }
            fold
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads.get()).map(|thread| scope.spawn(move || part(thread))).collect();
            let mut fold = part(0);
            for other in others {
                let other = other.join().expect("folding does not panic");
                fold.merge(other).expect("each thread has logs of its own");
            }
            fold
        })
    }
}

impl NeighbourModel {
    /// Items are in order of id. The segments may have different versions: a neighbour without a row has no neighbours itself.
    pub fn from_segments(segments: &[PublishedSegment]) -> Self {
        let rows = || segments.iter().flat_map(|segment| &segment.rows);
        let ids: BTreeSet<&ItemId> =
            rows().flat_map(|row| row.neighbours.iter().map(|(id, _)| id).chain([&row.item])).collect();
        let ids: Vec<ItemId> = ids.into_iter().cloned().collect();
        let number = |id: &ItemId| ids.binary_search(id).expect("the ids of all rows") as u32;
        let mut neighbours: Vec<Vec<Scored>> = vec![Vec::new(); ids.len()];
        for row in rows() {
            let scored = row.neighbours.iter().map(|(id, score)| (number(id), *score));
            neighbours[number(&row.item) as usize] = scored.collect();
        }
        let popular = most_popular(rows().map(|row| (number(&row.item), row.popularity)));
        let built_from = BuiltFrom {
            users: segments.iter().map(|segment| segment.users).max().unwrap_or(0),
            events: segments.iter().map(|segment| segment.events).max().unwrap_or(0),
        };
        Self::from_parts(ids, neighbours, popular, Params::default(), built_from)
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
