use proptest::{prelude::*, sample::Index};

use super::*;

fn segment(number: u8) -> SegmentId {
    SegmentId::new(number).unwrap()
}

fn version() -> Version {
    Version { epoch: 6, vector: VersionVector::new([7; 16]) }
}

#[test]
fn blocks_have_4096_bytes_and_the_last_one_the_rest() {
    for (length, blocks, last) in [(0, 0, 0), (1, 1, 1), (4096, 1, 4096), (4097, 2, 1), (3 * 4096, 3, 4096)] {
        let bytes = vec![5; length];
        let manifest = Manifest::of(segment(3), version(), &bytes).unwrap();
        assert_eq!((manifest.blocks().len(), manifest.length()), (blocks, length as u64));
        if let Some(at) = blocks.checked_sub(1) {
            assert_eq!(manifest.block_length(at as u32), last);
            assert!(manifest.accepts(at as u32, &bytes[at * BLOCK_BYTES..]));
            assert!(!manifest.accepts(at as u32, &bytes[at * BLOCK_BYTES + 1..]));
        }
        assert_eq!(manifest.block_length(blocks as u32), 0);
        assert!(!manifest.accepts(blocks as u32, &[]));
        assert_eq!(manifest.block_length(u32::MAX), 0);
    }
}

#[test]
fn the_content_depends_on_the_file_only() {
    let of = |epoch, bytes: &[u8]| Manifest::of(segment(3), Version { epoch, ..version() }, bytes).unwrap().content();
    assert_eq!(of(1, b"same"), of(2, b"same"));
    assert_ne!(of(1, b"same"), of(1, b"sane"));
}

#[test]
fn the_etag_has_the_content_and_the_epoch() {
    let of = |epoch| Manifest::of(segment(3), Version { epoch, ..version() }, b"same").unwrap();
    assert_eq!(of(6).etag(), format!("\"{}-6\"", of(1).content()));
    let decoded = Manifest::decode(&of(6).encode(), segment(3)).unwrap();
    assert_eq!((decoded.etag(), decoded.content()), (of(6).etag(), of(6).content()));
}

#[test]
fn what_is_wrong_is_said() {
    let bytes = Manifest::of(segment(3), version(), &[0; 5000]).unwrap().encode();
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        Manifest::decode(&bytes, segment(3)).unwrap_err()
    };
    assert_eq!(with(0, &[9]), ManifestError::Format(9));
    assert_eq!(with(1, &[9]), ManifestError::FileFormat(9));
    let foreign = Manifest::decode(&bytes, segment(4)).unwrap_err();
    assert_eq!(foreign.to_string(), "the manifest belongs to segment 3, not to segment 04");
    assert_eq!(with(139, &u64::MAX.to_le_bytes()), ManifestError::Length(u64::MAX));
    assert_eq!(with(139, &(MAX_FILE_BYTES + 1).to_le_bytes()), ManifestError::Length(MAX_FILE_BYTES + 1));
    let longest = with(139, &MAX_FILE_BYTES.to_le_bytes());
    let expected = MAX_MANIFEST_BYTES;
    assert_eq!(longest, ManifestError::Size { length: MAX_FILE_BYTES, expected, found: bytes.len() });
    assert_eq!(with(6, &[1]), ManifestError::Damaged, "the epoch");
    assert_eq!(with(150, &[1, 2, 3]), ManifestError::Damaged, "a block");
    assert_eq!(Manifest::decode(&bytes[..100], segment(3)), Err(ManifestError::Truncated));
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(Manifest::decode(&longer, segment(3)), Err(ManifestError::Size { .. })));
}

proptest! {
    #[test]
    fn decoding_inverts_encoding(number in 0_u8..16, epoch: u64, positions: [u64; 16], bytes in prop::collection::vec(any::<u8>(), 0..10_000)) {
        let version = Version { epoch, vector: VersionVector::new(positions) };
        let manifest = Manifest::of(segment(number), version, &bytes).unwrap();
        prop_assert_eq!(Manifest::decode(&manifest.encode(), segment(number)), Ok(manifest));
    }

    /// The digest is right, so the decoder gets past it. Bytes that are accepted are the only ones for their contents.
    #[test]
    fn no_bytes_cause_a_panic(
        length in 0_usize..9000,
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        stated in prop::option::of(prop_oneof![any::<u64>(), 0..3 * MAX_FILE_BYTES / 2, 0_u64..9000]),
        end in prop::option::of(any::<Index>()),
        more in prop::collection::vec(any::<u8>(), 0..70),
    ) {
        let mut bytes = Manifest::of(segment(3), version(), &vec![1; length]).unwrap().encode();
        bytes.truncate(bytes.len() - Digest::BYTES);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(stated) = stated {
            bytes[139..147].copy_from_slice(&stated.to_le_bytes());
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes.extend(more);
        bytes.extend(Digest::of(&bytes).0);
        if let Ok(manifest) = Manifest::decode(&bytes, segment(3)) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }

    #[test]
    fn no_damage_is_overlooked(at: Index, bit in 0_u32..8, end in prop::option::of(any::<Index>())) {
        let original = Manifest::of(segment(3), version(), &[1; 9000]).unwrap().encode();
        let mut bytes = original.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        prop_assert!(Manifest::decode(&bytes, segment(3)).is_err());
    }
}

#[test]
fn a_later_epoch_of_the_same_vector_is_newer_and_versions_that_do_not_compare_are_not() {
    let of = |epoch, position| Version { epoch, vector: VersionVector::new([position; 16]) };
    let mut other = of(9, 7);
    other.vector.set(contract::ShardId::all().next().unwrap(), 6);
    other.vector.set(contract::ShardId::all().last().unwrap(), 8);
    for (newer, older) in [(of(1, 8), of(2, 7)), (of(2, 7), of(1, 7))] {
        assert!(newer.is_newer_than(&older) && !older.is_newer_than(&newer));
    }
    assert!(!other.is_newer_than(&of(1, 7)) && !of(1, 7).is_newer_than(&other) && !other.is_newer_than(&other));
}
