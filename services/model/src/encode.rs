//! Encodes the model as rows for the store: a header, and one row per item. Little endian. Rows may be decoded in any order.
//!
//! ```text
//! header  version u8 | items u32 | users u64 | events u64
//!         | history_cap u32 | neighbours_per_item u32 | damping, gap places, gap days, recency places, popular days f32
//!         | popular: count u32, then (item u32, score f32) each
//! row     version u8 | item u32 | count u16, then (item u32, score f32) each
//! ```

use contract::{IdError, ItemId};

use crate::neighbours::{BadParam, BuiltFrom, NeighbourModel, Params, Scored};

/// Changes with the layout, so that a replica refuses a model in another format.
const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{part}: format version {found}, but this program reads version {VERSION}")]
    Version { part: String, found: u8 },
    #[error("{0}: ends too early")]
    Truncated(String),
    #[error("{0}: has bytes left over")]
    TrailingBytes(String),
    #[error("{part}: refers to item {item} of {items}")]
    ItemOutOfRange { part: String, item: u32, items: u32 },
    #[error("{0}: a score is not a finite number above 0, or scores do not fall")]
    Score(String),
    #[error("the header: {0}")]
    Param(#[from] BadParam),
    #[error("the header states {promised} items, but there are {found} rows")]
    RowCount { promised: u32, found: usize },
    #[error("two rows are item {0}")]
    RowTwice(u32),
    #[error("the item id {id:?} {error}")]
    ItemId { id: String, error: IdError },
    #[error("the item id {0} comes twice")]
    ItemIdTwice(String),
}

impl NeighbourModel {
    /// The header, and a row for each item in order of position.
    pub fn to_rows(&self) -> (Vec<u8>, impl Iterator<Item = (ItemId, Vec<u8>)>) {
        let mut header = vec![VERSION];
        header.extend(item_number(self.items().len()).to_le_bytes());
        header.extend(self.built_from().users.to_le_bytes());
        header.extend(self.built_from().events.to_le_bytes());
        let p = self.params();
        header.extend(p.history_cap.to_le_bytes());
        header.extend(p.neighbours_per_item.to_le_bytes());
        for value in [
            p.damping,
            p.gap_half_life_places,
            p.gap_half_life_days,
            p.recency_half_life_places,
            p.popular_half_life_days,
        ] {
            header.extend(value.to_le_bytes());
        }
        header.extend(item_number(self.popular().len()).to_le_bytes());
        put_scored(&mut header, self.popular());

        let rows = (0..).zip(self.items()).map(|(item, id)| {
            let neighbours = self.neighbours(item);
            let count = u16::try_from(neighbours.len()).expect("Params::check allows up to 1000 neighbours");
            let mut row = Vec::with_capacity(7 + 8 * neighbours.len());
            row.push(VERSION);
            row.extend(item.to_le_bytes());
            row.extend(count.to_le_bytes());
            put_scored(&mut row, neighbours);
            (id.clone(), row)
        });
        (header, rows)
    }

    /// The inverse of `to_rows`. `rows` are item ids with their bytes, in any order.
    ///
    /// # Errors
    /// `to_rows` cannot have written these bytes. Invalid bytes never cause a panic.
    pub fn from_rows(header: &[u8], rows: Vec<(String, Vec<u8>)>) -> Result<Self, DecodeError> {
        let mut input = Input { part: "the header", rest: header };
        input.version()?;
        let items = input.u32()?;
        let built_from = BuiltFrom { users: input.u64()?, events: input.u64()? };
        let params = Params {
            history_cap: input.u32()?,
            neighbours_per_item: input.u32()?,
            damping: input.f32()?,
            gap_half_life_places: input.f32()?,
            gap_half_life_days: input.f32()?,
            recency_half_life_places: input.f32()?,
            popular_half_life_days: input.f32()?,
        };
        params.check()?;
        let popular_count = input.u32()?;
        let popular = input.scored(popular_count, items)?;
        input.end()?;
        // Checked before memory is allocated for `items`.
        if usize::try_from(items) != Ok(rows.len()) {
            return Err(DecodeError::RowCount { promised: items, found: rows.len() });
        }

        let mut ids: Vec<Option<ItemId>> = vec![None; rows.len()];
        let mut neighbours = vec![Vec::new(); rows.len()];
        for (id, blob) in rows {
            let mut input = Input { part: &id, rest: &blob };
            input.version()?;
            let item = input.u32()?;
            let count = input.u16()?;
            let row = input.scored(u32::from(count), items)?;
            input.end()?;
            let Some(slot) = ids.get_mut(item as usize) else {
                return Err(DecodeError::ItemOutOfRange { part: id, item, items });
            };
            if slot.is_some() {
                return Err(DecodeError::RowTwice(item));
            }
            *slot = Some(ItemId::new(&id).map_err(|error| DecodeError::ItemId { id, error })?);
            neighbours[item as usize] = row;
        }
        // The number of rows is the number of items, and none is duplicate: every slot is filled.
        let ids: Vec<ItemId> = ids.into_iter().flatten().collect();
        let mut known = std::collections::HashSet::with_capacity(ids.len());
        if let Some(twice) = ids.iter().find(|id| !known.insert(*id)) {
            return Err(DecodeError::ItemIdTwice(twice.to_string()));
        }
        Ok(Self::from_parts(ids, neighbours, popular, params, built_from))
    }
}

fn item_number(count: usize) -> u32 {
    u32::try_from(count).expect("items are numbered with 32 bits")
}

fn put_scored(out: &mut Vec<u8>, scored: &[Scored]) {
    for (item, score) in scored {
        out.extend(item.to_le_bytes());
        out.extend(score.to_le_bytes());
    }
}

struct Input<'a> {
    /// For errors: "the header", or the item's id.
    part: &'a str,
    rest: &'a [u8],
}

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| DecodeError::Truncated(self.part.into()))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_le_bytes)
    }

    fn f32(&mut self) -> Result<f32, DecodeError> {
        self.take().map(f32::from_le_bytes)
    }

    fn version(&mut self) -> Result<(), DecodeError> {
        match self.take::<1>()? {
            [VERSION] => Ok(()),
            [found] => Err(DecodeError::Version { part: self.part.into(), found }),
        }
    }

    fn scored(&mut self, count: u32, items: u32) -> Result<Vec<Scored>, DecodeError> {
        // The length is checked before it is allocated.
        if self.rest.len() / 8 < count as usize {
            return Err(DecodeError::Truncated(self.part.into()));
        }
        let mut scored = Vec::with_capacity(count as usize);
        let mut last = f32::INFINITY;
        for _ in 0..count {
            let (item, score) = (self.u32()?, self.f32()?);
            if item >= items {
                return Err(DecodeError::ItemOutOfRange { part: self.part.into(), item, items });
            }
            if !(score.is_finite() && score > 0.0 && score <= last) {
                return Err(DecodeError::Score(self.part.into()));
            }
            last = score;
            scored.push((item, score));
        }
        Ok(scored)
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes(self.part.into())) }
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
