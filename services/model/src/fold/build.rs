//! The whole model from a dataset: the sums of `Fold::of`, in less memory than a fold that can go on needs.
//!
//! * Users' windows do not depend on each other, so it goes user by user and has one window at a time.
//! * A fold has the sums of all pairs in hash maps. Here each pass over the dataset lists the pairs of some items, and adds them up item by
//!   item.

use std::{mem, num::NonZero, thread};

use super::{
    assembly::most_popular,
    pairs,
    popularity::Popularity,
    scores,
    window::{Visit, Window},
};
use crate::{
    dataset::{Dataset, Timelines},
    neighbours::{BuiltFrom, NeighbourModel, Params, Scored},
};

/// They share the memory: more threads would need more passes.
const MAX_THREADS: usize = 4;
/// Pairs in memory at a time, of all threads together: 24 MiB.
const PAIRS_AT_A_TIME: usize = 1 << 21;
/// Passes of each thread. A larger dataset gets more memory instead.
const MAX_PASSES: usize = 32;

impl NeighbourModel {
    /// The model that `from_segments` makes of all segments of `Fold::of`: each user's events are folded in the order of the dataset, and
    /// items without events are left out. At most 4 `threads` share the work; the model does not depend on their number. An empty dataset
    /// gives an empty model.
    pub fn build(data: &Dataset, threads: NonZero<usize>) -> Self {
        Self::build_with(data, threads, PAIRS_AT_A_TIME)
    }

    fn build_with(data: &Dataset, threads: NonZero<usize>, pairs_at_a_time: usize) -> Self {
        let by_user = data.by_user();
        let users = (0..).take(data.users.len()).filter(|&user| !by_user.of(user).is_empty()).count() as u64;
        let counts = count(data, &by_user);
        let with_events = |item: &u32| !counts[*item as usize].popularity.is_empty();
        let mut items: Vec<u32> = (0..).take(data.items.len()).filter(with_events).collect();
        items.sort_unstable_by_key(|&item| &data.items[item as usize]);
        let threads = threads.get().min(MAX_THREADS);
        let passes = passes(&counts, &items, pairs_at_a_time, threads);
        let mut neighbours = neighbours(data, &by_user, &counts, &passes, threads);
        drop(by_user);

        let mut positions = vec![0_u32; data.items.len()];
        for (position, &item) in (0..).zip(&items) {
            positions[item as usize] = position;
        }
        neighbours.iter_mut().flatten().for_each(|(item, _)| *item = positions[*item as usize]);
        let popularity = items.iter().map(|&item| counts[item as usize].popularity.read());
        let popular = most_popular((0..).zip(popularity));
        let items = items.into_iter().map(|item| data.items[item as usize].clone()).collect();
        let built_from = BuiltFrom { users, events: data.events.len() as u64 };
        Self::from_parts(items, neighbours, popular, Params::default(), built_from)
    }
}

#[derive(Clone, Default)]
struct ItemCounts {
    /// How often it entered a window.
    visitors: u64,
    popularity: Popularity,
    /// With repetitions: the length of its list of pairs, at most.
    pairs: usize,
}

/// Of all items.
fn count(data: &Dataset, by_user: &Timelines) -> Vec<ItemCounts> {
    let mut counts = vec![ItemCounts::default(); data.items.len()];
    let mut window = Window::default();
    for e in &data.events {
        counts[e.item as usize].popularity.add(e.at_ms);
    }
    for user in (0..).take(data.users.len()) {
        fold_user(data, by_user.of(user), &mut window, |visits, place| {
            let new = &mut counts[visits[place].item as usize];
            new.visitors += 1;
            new.pairs += visits.len();
            visits.iter().for_each(|other| counts[other.item as usize].pairs += 1);
        });
    }
    counts
}

/// Calls `entered` with the window and a place in it whenever an item is new to it. The window is a buffer.
fn fold_user(data: &Dataset, events: &[usize], window: &mut Window, mut entered: impl FnMut(&[Visit], usize)) {
    window.clear();
    for &at in events {
        let e = &data.events[at];
        if let Some(place) = window.enter(e.item, e.at_ms, e.weight, |item| &data.items[item as usize]) {
            entered(window.visits(), place);
        }
    }
}

