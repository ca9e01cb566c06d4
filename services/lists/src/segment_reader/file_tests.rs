use contract::{SegmentId, VersionVector};
use segments::Version;

use super::*;
use crate::segment_reader::failure::Reason;

fn manifest(position: u64, bytes: &[u8]) -> Manifest {
    let version = Version { epoch: 1, vector: VersionVector::new([position; 16]) };
    Manifest::of(SegmentId::new(3).unwrap(), version, bytes).unwrap()
}

/// Blocks that all differ; the last one has 100 bytes.
fn bytes(blocks: usize) -> Vec<u8> {
    (0..(blocks - 1) * BLOCK_BYTES + 100).map(|at| (at / BLOCK_BYTES) as u8 ^ (at % 251) as u8).collect()
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    &bytes[range.start as usize..range.end as usize]
}

fn fetched(bytes: &[u8]) -> Held {
    let mut file = Unfinished::new(manifest(1, bytes), None, None);
    while let Some(blocks) = file.next_blocks() {
        let range = file.offsets(&blocks);
        assert!(range.end - range.start <= MAX_RANGE_BYTES);
        file.put(blocks, slice(bytes, &range)).unwrap();
    }
    file.finish()
}

#[test]
fn a_file_is_fetched_in_ranges_of_at_most_a_mebibyte() {
    let bytes = bytes(600);
    let file = Unfinished::new(manifest(1, &bytes), None, None);
    assert_eq!(file.next_blocks(), Some(0..256));
    assert_eq!(*fetched(&bytes).bytes, bytes);
    assert_eq!(fetched(b"").bytes.len(), 0);
}

#[test]
fn only_blocks_that_differ_are_fetched() {
    let old = bytes(5);
    let mut new = bytes(7);
    new[BLOCK_BYTES] ^= 1;
    let held = fetched(&old);
    let mut file = Unfinished::new(manifest(2, &new), Some(&held), None);
    assert_eq!(file.next_blocks(), Some(1..2));
    file.put(1..2, &new[BLOCK_BYTES..2 * BLOCK_BYTES]).unwrap();
    // The last block of the old file is short.
    assert_eq!(file.next_blocks(), Some(4..7));
    file.put(4..7, &new[4 * BLOCK_BYTES..]).unwrap();
    assert_eq!(file.next_blocks(), None);
    assert_eq!(*file.finish().bytes, new);
    // A shorter file, all of whose blocks are known.
    let file = Unfinished::new(manifest(3, &old[..2 * BLOCK_BYTES]), Some(&held), None);
    assert_eq!(file.next_blocks(), None);
    assert_eq!(file.finish().bytes[..], old[..2 * BLOCK_BYTES]);
}

#[test]
fn wrong_blocks_stay_missing_and_right_ones_are_kept_for_the_next_attempt() {
    let right = bytes(6);
    let mut wrong = right.clone();
    wrong[2 * BLOCK_BYTES + 9] ^= 1;
    wrong[4 * BLOCK_BYTES + 9] ^= 1;
    let mut file = Unfinished::new(manifest(1, &right), None, None);
    let failure = file.put(0..6, &wrong).unwrap_err();
    assert!(matches!(failure, Failure::WrongBytes { block: 2 }), "{failure}");
    assert_eq!(failure.reason(), Reason::Damaged);
    // A newer version replaces it before another worker gives the rest.
    let mut newer = right.clone();
    newer[0] ^= 1;
    let mut next = Unfinished::new(manifest(2, &newer), None, Some(&file));
    for missing in [0, 2, 4] {
        assert_eq!(next.next_blocks(), Some(missing..missing + 1));
        let range = next.offsets(&(missing..missing + 1));
        next.put(missing..missing + 1, slice(&newer, &range)).unwrap();
    }
    assert_eq!(next.next_blocks(), None);
    assert_eq!(*next.finish().bytes, newer);
}
