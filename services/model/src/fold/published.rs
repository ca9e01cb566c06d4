//! A version of a segment, as its file has it.

use contract::{ItemId, SegmentId, VersionVector};

use super::popularity::DecayedCount;

/// A pure function of the version vector.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedSegment {
    pub segment: SegmentId,
    pub version: VersionVector,
    /// Of all segments.
    pub users: u64,
    /// Of all segments.
    pub events: u64,
    /// By item, ascending. Each item with an event has a row.
    pub rows: Vec<PublishedRow>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PublishedRow {
    pub item: ItemId,
    pub popularity: DecayedCount,
    /// Best first, at most `NEIGHBOURS_KEPT`; the scores are above 0. They may be items of other segments.
    pub neighbours: Vec<(ItemId, f32)>,
}
