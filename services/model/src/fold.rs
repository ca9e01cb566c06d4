//! The fold of the 16 logs of events into the item-neighbour model: the same for a stream of events and for a whole dataset.
//!
//! An event whose item is new to its user's window (`window.rs`) adds a pair with each item there, weighted as they are at that moment
//! (`pairs.rs`). Sums are integers, and nothing is ever taken back:
//!
//! ```text
//! pairs(i, j)   += amount of the pair, for the item that enters and each other item of the window, in both directions
//! visitors(i)   += 1 when i enters a window
//! popularity(i) += 1 for each event, decayed forward (`popularity.rs`)
//! ```
//!
//! **The order in which the logs are mixed does not matter.** A user has one log, so a user's window, and each amount, depend on that log's
//! prefix only. The rest are sums of integers, which commute. So the state is a pure function of the version vector, and so is what
//! `publish` makes of it. Within a log, the order is the order of arrival.
//!
//! What only depends on all sums, scores and the best neighbours, is computed when a version is published:
//!
//! ```text
//! score(i, j) = pairs(i, j) / √((visitors(i) + 2) × (visitors(j) + 2))
//! ```
//!
//! Numbers are the same on every machine: there are only operations whose results IEEE 754 defines (+, ×, ÷, √), in a fixed order.

mod assemble;
mod pairs;
mod popularity;
mod published;
mod window;

use std::collections::HashMap;

use contract::{Event, ItemId, SEGMENTS, SegmentId, ShardId, UserId, VersionVector, segment_of, shard_of};
use foldhash::{fast, quality};

pub use self::{
    popularity::DecayedCount,
    published::{PublishedRow, PublishedSegment},
};
use self::{popularity::Popularity, window::Window};

/// Neighbours kept per item.
pub const NEIGHBOURS_KEPT: usize = 100;
/// Prevents a perfect score of two items that only one user has.
const PRIOR_VISITORS: f64 = 2.0;

/// Counts and windows of all items and users, and the pairs of the items in some segments: a window's new item needs the whole window, and
/// a score needs the counts of both items, in whichever segments they are.
#[derive(Debug, Clone)]
pub struct Fold {
    held: [bool; SEGMENTS as usize],
    version: VersionVector,
    events: u64,
    items: Vec<ItemState>,
    /// Of each user.
    windows: Vec<Window>,
    /// Positions in `items` and `windows`. Clients choose ids, so the hash has a random seed.
    item_numbers: HashMap<ItemId, u32, quality::RandomState>,
    user_numbers: HashMap<UserId, u32, quality::RandomState>,
}

#[derive(Debug, Clone)]
struct ItemState {
    id: ItemId,
    segment: SegmentId,
    /// How often it entered a window.
    visitors: u64,
    popularity: Popularity,
    /// Amounts by the other item's number; empty if the segment is not held.
    pairs: HashMap<u32, u64, fast::RandomState>,
}

impl Fold {
    /// Without events. Only the `held` segments can be published.
    pub fn new(held: impl IntoIterator<Item = SegmentId>) -> Self {
        let mut flags = [false; SEGMENTS as usize];
        for segment in held {
            flags[segment.index()] = true;
        }
        Self {
            held: flags,
            version: VersionVector::default(),
            events: 0,
            items: Vec::new(),
            windows: Vec::new(),
            item_numbers: HashMap::default(),
            user_numbers: HashMap::default(),
        }
    }

    /// The last arrival number folded, of each log.
    pub fn version(&self) -> &VersionVector {
        &self.version
    }

    /// Adds an event of its user's log. `arrival`: above 0, ascending within the log, gaps are allowed. `false`: the log was read beyond it
    /// already, and nothing changes. The log must not have the same event twice.
    pub fn add(&mut self, event: &Event, arrival: u64) -> bool {
        let log = shard_of(event.user_id.as_str());
        if arrival <= self.version.position(log) {
            return false;
        }
        self.version.set(log, arrival);
        let (user, item) = (self.user_number(&event.user_id), self.item_number(&event.item_id));
        self.add_numbered(user, item, event.at_ms, event.weight);
        true
    }

