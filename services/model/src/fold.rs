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
//! `build.rs` makes the same model of a whole dataset in less memory. `neighbours.rs` says what changed against the former formula, and why.
//!
//! Numbers are the same on every machine: there are only operations whose results IEEE 754 defines (+, ×, ÷, √), in a fixed order.

mod assemble;
mod assembly;
mod build;
mod pairs;
mod popularity;
mod published;
mod scores;
mod window;

use std::collections::HashMap;

use contract::{Event, ItemId, SEGMENTS, SegmentId, ShardId, UserId, VersionVector, segment_of, shard_of};
use foldhash::{fast, quality};

pub use self::{
    assembly::{Assembly, ModelItems},
    popularity::DecayedCount,
    published::{PublishedRow, PublishedSegment},
};
use self::{popularity::Popularity, window::Window};
use crate::neighbours::Scored;

/// Counts and windows of all items and users, and the pairs of the items in some segments: a window's new item needs the whole window, and
/// a score needs the counts of both items, in whichever segments they are.
#[derive(Debug, Clone)]
pub struct Fold {
    held: [bool; SEGMENTS as usize],
    version: VersionVector,
    events: u64,
    items: Vec<ItemState>,
    /// Positions in `items`. Clients choose ids, so the hash has a random seed.
    numbers: HashMap<ItemId, u32, quality::RandomState>,
    users: HashMap<UserId, Window, quality::RandomState>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("both parts have events of log {0}, so one of them lacks the other's windows")]
pub struct Overlap(pub usize);

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
            numbers: HashMap::default(),
            users: HashMap::default(),
        }
    }

    /// The last arrival number folded, of each log.
    pub fn version(&self) -> &VersionVector {
        &self.version
    }

    /// Number of events folded, of all logs.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Adds an event of its user's log. `arrival`: above 0, ascending within the log, gaps are allowed. `false`: the log was read beyond it
    /// already, and nothing changes. The log must not have the same event twice.
    pub fn add(&mut self, event: &Event, arrival: u64) -> bool {
        let log = shard_of(event.user_id.as_str());
        if arrival <= self.version.position(log) {
            return false;
        }
        self.version.set(log, arrival);
        self.events = self.events.saturating_add(1);
        let item = self.number(&event.item_id);
        let Self { held, items, users, .. } = self;
        items[item as usize].popularity.add(event.at_ms);
        let window = match users.get_mut(&event.user_id) {
            Some(window) => window,
            None => users.entry(event.user_id.clone()).or_default(),
        };
        let id = |item: u32| &items[item as usize].id;
        let Some(place) = window.enter(item, event.at_ms, event.weight, id) else { return true };
        items[item as usize].visitors += 1;
        for (other, amount) in pairs::with(window.visits(), place, |_| true) {
            for (from, to) in [(item, other), (other, item)] {
                let from = &mut items[from as usize];
                if held[from.segment.index()] {
                    let sum = from.pairs.entry(to).or_default();
                    *sum = sum.saturating_add(amount);
                }
            }
        }
        true
    }

    /// Gives the pairs of a segment back: it cannot be published any more.
    pub fn release(&mut self, segment: SegmentId) {
        self.held[segment.index()] = false;
        for item in self.items.iter_mut().filter(|item| item.segment == segment) {
            item.pairs = HashMap::default();
        }
    }

    /// Says that a log has no events up to `arrival` beyond those that were added: numbers may be left out.
    pub fn pass(&mut self, log: ShardId, arrival: u64) {
        let position = self.version.position(log).max(arrival);
        self.version.set(log, position);
    }

    /// Adds the fold of other logs, so that each thread can fold some of the logs.
    ///
    /// # Errors
    /// Both have read the same log. Nothing changes then.
    pub fn merge(&mut self, other: Self) -> Result<(), Overlap> {
        let read = |fold: &Self, log| fold.version.position(log) > 0;
        if let Some(log) = ShardId::all().find(|&log| read(self, log) && read(&other, log)) {
            return Err(Overlap(log.index()));
        }
        for log in ShardId::all() {
            self.pass(log, other.version.position(log));
        }
        for (held, also) in self.held.iter_mut().zip(other.held) {
            // Pairs of a segment that one part does not hold are incomplete.
            *held &= also;
        }
        self.events = self.events.saturating_add(other.events);
        let numbers: Vec<u32> = other.items.iter().map(|item| self.number(&item.id)).collect();
        let number = |theirs: u32| numbers[theirs as usize];
        for (theirs, item) in (0..).zip(other.items) {
            let ours = &mut self.items[number(theirs) as usize];
            ours.visitors += item.visitors;
            ours.popularity.merge(item.popularity);
            for (to, amount) in item.pairs {
                let sum = ours.pairs.entry(number(to)).or_default();
                *sum = sum.saturating_add(amount);
            }
        }
        for (user, mut window) in other.users {
            window.renumber(number);
            self.users.insert(user, window);
        }
        Ok(())
    }

    /// The segment's rows at this version. `None`: the segment is not held.
    pub fn publish(&self, segment: SegmentId) -> Option<PublishedSegment> {
        if !self.held[segment.index()] {
            return None;
        }
        let mut items: Vec<&ItemState> = self.items.iter().filter(|item| item.segment == segment).collect();
        items.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Some(PublishedSegment {
            segment,
            version: self.version,
            users: self.users.len() as u64,
            events: self.events,
            rows: items.into_iter().map(|item| self.row(item)).collect(),
        })
    }

    fn row(&self, item: &ItemState) -> PublishedRow {
        let score = |(&other, &sum): (&u32, &u64)| {
            (other, scores::score(sum, item.visitors, self.items[other as usize].visitors))
        };
        let mut scored: Vec<Scored> = item.pairs.iter().map(score).collect();
        let id = |item: u32| &self.items[item as usize].id;
        scores::keep_best(&mut scored, id);
        PublishedRow {
            item: item.id.clone(),
            popularity: item.popularity.read(),
            neighbours: scored.into_iter().map(|(other, score)| (id(other).clone(), score)).collect(),
        }
    }

    fn number(&mut self, id: &ItemId) -> u32 {
        if let Some(&known) = self.numbers.get(id) {
            return known;
        }
        let number = u32::try_from(self.items.len()).expect("4 billion items do not fit into memory");
        self.numbers.insert(id.clone(), number);
        self.items.push(ItemState {
            id: id.clone(),
            segment: segment_of(id.as_str()),
            visitors: 0,
            popularity: Popularity::default(),
            pairs: HashMap::default(),
        });
        number
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
