use contract::VersionVector;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::verified::{BlockError, MAX_RANGE_BYTES};

const LENGTH: usize = 3 * BLOCK_BYTES + 100;

fn segment() -> SegmentId {
    SegmentId::new(3).unwrap()
}

fn version(position: u64) -> Version {
    Version { epoch: 1, vector: VersionVector::new([position; 16]) }
}

fn bytes(seed: u8) -> Vec<u8> {
    (0..LENGTH).map(|at| (at / 100) as u8 ^ seed).collect()
}

fn directory() -> (TempDir, SegmentDirectory) {
    let root = TempDir::new().unwrap();
    let directory = SegmentDirectory::open(root.path().join("segments")).unwrap();
    (root, directory)
}

fn found(directory: &SegmentDirectory) -> VerifiedFile {
    match directory.find(segment()).unwrap() {
        Found::Version(file) => file,
        other => panic!("{other:?}"),
    }
}

fn blocks_path(directory: &SegmentDirectory) -> PathBuf {
    let files = directory.block_files(segment()).unwrap();
    assert_eq!(files.len(), 1);
    files[0].clone()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_version_is_written_read_and_replaced() {
    let (_root, directory) = directory();
    assert!(matches!(directory.find(segment()).unwrap(), Found::Nothing));
    assert_eq!(directory.report(segment()).unwrap(), None);
    let first = directory.write(segment(), version(1), &bytes(1)).unwrap();
    let second = directory.write(segment(), version(2), &bytes(2)).unwrap();
    assert_eq!(found(&directory).all().unwrap(), bytes(2));
    assert_eq!(second.manifest(), found(&directory).manifest());
    assert_eq!(first.all().unwrap(), bytes(1), "a reader keeps the version that it has open");
    blocks_path(&directory);
    let older = directory.write(segment(), version(1), &bytes(1)).unwrap_err();
    assert!(matches!(older, WriteError::Older(_)), "{older}");
    assert!(matches!(directory.adopt(first.manifest().clone()), Err(WriteError::Older(_))));
    // The same version of a later epoch.
    directory.write(segment(), Version { epoch: 9, ..version(2) }, &bytes(2)).unwrap();
    assert_eq!(found(&directory).manifest().version().epoch, 9);
}

#[test]
fn no_bad_byte_is_returned() {
    let (_root, directory) = directory();
    let file = directory.write(segment(), version(1), &bytes(1)).unwrap();
    flip(&blocks_path(&directory), BLOCK_BYTES + 7);
    let damaged = |result: Result<Vec<u8>, BlockError>| matches!(result, Err(BlockError::Damaged { block: 1, .. }));
    assert!(damaged(file.block(1)) && damaged(file.all()) && damaged(file.range(0, LENGTH as u64)));
    assert_eq!(file.range(0, BLOCK_BYTES as u64).unwrap(), bytes(1)[..BLOCK_BYTES]);
    let report = directory.report(segment()).unwrap().unwrap();
    let wrong: Vec<usize> = (0..4).filter(|&n| report.blocks[n] != Some(file.manifest().blocks()[n])).collect();
    assert_eq!(wrong, [1]);
    // Repaired with the right bytes only.
    let right = &bytes(1)[BLOCK_BYTES..2 * BLOCK_BYTES];
    assert!(matches!(
        file.repair(1, &bytes(2)[BLOCK_BYTES..2 * BLOCK_BYTES]),
        Err(BlockError::NotThisBlock { block: 1 })
    ));
    assert!(matches!(file.repair(2, right), Err(BlockError::NotThisBlock { block: 2 })));
    assert!(matches!(file.repair(9, right), Err(BlockError::NotThisBlock { block: 9 })));
    file.repair(1, right).unwrap();
    assert_eq!(found(&directory).all().unwrap(), bytes(1));
}

#[test]
fn a_file_that_is_cut_off_or_gone_is_damaged_and_grows_again() {
    let (_root, directory) = directory();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    let path = blocks_path(&directory);
    File::options().write(true).open(&path).unwrap().set_len(BLOCK_BYTES as u64 + 5).unwrap();
    let lost = |directory: &SegmentDirectory| {
        let file = found(directory);
        (0..4).filter(|&block| file.block(block).is_err()).collect::<Vec<u32>>()
    };
    assert_eq!(lost(&directory), [1, 2, 3]);
    assert_eq!(directory.report(segment()).unwrap().unwrap().blocks[1..], [None, None, None]);
    fs::remove_file(&path).unwrap();
    assert_eq!(lost(&directory), [0, 1, 2, 3]);
    // In any order.
    for block in [3, 0, 2, 1] {
        found(&directory).repair(block, bytes(1).chunks(BLOCK_BYTES).nth(block as usize).unwrap()).unwrap();
    }
    assert_eq!(found(&directory).all().unwrap(), bytes(1));
}

#[test]
fn ranges_end_with_the_file() {
    let (_root, directory) = directory();
    let file = directory.write(segment(), version(1), &bytes(1)).unwrap();
    let end = LENGTH as u64;
    assert!(file.range(end, 0).unwrap().is_empty());
    for (offset, length) in [(0, end + 1), (end + 1, 0), (end, 1), (u64::MAX, 1), (u64::MAX, MAX_RANGE_BYTES)] {
        assert!(matches!(file.range(offset, length), Err(BlockError::BeyondEnd { .. })), "{offset} + {length}");
    }
    assert!(matches!(file.range(0, u64::MAX), Err(BlockError::RangeTooLong(u64::MAX))));
    assert!(matches!(file.block(4), Err(BlockError::BeyondEnd { .. })));
    assert!(matches!(file.block(u32::MAX), Err(BlockError::BeyondEnd { .. })));
}

#[test]
fn a_damaged_manifest_costs_no_blocks() {
    let (_root, directory) = directory();
    let manifest = directory.write(segment(), version(1), &bytes(1)).unwrap().manifest().clone();
    flip(&directory.manifest_path(segment()), 20);
    assert!(matches!(directory.find(segment()).unwrap(), Found::BadManifest(ManifestError::Damaged)));
    let report = directory.report(segment()).unwrap().unwrap();
    assert_eq!(report.blocks, manifest.blocks().iter().copied().map(Some).collect::<Vec<_>>());
    assert_eq!(report.manifest, None);
    assert_eq!(directory.adopt(manifest).unwrap().all().unwrap(), bytes(1));
    // A manifest that never ends is not read to its end.
    File::create(directory.manifest_path(segment())).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(directory.find(segment()).unwrap(), Found::BadManifest(_)));
}