    fn add_numbered(&mut self, user: u32, item: u32, at_ms: i64, weight: f32) {
        self.events = self.events.saturating_add(1);
        let Self { held, items, windows, .. } = self;
        items[item as usize].popularity.add(at_ms);
        let window = &mut windows[user as usize];
        let id = |item: u32| &items[item as usize].id;
        let Some(place) = window.enter(item, at_ms, weight, id) else { return };
        items[item as usize].visitors += 1;
        let visits = window.visits();
        for (other_place, other) in visits.iter().enumerate().filter(|(other_place, _)| *other_place != place) {
            let both = [(item, other.item), (other.item, item)];
            if both.iter().all(|(from, _)| !held[items[*from as usize].segment.index()]) {
                continue;
            }
            let amount = pairs::amount(&visits[place], other, place.abs_diff(other_place));
            for (from, to) in both {
                let from = &mut items[from as usize];
                if amount > 0 && held[from.segment.index()] {
                    let sum = from.pairs.entry(to).or_default();
                    *sum = sum.saturating_add(amount);
                }
            }
        }
    }

    /// Says that a log has no events up to `arrival` beyond those that were added: numbers may be left out.
    pub fn pass(&mut self, log: ShardId, arrival: u64) {
        let position = self.version.position(log).max(arrival);
        self.version.set(log, position);
    }

    /// The segment's rows at this version. `None`: the segment is not held.
    pub fn publish(&self, segment: SegmentId) -> Option<PublishedSegment> {
        if !self.held[segment.index()] {
            return None;
        }
        let is_in = |item: &&ItemState| item.segment == segment && !item.popularity.is_empty();
        let mut items: Vec<&ItemState> = self.items.iter().filter(is_in).collect();
        items.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Some(PublishedSegment {
            segment,
            version: self.version,
            users: self.windows.iter().filter(|window| !window.visits().is_empty()).count() as u64,
            events: self.events,
            rows: items.into_iter().map(|item| self.row(item)).collect(),
        })
    }

    fn row(&self, item: &ItemState) -> PublishedRow {
        let of = |item: &ItemState| item.visitors as f64 + PRIOR_VISITORS;
        let score = |(&other, &sum): (&u32, &u64)| {
            let other = &self.items[other as usize];
            (&other.id, (pairs::value(sum) / (of(item) * of(other)).sqrt()) as f32)
        };
        let mut scored: Vec<(&ItemId, f32)> = item.pairs.iter().map(score).collect();
        // Best first; equal scores by id, so that the result does not depend on numbers and hashes.
        let order = |a: &(&ItemId, f32), b: &(&ItemId, f32)| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0));
        if scored.len() > NEIGHBOURS_KEPT {
            scored.select_nth_unstable_by(NEIGHBOURS_KEPT, order);
            scored.truncate(NEIGHBOURS_KEPT);
        }
        scored.sort_unstable_by(order);
        PublishedRow {
            item: item.id.clone(),
            popularity: item.popularity.read(),
            neighbours: scored.into_iter().map(|(id, score)| (id.clone(), score)).collect(),
        }
    }

    fn item_number(&mut self, id: &ItemId) -> u32 {
        if let Some(&known) = self.item_numbers.get(id) {
            return known;
        }
        let number = u32::try_from(self.items.len()).expect("4 billion items do not fit into memory");
        self.item_numbers.insert(id.clone(), number);
        self.items.push(ItemState {
            id: id.clone(),
            segment: segment_of(id.as_str()),
            visitors: 0,
            popularity: Popularity::default(),
            pairs: HashMap::default(),
        });
        number
    }

    fn user_number(&mut self, id: &UserId) -> u32 {
        if let Some(&known) = self.user_numbers.get(id) {
            return known;
        }
        let number = u32::try_from(self.windows.len()).expect("4 billion users do not fit into memory");
        self.user_numbers.insert(id.clone(), number);
        self.windows.push(Window::default());
        number
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
