//! The features of a user: what the ranking needs of the behaviour log, folded event by event.
//!
//! ```text
//! version u8 | events by kind: 4 × u64 | items u8, then (at_ms i64, strength f32, id length u8, id) each, newest first
//! ```
//! Little endian.

use contract::{EventKind, ItemId, id::MAX_ID_BYTES};

/// Changes with the layout.
const VERSION: u8 = 1;
const KINDS: usize = 4;
const HEADER_BYTES: usize = 1 + 8 * KINDS + 1;
const ITEM_BYTES: usize = 8 + 4 + 1;

/// The window has the newest distinct items of the user, with the highest weight of their events. The newest event of an item gives it its
/// place; items with the same time are ordered by id.
///
/// The features depend on the set of events, not on their order, as long as no item comes back after it has left the window: it begins anew
/// then. An event that is older than all items of a full window only counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    /// Newest first.
    window: Vec<WindowItem>,
    /// By `EventKind::code`.
    events: [u64; KINDS],
}

#[derive(Debug, Clone, PartialEq)]
struct WindowItem {
    item: ItemId,
    /// Of the item's newest event, Unix ms.
    at_ms: i64,
    /// Highest weight since the item entered the window.
    strength: f32,
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
        let count = &mut self.events[usize::from(kind.code())];
        *count = count.saturating_add(1);
        let mut strength = weight;
        if let Some(at) = self.window.iter().position(|known| known.item == *item) {
            let known = &mut self.window[at];
            strength = known.strength.max(weight);
            if at_ms <= known.at_ms {
                known.strength = strength;
                return;
            }
            self.window.remove(at);
        }
        let place = self.window.partition_point(|known| (known.at_ms, &known.item) > (at_ms, item));
        if place == Self::MAX_ITEMS {
            return;
        }
        self.window.truncate(Self::MAX_ITEMS - 1);
        self.window.insert(place, WindowItem { item: item.clone(), at_ms, strength });
    }

    /// Time of the newest event, Unix ms. `None`: no event.
    pub fn newest_at_ms(&self) -> Option<i64> {
        self.window.first().map(|newest| newest.at_ms)
    }

    /// Number of events that were folded.
    pub fn events(&self) -> u64 {
        self.events.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Number of events of this kind that were folded.
    pub fn events_of(&self, kind: EventKind) -> u64 {
        self.events[usize::from(kind.code())]
    }

    /// Up to 100 items with their strengths, newest first.
    pub fn window(&self) -> impl ExactSizeIterator<Item = (&ItemId, f32)> {
        self.window.iter().map(|known| (&known.item, known.strength))
    }

    /// At most `MAX_BYTES`.
    pub fn encode(&self) -> Vec<u8> {
        let ids: usize = self.window.iter().map(|known| known.item.as_str().len()).sum();
        let mut out = Vec::with_capacity(HEADER_BYTES + ITEM_BYTES * self.window.len() + ids);
        out.push(VERSION);
        for count in self.events {
            out.extend(count.to_le_bytes());
        }
        // At most MAX_ITEMS.
        out.push(self.window.len() as u8);
        for known in &self.window {
            let id = known.item.as_str().as_bytes();
            out.extend(known.at_ms.to_le_bytes());
            out.extend(known.strength.to_le_bytes());
            // At most MAX_ID_BYTES.
            out.push(id.len() as u8);
            out.extend(id);
        }
        out
    }

    /// The inverse of `encode`.
    ///
    /// # Errors
    /// `encode` cannot have written these bytes. Invalid bytes never cause a panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadFeatures> {
        let mut input = Input(bytes);
        let [version] = input.take()?;
        if version != VERSION {
            return Err(BadFeatures::Version(version));
        }
        let mut events = [0; KINDS];
        for count in &mut events {
            *count = u64::from_le_bytes(input.take()?);
        }
        let [items] = input.take()?;
        if usize::from(items) > Self::MAX_ITEMS {
            return Err(BadFeatures::TooManyItems(items));
        }
        let mut window: Vec<WindowItem> = Vec::with_capacity(usize::from(items));
        for _ in 0..items {
            let known = input.item()?;
            let is_older = window.last().is_none_or(|last| (last.at_ms, &last.item) > (known.at_ms, &known.item));
            if !is_older || window.iter().any(|other| other.item == known.item) {
                return Err(BadFeatures::Order);
            }
            window.push(known);
        }
        if !input.0.is_empty() {
            return Err(BadFeatures::TrailingBytes);
        }
        let features = Self { window, events };
        let counted = features.events();
        if counted < u64::from(items) || items == 0 && counted > 0 {
            return Err(BadFeatures::Counts);
        }
        Ok(features)
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadFeatures> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(BadFeatures::Truncated)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn item(&mut self) -> Result<WindowItem, BadFeatures> {
        let at_ms = i64::from_le_bytes(self.take()?);
        let strength = f32::from_le_bytes(self.take()?);
        if !(strength.is_finite() && strength > 0.0) {
            return Err(BadFeatures::Strength);
        }
        let [length] = self.take()?;
        let (id, rest) = self.0.split_at_checked(usize::from(length)).ok_or(BadFeatures::Truncated)?;
        self.0 = rest;
        let item = str::from_utf8(id).ok().and_then(|id| ItemId::new(id).ok()).ok_or(BadFeatures::ItemId)?;
        Ok(WindowItem { item, at_ms, strength })
    }
}

#[cfg(test)]
#[path = "features_tests.rs"]
mod tests;