/// Splits the items, in their order. An item with more pairs than fit has a pass of its own.
fn passes<'a>(counts: &[ItemCounts], items: &'a [u32], pairs_at_a_time: usize, threads: usize) -> Vec<&'a [u32]> {
    let pairs = |item: &u32| counts[*item as usize].pairs;
    let total: usize = items.iter().map(pairs).sum();
    let limit = pairs_at_a_time.max(total / MAX_PASSES) / threads;
    let (mut passes, mut rest) = (Vec::new(), items);
    while !rest.is_empty() {
        let mut sum = 0;
        let fits = |item: &&u32| {
            sum += pairs(item);
            sum <= limit
        };
        let (pass, after) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        passes.push(pass);
        rest = after;
    }
    passes
}

/// The neighbours of each item of the passes, by numbers in the dataset.
fn neighbours(
    data: &Dataset,
    by_user: &Timelines,
    counts: &[ItemCounts],
    passes: &[&[u32]],
    threads: usize,
) -> Vec<Vec<Scored>> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                let mine: Vec<&[u32]> = passes.iter().skip(first).step_by(threads).copied().collect();
                scope.spawn(move || {
                    let mut lists = PairLists::new(counts);
                    mine.into_iter().map(|items| lists.pass(data, by_user, items)).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut rows: Vec<_> =
            workers.into_iter().map(|worker| worker.join().expect("building does not panic").into_iter()).collect();
        let in_order = (0..passes.len()).filter_map(|pass| rows[pass % threads].next());
        in_order.flatten().collect()
    })
}

/// The pairs of the items of a pass, and their sums. Reused for the next pass.
struct PairLists<'a> {
    counts: &'a [ItemCounts],
    /// Per item.
    in_pass: Vec<bool>,
    /// Per item of the pass: where the next pair of its list goes.
    ends: Vec<usize>,
    /// The other item of each pair, and its amount.
    others: Vec<u32>,
    amounts: Vec<u64>,
    /// Per other item, for one item at a time; 0 between.
    sums: Vec<u64>,
    /// Items whose sum is not 0.
    touched: Vec<u32>,
}

impl<'a> PairLists<'a> {
    fn new(counts: &'a [ItemCounts]) -> Self {
        Self {
            counts,
            in_pass: vec![false; counts.len()],
            ends: vec![0; counts.len()],
            others: Vec::new(),
            amounts: Vec::new(),
            sums: vec![0; counts.len()],
            touched: Vec::new(),
        }
    }

    /// The neighbours of these items.
    fn pass(&mut self, data: &Dataset, by_user: &Timelines, items: &[u32]) -> Vec<Vec<Scored>> {
        let mut end = 0;
        for &item in items {
            self.in_pass[item as usize] = true;
            self.ends[item as usize] = end;
            end += self.counts[item as usize].pairs;
        }
        self.others.resize(end, 0);
        self.amounts.resize(end, 0);
        let mut window = Window::default();
        for user in (0..).take(data.users.len()) {
            let events = by_user.of(user);
            if events.iter().any(|&at| self.in_pass[data.events[at].item as usize]) {
                fold_user(data, events, &mut window, |visits, place| self.add_pairs(visits, place));
            }
        }
        let mut start = 0;
        let rows = items.iter().map(|&item| {
            let row = self.row(data, item, start);
            start += self.counts[item as usize].pairs;
            row
        });
        rows.collect()
    }

    fn add_pairs(&mut self, visits: &[Visit], place: usize) {
        let Self { in_pass, ends, others, amounts, .. } = self;
        let new = visits[place].item;
        let all = in_pass[new as usize];
        for (other, amount) in pairs::with(visits, place, |other| all || in_pass[other as usize]) {
            for (from, to) in [(new, other), (other, new)] {
                if in_pass[from as usize] {
                    let end = &mut ends[from as usize];
                    (others[*end], amounts[*end]) = (to, amount);
                    *end += 1;
                }
            }
        }
    }

    fn row(&mut self, data: &Dataset, item: u32, start: usize) -> Vec<Scored> {
        let Self { counts, in_pass, ends, others, amounts, sums, touched } = self;
        in_pass[item as usize] = false;
        let end = ends[item as usize];
        for (&other, &amount) in others[start..end].iter().zip(&amounts[start..end]) {
            let sum = &mut sums[other as usize];
            if *sum == 0 {
                touched.push(other);
            }
            *sum = sum.saturating_add(amount);
        }
        let visitors = |item: u32| counts[item as usize].visitors;
        let score = |other: u32| {
            let sum = mem::take(&mut sums[other as usize]);
            (other, scores::score(sum, visitors(item), visitors(other)))
        };
        let mut row: Vec<Scored> = touched.drain(..).map(score).collect();
        scores::keep_best(&mut row, |other| &data.items[other as usize]);
        row.shrink_to_fit();
        row
    }
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
