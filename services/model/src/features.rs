//! The features of a user: what the ranking needs of the behaviour log, folded event by event.
//!
//! ```text
//! version u8 | events by kind: 4 × u64 | items u8, then (at_ms i64, strength f32, id length u8, id) each, newest first
//! ```
//! Little endian.

use std::{cmp::Reverse, collections::HashSet};

use contract::{
    EventKind, ItemId,
    id::{self, MAX_ID_BYTES},
};
use foldhash::fast::RandomState;

/// Changes with the layout.
const VERSION: u8 = 1;
const KINDS: usize = 4;
const COUNTS_AT: usize = 1;
const ITEMS_AT: usize = COUNTS_AT + 8 * KINDS;
const HEADER_BYTES: usize = ITEMS_AT + 1;
/// Without the id.
const ITEM_BYTES: usize = 8 + 4 + 1;

/// The window has the newest distinct items of the user, with the highest weight of their events. The newest event of an item gives it its
/// place; items with the same time are ordered by id.
///
/// The features depend on the set of events, not on their order, as long as no item comes back after it has left the window: it begins anew
/// then. An event that is older than all items of a full window only counts.
///
/// They are their encoding: a worker has many of them in memory, and reads and writes them far more often than it looks at all their items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features(Vec<u8>);

/// An item of the window, at its place in the encoding.
#[derive(Debug, Clone, Copy)]
struct WindowItem<'a> {
    /// Of the item's newest event, Unix ms.
    at_ms: i64,
    /// Highest weight since the item entered the window.
    strength: f32,
    id: &'a [u8],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFeatures {
    #[error("the features have format version {0}, but this program reads version {VERSION}")]
    Version(u8),
    #[error("the features end too early")]
    Truncated,
    #[error("the features have bytes left over")]
    TrailingBytes,
    #[error("the features have {0} items in their window, the limit is {max}", max = Features::MAX_ITEMS)]
    TooManyItems(u8),
    #[error("the features have an item whose id is not valid")]
    ItemId,
    #[error("the features have an item whose strength is not a finite number above 0")]
    Strength,
    #[error("the items of the features are not in order, or one comes twice")]
    Order,
    #[error("the features count fewer events than they have items")]
    Counts,
}

impl Features {
    /// Items of a full window.
    pub const MAX_ITEMS: usize = 100;
    /// Longest encoding, in bytes.
    pub const MAX_BYTES: usize = HEADER_BYTES + Self::MAX_ITEMS * (ITEM_BYTES + MAX_ID_BYTES);

    /// Adds an event. `at_ms`: Unix ms. `weight`: finite and > 0.
    pub fn fold(&mut self, item: &ItemId, kind: EventKind, at_ms: i64, weight: f32) {
        let kind = usize::from(kind.code());
        self.set_count(kind, self.count(kind).saturating_add(1));
        let mut new = WindowItem { at_ms, strength: weight, id: item.as_str().as_bytes() };
        // Where the new item belongs, and where the oldest one is.
        let (mut place, mut oldest, mut at) = (None, HEADER_BYTES, HEADER_BYTES);
        while let Some(known) = WindowItem::read(&self.0, at) {
            if place.is_none() && known.order() > new.order() {
                place = Some(at);
            }
            // Ids that end in a number mostly differ in their last byte, which costs less than a comparison.
            if known.id.last() == new.id.last() && known.id == new.id {
                new.strength = known.strength.max(weight);
                if new.at_ms <= known.at_ms {
                    new.at_ms = known.at_ms;
                    return new.write(&mut self.0[at..]);
                }
                // It moves to its new place, and those between make room.
                let place = place.unwrap_or(at);
                self.0.copy_within(place..at, place + new.len());
                return new.write(&mut self.0[place..]);
            }
            (oldest, at) = (at, at + known.len());
        }
        if self.items() == Self::MAX_ITEMS {
            if place.is_none() {
                return;
            }
            self.0.truncate(oldest);
        } else {
            self.0[ITEMS_AT] += 1;
        }
        let (place, end) = (place.unwrap_or(self.0.len()), self.0.len());
        self.0.resize(end + new.len(), 0);
        self.0.copy_within(place..end, place + new.len());
        new.write(&mut self.0[place..]);
    }

    /// Time of the newest event, Unix ms. `None`: no event.
    pub fn newest_at_ms(&self) -> Option<i64> {
        WindowItem::read(&self.0, HEADER_BYTES).map(|newest| newest.at_ms)
    }