#[test]
fn adopting_keeps_the_blocks_that_are_equal() {
    let (_root, directory) = directory();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    let mut new = bytes(1);
    new[2 * BLOCK_BYTES] ^= 1;
    new.extend([0; 50]);
    let file = directory.adopt(Manifest::of(segment(), version(2), &new).unwrap()).unwrap();
    let missing: Vec<u32> = (0..4).filter(|&block| file.block(block).is_err()).collect();
    assert_eq!(missing, [2, 3]);
    for block in missing {
        file.repair(block, new.chunks(BLOCK_BYTES).nth(block as usize).unwrap()).unwrap();
    }
    assert_eq!(found(&directory).all().unwrap(), new);
    blocks_path(&directory);
}

#[test]
fn what_a_process_left_half_written_does_not_count() {
    let (root, directory) = directory();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    let path = directory.path.clone();
    // It ended after it had written the blocks of the next version, and in the middle of its manifest.
    let next = Manifest::of(segment(), version(2), &bytes(2)).unwrap();
    fs::write(directory.blocks_path(&next), bytes(2)).unwrap();
    fs::write(directory.temporary(segment(), "manifest"), &next.encode()[..50]).unwrap();
    let again = SegmentDirectory::open(&path).unwrap();
    assert_eq!(found(&again).all().unwrap(), bytes(1));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 3, "the temporary file is gone");
    again.write(segment(), version(2), &bytes(2)).unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
    drop(root);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_range_is_that_part_of_the_file(offset in 0..LENGTH, length in 0..LENGTH) {
        let (_root, directory) = directory();
        let file = directory.write(segment(), version(1), &bytes(1)).unwrap();
        let length = length.min(LENGTH - offset);
        prop_assert_eq!(file.range(offset as u64, length as u64).unwrap(), &bytes(1)[offset..offset + length]);
    }
}
