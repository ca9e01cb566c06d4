//! The 16 segments of the item-neighbour model, by item, and the version of what was folded from the 16 logs.

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_64;

use crate::{SHARDS, ShardId};

pub const SEGMENTS: u8 = 16;
const LOGS: usize = SHARDS as usize;

/// 0..16. Segments divide the items, shards divide the users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(u8);

impl SegmentId {
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SEGMENTS).map(Self)
    }

    /// `None`: no segment has this number.
    pub fn new(number: u8) -> Option<Self> {
        (number < SEGMENTS).then_some(Self(number))
    }

    pub fn number(self) -> u8 {
        self.0
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl std::fmt::Display for SegmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

/// `xxh3_64(id bytes, seed 0) % 16`. It must never change, as the test with golden vectors checks: files of segments refer to it.
pub fn segment_of(item_id: &str) -> SegmentId {
    SegmentId((xxh3_64(item_id.as_bytes()) % u64::from(SEGMENTS)) as u8)
}

/// The arrival number of the last event folded, of each of the 16 logs; 0: none. The logs are those of the shards.
///
/// The order is partial: `a < b` if no position of `b` is lower and one is higher (`b` dominates `a`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct VersionVector([u64; LOGS]);

impl VersionVector {
    pub const BYTES: usize = 8 * LOGS;

    pub fn new(positions: [u64; LOGS]) -> Self {
        Self(positions)
    }

    pub fn positions(&self) -> &[u64; LOGS] {
        &self.0
    }

    pub fn position(&self, log: ShardId) -> u64 {
        self.0[log.index()]
    }

    pub fn set(&mut self, log: ShardId, position: u64) {
        self.0[log.index()] = position;
    }

    /// 16 little-endian numbers.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (bytes, position) in bytes.chunks_exact_mut(8).zip(self.0) {
            bytes.copy_from_slice(&position.to_le_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut positions = [0; LOGS];
        for (position, bytes) in positions.iter_mut().zip(bytes.as_chunks().0) {
            *position = u64::from_le_bytes(*bytes);
        }
        Self(positions)
    }
}

impl PartialOrd for VersionVector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let pairs = self.0.iter().zip(&other.0);
        match (pairs.clone().any(|(a, b)| a < b), pairs.clone().any(|(a, b)| a > b)) {
            (false, false) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vectors() {
        let got: Vec<_> = ["1", "42", "196", "i-000001", "käse 🧀"].iter().map(|id| segment_of(id).index()).collect();
        assert_eq!(got, GOLDEN);
    }
    const GOLDEN: [usize; 5] = [8, 1, 4, 8, 6];

    #[test]
    fn numbers_end_at_16() {
        assert_eq!(SegmentId::all().map(SegmentId::number).collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
        assert_eq!((SegmentId::new(15).map(SegmentId::index), SegmentId::new(16)), (Some(15), None));
    }

    #[test]
    fn a_vector_dominates_if_no_position_is_lower() {
        let vector = |positions: [u64; 2]| {
            let mut all = [7; LOGS];
            all[..2].copy_from_slice(&positions);
            VersionVector::new(all)
        };
        assert!(vector([1, 2]) > vector([1, 1]) && vector([1, 1]) < vector([2, 2]));
        assert_eq!(vector([1, 2]).partial_cmp(&vector([2, 1])), None);
        assert_eq!(vector([1, 2]).partial_cmp(&vector([1, 2])), Some(Ordering::Equal));
        assert_eq!(VersionVector::from_bytes(&vector([3, 1 << 40]).to_bytes()), vector([3, 1 << 40]));
    }
}
