//! A published segment as the bytes of its file, and back.
//!
//! ```text
//! format u8 | segment u8 | version vector 16 × u64 | users u64 | events u64 | rows u32, then for each, by item:
//!   item (length u8, bytes) | popularity: period i64, units u64 | neighbours u8, then (length u8, bytes, score f32) each, best first
//! ```
//! Little endian. There is one encoding of a segment: equal versions have equal bytes. The epoch is not in it, because who published a
//! version does not change it.

use contract::{IdError, ItemId, SegmentId, VersionVector, segment_of};
use model::{DecayedCount, NEIGHBOURS_KEPT, PublishedRow, PublishedSegment};

use crate::input::{EndsTooEarly, Input};

/// Changes with the layout, and with the fold: files of two formats do not compare. Manifests name it too.
pub(crate) const FORMAT: u8 = 1;
/// Of a row with an id of one byte and without neighbours.
const SHORTEST_ROW_BYTES: usize = 2 + 8 + 8 + 1;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("the file has format {0}, but this program reads format {FORMAT}")]
    Format(u8),
    #[error("the file belongs to segment {found}, not to segment {expected}")]
    ForeignSegment { expected: SegmentId, found: u8 },
    #[error("the file ends too early")]
    Truncated,
    #[error("the file has {0} bytes left over")]
    TrailingBytes(usize),
    #[error("the file states {0} rows, which do not fit into it")]
    TooManyRows(u32),
    #[error("an id in row {row} is not UTF-8")]
    IdText { row: usize },
    #[error("an id in row {row} {error}")]
    Id { row: usize, error: IdError },
    #[error("row {row} is item {item}, which belongs to another segment")]
    ForeignItem { row: usize, item: ItemId },
    #[error("row {row} is not after the row before it")]
    RowOrder { row: usize },
    #[error("row {row} has {found} neighbours, the limit is {NEIGHBOURS_KEPT}")]
    TooManyNeighbours { row: usize, found: u8 },
    #[error("row {row} has a score that is not a finite number above 0, or neighbours that are not in order")]
    Neighbours { row: usize },
}

impl From<EndsTooEarly> for FileError {
    fn from(EndsTooEarly: EndsTooEarly) -> Self {
        Self::Truncated
    }
}

/// The bytes of the segment's file.
pub fn encode(segment: &PublishedSegment) -> Vec<u8> {
    let mut out = vec![FORMAT, segment.segment.number()];
    out.extend(segment.version.to_bytes());
    out.extend(segment.users.to_le_bytes());
    out.extend(segment.events.to_le_bytes());
    let rows = u32::try_from(segment.rows.len()).expect("the fold numbers items with 32 bits");
    out.extend(rows.to_le_bytes());
    for row in &segment.rows {
        put_id(&mut out, &row.item);
        out.extend(row.popularity.period.to_le_bytes());
        out.extend(row.popularity.units.to_le_bytes());
        out.push(u8::try_from(row.neighbours.len()).expect("at most NEIGHBOURS_KEPT"));
        for (item, score) in &row.neighbours {
            put_id(&mut out, item);
            out.extend(score.to_le_bytes());
        }
    }
    out
}

/// The inverse of `encode`.
///
/// # Errors
/// `encode` cannot have written these bytes for segment `expected`. Invalid bytes never cause a panic, and never more memory than a few
/// times their length.
pub fn decode(bytes: &[u8], expected: SegmentId) -> Result<PublishedSegment, FileError> {
    let mut input = Input(bytes);
    let format = input.u8()?;
    if format != FORMAT {
        return Err(FileError::Format(format));
    }
    let found = input.u8()?;
    if found != expected.number() {
        return Err(FileError::ForeignSegment { expected, found });
    }
    let version = VersionVector::from_bytes(&input.array()?);
    let (users, events, count) = (input.u64()?, input.u64()?, input.u32()?);
    // Checked before memory is allocated for them.
    if input.0.len() / SHORTEST_ROW_BYTES < count as usize {
        return Err(FileError::TooManyRows(count));
    }
    let mut rows: Vec<PublishedRow> = Vec::with_capacity(count as usize);
    for row in 0..count as usize {
        let read = read_row(&mut input, row)?;
        if segment_of(read.item.as_str()) != expected {
            return Err(FileError::ForeignItem { row, item: read.item });
        }
        if rows.last().is_some_and(|before| before.item >= read.item) {
            return Err(FileError::RowOrder { row });
        }
        rows.push(read);
    }
    match input.0.len() {
        0 => Ok(PublishedSegment { segment: expected, version, users, events, rows }),
        more => Err(FileError::TrailingBytes(more)),
    }
}

fn read_row(input: &mut Input<'_>, row: usize) -> Result<PublishedRow, FileError> {
    let item = read_id(input, row)?;
    let popularity = DecayedCount { period: i64::from_le_bytes(input.array()?), units: input.u64()? };
    let count = input.u8()?;
    if usize::from(count) > NEIGHBOURS_KEPT {
        return Err(FileError::TooManyNeighbours { row, found: count });
    }
    let mut neighbours: Vec<(ItemId, f32)> = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (id, score) = (read_id(input, row)?, f32::from_le_bytes(input.array()?));
        let in_order = neighbours.last().is_none_or(|(before, best)| score < *best || score == *best && *before < id);
        if !(score.is_finite() && score > 0.0 && in_order) || id == item {
            return Err(FileError::Neighbours { row });
        }
        neighbours.push((id, score));
    }
    Ok(PublishedRow { item, popularity, neighbours })
}

fn put_id(out: &mut Vec<u8>, id: &ItemId) {
    let bytes = id.as_str().as_bytes();
    // At most MAX_ID_BYTES.
    out.push(bytes.len() as u8);
    out.extend(bytes);
}

fn read_id(input: &mut Input<'_>, row: usize) -> Result<ItemId, FileError> {
    let length = usize::from(input.u8()?);
    let text = str::from_utf8(input.bytes(length)?).map_err(|_| FileError::IdText { row })?;
    ItemId::new(text).map_err(|error| FileError::Id { row, error })
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