    /// Number of events that were folded.
    pub fn events(&self) -> u64 {
        (0..KINDS).fold(0, |sum, kind| sum.saturating_add(self.count(kind)))
    }

    /// Number of events of this kind that were folded.
    pub fn events_of(&self, kind: EventKind) -> u64 {
        self.count(usize::from(kind.code()))
    }

    /// Up to 100 ids of items with their strengths, newest first.
    pub fn window(&self) -> impl ExactSizeIterator<Item = (&str, f32)> {
        let mut at = HEADER_BYTES;
        (0..self.items()).map(move |_| {
            let known = WindowItem::read(&self.0, at);
            at += known.map_or(0, |known| known.len());
            // There are as many items as the header says, and their ids are text.
            known.map_or(("", 0.0), |known| (str::from_utf8(known.id).unwrap_or_default(), known.strength))
        })
    }

    /// At most `MAX_BYTES`.
    pub fn encode(&self) -> &[u8] {
        &self.0
    }

    /// The inverse of `encode`.
    ///
    /// # Errors
    /// `encode` cannot have written these bytes. Invalid bytes never cause a panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadFeatures> {
        let version = *bytes.first().ok_or(BadFeatures::Truncated)?;
        if version != VERSION {
            return Err(BadFeatures::Version(version));
        }
        let items = *bytes.get(ITEMS_AT).ok_or(BadFeatures::Truncated)?;
        if usize::from(items) > Self::MAX_ITEMS {
            return Err(BadFeatures::TooManyItems(items));
        }
        let mut distinct = HashSet::with_capacity_and_hasher(usize::from(items), RandomState::default());
        let (mut at, mut newer) = (HEADER_BYTES, None::<WindowItem<'_>>);
        for _ in 0..items {
            let known = WindowItem::read(bytes, at).ok_or(BadFeatures::Truncated)?;
            known.check()?;
            if newer.is_some_and(|newer| newer.order() >= known.order()) || !distinct.insert(known.id) {
                return Err(BadFeatures::Order);
            }
            (at, newer) = (at + known.len(), Some(known));
        }
        if at < bytes.len() {
            return Err(BadFeatures::TrailingBytes);
        }
        let features = Self(bytes.to_vec());
        let counted = features.events();
        if counted < u64::from(items) || items == 0 && counted > 0 {
            return Err(BadFeatures::Counts);
        }
        Ok(features)
    }

    fn items(&self) -> usize {
        usize::from(self.0[ITEMS_AT])
    }

    fn count(&self, kind: usize) -> u64 {
        u64::from_le_bytes(array(&self.0[COUNTS_AT + 8 * kind..]))
    }

    fn set_count(&mut self, kind: usize, count: u64) {
        self.0[COUNTS_AT + 8 * kind..][..8].copy_from_slice(&count.to_le_bytes());
    }
}

impl Default for Features {
    /// Without events.
    fn default() -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0] = VERSION;
        Self(bytes)
    }
}

impl<'a> WindowItem<'a> {
    /// `None`: the bytes end before it does.
    fn read(bytes: &'a [u8], at: usize) -> Option<Self> {
        let (head, rest) = bytes.get(at..)?.split_first_chunk::<ITEM_BYTES>()?;
        let id = rest.get(..usize::from(head[ITEM_BYTES - 1]))?;
        Some(Self { at_ms: i64::from_le_bytes(array(head)), strength: f32::from_le_bytes(array(&head[8..])), id })
    }

    fn write(&self, bytes: &mut [u8]) {
        bytes[..8].copy_from_slice(&self.at_ms.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.strength.to_le_bytes());
        // At most MAX_ID_BYTES.
        bytes[12] = self.id.len() as u8;
        bytes[ITEM_BYTES..self.len()].copy_from_slice(self.id);
    }

    fn len(&self) -> usize {
        ITEM_BYTES + self.id.len()
    }

    /// Ascending from the newest item to the oldest one.
    fn order(&self) -> Reverse<(i64, &'a [u8])> {
        Reverse((self.at_ms, self.id))
    }

    fn check(&self) -> Result<(), BadFeatures> {
        if !(self.strength.is_finite() && self.strength > 0.0) {
            return Err(BadFeatures::Strength);
        }
        let text = str::from_utf8(self.id).map_err(|_| BadFeatures::ItemId)?;
        id::check(text).map_err(|_| BadFeatures::ItemId)
    }
}

/// The first bytes, which are there.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
#[path = "features_tests.rs"]
mod tests;
