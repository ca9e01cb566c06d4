//! The item-neighbour model and its construction: item-to-item collaborative filtering by co-occurrence.
//!
//! Two items are similar if the same users have events with both, one soon after the other:
//!
//! ```text
//! co(i, j)  = Σ over users u with both:  ½^(places between / gap_half_life_places)
//!                                        × 1 / (1 + time between / gap_half_life_days)
//!                                        × strength(u, i) × strength(u, j)
//! sim(i, j) = co(i, j) / ((n(i) + 2) × (n(j) + 2)) ^ damping        n(i) = number of users with i in their history
//! ```
//!
//! "Places" count a user's distinct items in order of time. They carry over between shops where people buy once a month
//! and sites where they rate thirty films in ten minutes; days alone would not. `strength` is weight^¼: a purchase counts
//! more than a view, but four views of four items count more than one purchase. The 2 prevents a perfect similarity of two
//! items that only one user has.
//!
//! The defaults were chosen on ml-100k with each user's last item removed, by predicting the last but one; `quality`
//! reports the last one, whose figures were visible during tuning but did not decide it. The optimum is flat: damping
//! 0.4 to 0.6, 5 to 20 places, 1 to 100 days and a recency of 1 to 5 places are all within one standard error of NDCG@10
//! (0.129 ± 0.009). Without the decay in ranking, NDCG@10 falls by a half; without the decay by places in pairs, by an eighth.
//! The decay by days makes no difference there, because most of those users have a single session.

use std::{collections::HashMap, num::NonZero, thread};

use contract::ItemId;
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;

/// Length of the popular list: a request may ask for 100 items, and its user may have seen the 400 most popular.
pub(crate) const POPULAR_KEPT: usize = 500;

const MS_PER_DAY: f64 = 86_400_000.0;
const PRIOR_USERS: f32 = 2.0;

/// Stored with the model, because ranking uses some of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Most recent items of a user that form pairs; bounds the cost of heavy users. 2..=10,000.
    pub history_cap: u32,
    /// Neighbours kept per item. 1..=1000.
    pub neighbours_per_item: u32,
    /// 0 favours popular items, 0.5 is the cosine, 1 favours rare items. 0..=1.
    pub damping: f32,
    /// Distance of two items in the history, in items, at which their pair counts half. > 0.
    pub gap_half_life_places: f32,
    /// Time between two items, in days, at which their pair counts half. > 0.
    pub gap_half_life_days: f32,
    /// Ranking: how far back in the history (in items) an item counts half. > 0.
    pub recency_half_life_places: f32,
    /// Half-life of an event's share in its item's popularity, counted from the newest event. > 0.
    pub popular_half_life_days: f32,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            history_cap: 200,
            neighbours_per_item: 100,
            damping: 0.5,
            gap_half_life_places: 10.0,
            gap_half_life_days: 30.0,
            recency_half_life_places: 3.0,
            popular_half_life_days: 30.0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model parameter {0} is out of range")]
pub struct BadParam(pub &'static str);

impl Params {
    pub(crate) fn check(&self) -> Result<(), BadParam> {
        let positive = |value: f32| value > 0.0 && value.is_finite();
        let rules = [
            ("history_cap", (2..=10_000).contains(&self.history_cap)),
            ("neighbours_per_item", (1..=1000).contains(&self.neighbours_per_item)),
            ("damping", (0.0..=1.0).contains(&self.damping)),
            ("gap_half_life_places", positive(self.gap_half_life_places)),
            ("gap_half_life_days", positive(self.gap_half_life_days)),
            ("recency_half_life_places", positive(self.recency_half_life_places)),
            ("popular_half_life_days", positive(self.popular_half_life_days)),
        ];
        rules.into_iter().find(|(_, kept)| !kept).map_or(Ok(()), |(name, _)| Err(BadParam(name)))
    }
}

/// The size of the dataset from which a model was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltFrom {
    pub users: u64,
    pub events: u64,
}

/// Item, by position in the model, and a score above 0.
pub type Scored = (u32, f32);

/// Items are numbered by position; `index_of` and `item` translate.
#[derive(Debug, Clone, PartialEq)]
pub struct NeighbourModel {
    items: Vec<ItemId>,
    index: HashMap<ItemId, u32, RandomState>,
    /// Item i's neighbours are `neighbours[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    neighbours: Vec<Scored>,
    popular: Vec<Scored>,
    params: Params,
    built_from: BuiltFrom,
}

