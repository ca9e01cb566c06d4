//! The whole model, from a dataset or from published segments.

use std::{collections::BTreeSet, num::NonZero, thread};

use contract::{ItemId, SegmentId, ShardId, shard_of};

use super::{Fold, PublishedSegment};
use crate::{
    dataset::Dataset,
    neighbours::{BadParam, BuiltFrom, NeighbourModel, POPULAR_KEPT, Params, Scored, best_first},
};

/// Segments folded at a time by one thread. More need more memory, fewer more passes over the events.
const SEGMENTS_PER_PASS: usize = 2;

impl Fold {
    /// Folds a whole dataset, in its order. An event's place in the dataset, from 1, is its arrival number.
    pub fn of(data: &Dataset, held: impl IntoIterator<Item = SegmentId>) -> Self {
        let mut fold = Self::new(held);
        // The ids are distinct: numbers in the fold are positions in the dataset.
        data.items.iter().for_each(|id| _ = fold.item_number(id));
        data.users.iter().for_each(|id| _ = fold.user_number(id));
        let logs: Vec<ShardId> = data.users.iter().map(|id| shard_of(id.as_str())).collect();
        for (arrival, e) in (1..).zip(&data.events) {
            fold.version.set(logs[e.user as usize], arrival);
            fold.add_numbered(e.user, e.item, e.at_ms, e.weight);
        }
        fold
    }

    /// All segments of the dataset in its order. `threads` share them; the result does not depend on their number.
    pub fn publish_all(data: &Dataset, threads: NonZero<usize>) -> Vec<PublishedSegment> {
        let passes: Vec<Vec<SegmentId>> =
            SegmentId::all().collect::<Vec<_>>().chunks(SEGMENTS_PER_PASS).map(<[_]>::to_vec).collect();
        let pass = |held: &Vec<SegmentId>| -> Vec<PublishedSegment> {
            let fold = Self::of(data, held.iter().copied());
            held.iter().filter_map(|&segment| fold.publish(segment)).collect()
        };
        let mut published: Vec<PublishedSegment> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.get())
                .map(|first| {
                    let mine = passes.iter().skip(first).step_by(threads.get());
                    scope.spawn(move || mine.flat_map(pass).collect::<Vec<_>>())
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("folding does not panic")).collect()
        });
        published.sort_unstable_by_key(|segment| segment.segment);
        published
    }
}

impl NeighbourModel {
    /// Folds the dataset in order of time, which is the order of the behaviour log. Items keep their positions. `threads` share the work;
    /// the model does not depend on their number. An empty dataset gives an empty model.
    ///
    /// # Errors
    /// A parameter out of range.
    pub fn build(data: &Dataset, params: &Params, threads: NonZero<usize>) -> Result<Self, BadParam> {
        params.check()?;
        let segments = Fold::publish_all(&data.in_order_of_time(), threads);
        Ok(assemble(data.items.clone(), &segments, *params))
    }

    /// Items are in order of id. The segments may have different versions: a neighbour without a row has no neighbours itself.
    pub fn from_segments(segments: &[PublishedSegment]) -> Self {
        let rows = segments.iter().flat_map(|segment| &segment.rows);
        let ids: BTreeSet<&ItemId> =
            rows.flat_map(|row| row.neighbours.iter().map(|(id, _)| id).chain([&row.item])).collect();
        assemble(ids.into_iter().cloned().collect(), segments, Params::default())
    }
}

/// `items`: at least those of the segments, in the order of the model.
fn assemble(items: Vec<ItemId>, segments: &[PublishedSegment], params: Params) -> NeighbourModel {
    let rows = || segments.iter().flat_map(|segment| &segment.rows);
    let built_from = BuiltFrom {
        users: segments.iter().map(|segment| segment.users).max().unwrap_or(0),
        events: segments.iter().map(|segment| segment.events).max().unwrap_or(0),
    };
    // Without rows, for the positions of the items.
    let empty = NeighbourModel::from_parts(items, Vec::new(), Vec::new(), params, built_from);
    let scored = |(id, score): (&ItemId, f32)| Some((empty.index_of(id.as_str())?, score));
    let newest = rows().map(|row| row.popularity.period).max().unwrap_or(0);
    let mut popular: Vec<Scored> =
        rows().filter_map(|row| scored((&row.item, row.popularity.at(newest) as f32))).collect();
    popular.retain(|&(_, score)| score > 0.0);
    best_first(&mut popular, POPULAR_KEPT);
    let mut neighbours: Vec<Vec<Scored>> = vec![Vec::new(); empty.items().len()];
    for row in rows() {
        if let Some(item) = empty.index_of(row.item.as_str()) {
            neighbours[item as usize] = row.neighbours.iter().filter_map(|(id, score)| scored((id, *score))).collect();
        }
    }
    NeighbourModel::from_parts(empty.items().to_vec(), neighbours, popular, params, built_from)
}