impl NeighbourModel {
    /// `threads` share the work; the model doesn't depend on their number. An empty dataset gives an empty model.
    ///
    /// # Errors
    /// A parameter out of range.
    pub fn build(data: &Dataset, params: &Params, threads: NonZero<usize>) -> Result<Self, BadParam> {
        params.check()?;
        let rows = Histories::new(data, params.history_cap as usize).neighbour_rows(params, threads.get());
        let mut popular = popularity(data, Some(params.popular_half_life_days));
        popular.retain(|&(_, score)| score > 0.0);
        popular.truncate(POPULAR_KEPT);
        let built_from = BuiltFrom { users: data.users.len() as u64, events: data.events.len() as u64 };
        Ok(Self::from_parts(data.items.clone(), rows, popular, *params, built_from))
    }

    /// `rows[i]` are the neighbours of `items[i]`.
    pub(crate) fn from_parts(
        items: Vec<ItemId>,
        rows: Vec<Vec<Scored>>,
        popular: Vec<Scored>,
        params: Params,
        built_from: BuiltFrom,
    ) -> Self {
        let mut starts = Vec::with_capacity(rows.len() + 1);
        let mut neighbours = Vec::with_capacity(rows.iter().map(Vec::len).sum());
        starts.push(0);
        for row in rows {
            neighbours.extend(row);
            starts.push(neighbours.len());
        }
        let index = items.iter().cloned().zip(0..).collect();
        Self { items, index, starts, neighbours, popular, params, built_from }
    }

    pub fn items(&self) -> &[ItemId] {
        &self.items
    }

    /// `None`: the item is not in the model.
    pub fn index_of(&self, item_id: &str) -> Option<u32> {
        self.index.get(item_id).copied()
    }

    /// `None`: not a position in this model.
    pub fn item(&self, item: u32) -> Option<&ItemId> {
        self.items.get(item as usize)
    }

    /// Best first, up to `Params::neighbours_per_item`; empty for a position this model doesn't have.
    pub fn neighbours(&self, item: u32) -> &[Scored] {
        let item = item as usize;
        match (self.starts.get(item), self.starts.get(item + 1)) {
            (Some(&from), Some(&to)) => &self.neighbours[from..to],
            _ => &[],
        }
    }

    /// Time-decayed number of events, best first, up to `POPULAR_KEPT`.
    pub fn popular(&self) -> &[Scored] {
        &self.popular
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    pub fn built_from(&self) -> BuiltFrom {
        self.built_from
    }
}

/// The factor of an event's weight in pairs and in ranking.
pub(crate) fn strength(weight: f32) -> f32 {
    weight.sqrt().sqrt()
}

/// All items, most popular first: the number of events, each halved per half-life before the newest event if `half_life_days` is given.
pub(crate) fn popularity(data: &Dataset, half_life_days: Option<f32>) -> Vec<Scored> {
    let end_ms = data.events.iter().map(|e| e.at_ms).max().unwrap_or(0);
    let mut sums = vec![0.0_f64; data.items.len()];
    for e in &data.events {
        sums[e.item as usize] += match half_life_days {
            Some(days) => (-((end_ms - e.at_ms) as f64) / MS_PER_DAY / f64::from(days)).exp2(),
            None => 1.0,
        };
    }
    let mut scored: Vec<Scored> = (0..).zip(sums.into_iter().map(|sum| sum as f32)).collect();
    best_first(&mut scored, data.items.len());
    scored
}

/// Keeps the `k` highest scores, highest first; equal ones in order of position, so that the result is deterministic.
pub(crate) fn best_first(scored: &mut Vec<Scored>, k: usize) {
    let order = |a: &Scored, b: &Scored| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if k < scored.len() {
        if k > 0 {
            scored.select_nth_unstable_by(k - 1, order);
        }
        scored.truncate(k);
    }
    scored.sort_unstable_by(order);
}

/// One or more events of a user with an item: the latest time and the highest weight.
struct Visit {
    item: u32,
    strength: f32,
    /// Days before the dataset's newest event.
    days_ago: f32,
}

/// Users' visits, latest first, and the index from items to users.
struct Histories {
    items: usize,
    /// User u's visits are `visits[user_starts[u]..user_starts[u + 1]]`.
    user_starts: Vec<usize>,
    visits: Vec<Visit>,
    /// The visitors of item i are `visitors[item_starts[i]..item_starts[i + 1]]`: user, and place in the user's history.
    item_starts: Vec<usize>,
    visitors: Vec<(u32, u32)>,
}

impl Histories {
    fn new(data: &Dataset, cap: usize) -> Self {
        let items = data.items.len();
        let timelines = data.timelines();
        let end_ms = data.events.iter().map(|e| e.at_ms).max().unwrap_or(0);
        let mut user_starts = vec![0];
        let mut visits: Vec<Visit> = Vec::new();
        // The index of the item's visit, valid only within the range of the current user.
        let mut visit_of = vec![usize::MAX; items];
        for user in (0..).take(data.users.len()) {
            let start = visits.len();
            for &at in timelines.of(user).iter().rev() {
                let e = &data.events[at];
                let known = visit_of[e.item as usize];
                if (start..visits.len()).contains(&known) {
                    let visit = &mut visits[known];
                    visit.strength = visit.strength.max(strength(e.weight));
                } else if visits.len() - start < cap {
                    visit_of[e.item as usize] = visits.len();
                    let days_ago = ((end_ms - e.at_ms) as f64 / MS_PER_DAY) as f32;
                    visits.push(Visit { item: e.item, strength: strength(e.weight), days_ago });
                }
            }
            user_starts.push(visits.len());
        }

        let mut item_starts = vec![0_usize; items + 1];
        for visit in &visits {
            item_starts[visit.item as usize + 1] += 1;
        }
        for item in 0..items {
            item_starts[item + 1] += item_starts[item];
        }
        let mut next = item_starts.clone();
        let mut visitors = vec![(0, 0); visits.len()];
        for (user, range) in (0..).zip(user_starts.windows(2)) {
            for (place, visit) in (0..).zip(&visits[range[0]..range[1]]) {
                let slot = &mut next[visit.item as usize];
                visitors[*slot] = (user, place);
                *slot += 1;
            }
        }
        Self { items, user_starts, visits, item_starts, visitors }
    }

    fn neighbour_rows(&self, params: &Params, threads: usize) -> Vec<Vec<Scored>> {
        let decay = Decay::new(params);
        let damp: Vec<f32> = self
            .item_starts
            .windows(2)
            .map(|range| ((range[1] - range[0]) as f32 + PRIOR_USERS).powf(-params.damping))
            .collect();
        let mut rows = vec![Vec::new(); self.items];
        thread::scope(|scope| {
            // Every n-th item, not blocks: the first items tend to be popular, and popular items take longest.
            let workers: Vec<_> = (0..threads)
                .map(|first| {
                    let (decay, damp) = (&decay, damp.as_slice());
                    scope.spawn(move || {
                        let mut sums = PairSums::new(self.items);
                        let mine = (first..self.items).step_by(threads);
                        mine.map(|item| {
                            self.add_pairs(item, decay, &mut sums);
                            (item, sums.take_row(item, damp, params.neighbours_per_item as usize))
                        })
                        .collect::<Vec<_>>()
                    })
                })
                .collect();
            for worker in workers {
                for (item, row) in worker.join().expect("building rows doesn't panic") {
                    rows[item] = row;
                }
            }
        });
        rows
    }

    fn add_pairs(&self, item: usize, decay: &Decay, sums: &mut PairSums) {
        for &(user, place) in &self.visitors[self.item_starts[item]..self.item_starts[item + 1]] {
            let (user, place) = (user as usize, place as usize);
            let history = &self.visits[self.user_starts[user]..self.user_starts[user + 1]];
            let own = &history[place];
            for (other_place, other) in history.iter().enumerate() {
                if other_place != place {
                    let gap = decay.gap(place.abs_diff(other_place), (own.days_ago - other.days_ago).abs());
                    sums.add(other.item, gap * own.strength * other.strength);
                }
            }
        }
    }
}

struct Decay {
    by_places: Vec<f32>,
    per_day: f32,
}

impl Decay {
    fn new(params: &Params) -> Self {
        let by_places =
            (0..params.history_cap).map(|places| (-(places as f32) / params.gap_half_life_places).exp2()).collect();
        Self { by_places, per_day: 1.0 / params.gap_half_life_days }
    }

    fn gap(&self, places: usize, days: f32) -> f32 {
        self.by_places[places] / (1.0 + days * self.per_day)
    }
}

/// One item's row of the co-occurrence matrix, reused for the next.
struct PairSums {
    sums: Vec<f32>,
    /// Items whose sum isn't 0.
    touched: Vec<u32>,
}

impl PairSums {
    fn new(items: usize) -> Self {
        Self { sums: vec![0.0; items], touched: Vec::new() }
    }

    fn add(&mut self, item: u32, pair: f32) {
        let sum = &mut self.sums[item as usize];
        // A pair whose value is too small for a float must not add the item twice.
        if *sum == 0.0 && pair > 0.0 {
            self.touched.push(item);
        }
        *sum += pair;
    }

    fn take_row(&mut self, item: usize, damp: &[f32], keep: usize) -> Vec<Scored> {
        let own = damp[item];
        let mut row: Vec<Scored> = Vec::with_capacity(self.touched.len());
        for other in self.touched.drain(..) {
            let sum = std::mem::take(&mut self.sums[other as usize]);
            row.push((other, sum * own * damp[other as usize]));
        }
        row.retain(|&(_, score)| score > 0.0);
        best_first(&mut row, keep);
        row.shrink_to_fit();
        row
    }
}

#[cfg(test)]
#[path = "neighbours_tests.rs"]
mod tests;
