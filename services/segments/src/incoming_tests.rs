use std::path::Path;

use contract::SegmentId;

use super::*;
use crate::{
    digest::Digest,
    directory::Found,
    examples::{bytes, current, directory, segment, version},
    manifest::{ManifestError, Version},
    report::CopyState,
};

fn manifest(position: u64, bytes: &[u8]) -> Manifest {
    Manifest::of(segment(), version(position), bytes).unwrap()
}

fn block(bytes: &[u8], number: u32) -> &[u8] {
    bytes.chunks(BLOCK_BYTES).nth(number as usize).unwrap()
}

fn staged(directory: &SegmentDirectory) -> Option<CopyState> {
    directory.report(segment()).unwrap().unwrap().staged
}

fn files(directory: &SegmentDirectory) -> usize {
    fs::read_dir(&directory.path).unwrap().count()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_block_is_repaired_in_place_with_the_right_bytes_only() {
    let (_root, directory) = directory();
    let file = directory.write(segment(), version(1), &bytes(1)).unwrap();
    let path = directory.blocks_path(file.manifest());
    flip(&path, BLOCK_BYTES + 7);
    let mut incoming = directory.begin(file.manifest().clone()).unwrap();
    assert_eq!((incoming.missing(), incoming.manifest()), (vec![1], file.manifest()));
    let right = block(&bytes(1), 1).to_vec();
    let wrong = block(&bytes(2), 1).to_vec();
    for (number, bytes) in [(1, &wrong), (2, &right), (9, &right)] {
        let refused = incoming.put(number, bytes).unwrap_err();
        assert!(matches!(refused, BlockError::NotThisBlock { block } if block == number), "{refused}");
    }
    incoming.put(1, &right).unwrap();
    assert!(incoming.finish().unwrap());
    assert_eq!((file.all().unwrap(), files(&directory), staged(&directory)), (bytes(1), 2, None));
    // A file that is cut off grows again, in any order; one that is gone is made again.
    File::options().write(true).open(&path).unwrap().set_len(BLOCK_BYTES as u64 + 5).unwrap();
    assert_eq!(directory.begin(file.manifest().clone()).unwrap().missing(), [1, 2, 3]);
    fs::remove_file(&path).unwrap();
    let mut incoming = directory.begin(file.manifest().clone()).unwrap();
    for number in [3, 0, 2] {
        incoming.put(number, block(&bytes(1), number)).unwrap();
    }
    assert!(!incoming.finish().unwrap(), "block 1 is missing");
    let mut incoming = directory.begin(file.manifest().clone()).unwrap();
    incoming.put(1, &right).unwrap();
    assert!(incoming.finish().unwrap());
    assert_eq!(current(&directory).all().unwrap(), bytes(1));
}

#[test]
fn the_version_before_stays_until_the_new_one_is_complete() {
    let (_root, directory) = directory();
    let first = directory.write(segment(), version(1), &bytes(1)).unwrap();
    let mut new = bytes(1);
    new[2 * BLOCK_BYTES] ^= 1;
    new.extend([0; 50]);
    let second = manifest(2, &new);
    let mut incoming = directory.begin(second.clone()).unwrap();
    assert_eq!(incoming.missing(), [2, 3], "equal blocks are taken from the version before");
    incoming.put(3, block(&new, 3)).unwrap();
    assert!(!incoming.finish().unwrap());
    // Both are there, and both are served.
    assert_eq!(current(&directory).all().unwrap(), bytes(1));
    let by_content = |manifest: &Manifest| directory.by_content(segment(), manifest.content()).unwrap().unwrap();
    assert_eq!(by_content(first.manifest()).all().unwrap(), bytes(1));
    assert_eq!(by_content(&second).block(3).unwrap(), block(&new, 3));
    assert!(matches!(by_content(&second).block(2), Err(BlockError::Damaged { block: 2, .. })));
    let copy = staged(&directory).unwrap();
    assert!(copy.is_of(&second) && copy.has(&second, 3) && !copy.has(&second, 2));
    // A later version is staged instead, with what came for the one before.
    let mut newest = new.clone();
    newest[0] ^= 1;
    let third = manifest(3, &newest);
    let mut incoming = directory.begin(third.clone()).unwrap();
    assert_eq!((incoming.missing(), files(&directory)), (vec![0, 2], 4));
    incoming.put(0, block(&newest, 0)).unwrap();
    // The worker ends here, and its next process goes on.
    drop(incoming);
    let again = SegmentDirectory::open(&directory.path).unwrap();
    assert_eq!(current(&again).all().unwrap(), bytes(1));
    let mut incoming = again.begin(third.clone()).unwrap();
    assert_eq!(incoming.missing(), [2]);
    incoming.put(2, block(&newest, 2)).unwrap();
    assert!(incoming.finish().unwrap());
    assert_eq!(current(&again).manifest(), &third);
    assert_eq!((current(&again).all().unwrap(), files(&again), staged(&again)), (newest, 2, None));
}

#[test]
fn the_same_content_of_a_later_epoch_needs_its_manifest_only() {
    let (_root, directory) = directory();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    let later = Manifest::of(segment(), Version { epoch: 9, ..version(1) }, &bytes(1)).unwrap();
    let incoming = directory.begin(later.clone()).unwrap();
    assert_eq!(incoming.missing(), [0; 0]);
    assert!(incoming.finish().unwrap());
    assert_eq!((current(&directory).manifest(), files(&directory)), (&later, 2));
}

#[test]
fn a_version_that_the_primary_writes_ends_the_staged_ones_that_it_dominates() {
    let (_root, directory) = directory();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    let incoming = directory.begin(manifest(2, &bytes(2))).unwrap();
    directory.write(segment(), version(3), &bytes(3)).unwrap();
    assert_eq!((files(&directory), staged(&directory)), (2, None));
    // The fetch that was going on ends without effect.
    assert!(!finish_with(incoming, &bytes(2)));
    assert_eq!(current(&directory).all().unwrap(), bytes(3));
    // So does a repair of a version that was replaced.
    let repair = directory.begin(manifest(3, &bytes(3))).unwrap();
    directory.write(segment(), version(3), &bytes(4)).unwrap();
    assert!(!repair.finish().unwrap());
    // A newer one stays.
    let incoming = directory.begin(manifest(9, &bytes(9))).unwrap();
    directory.write(segment(), version(4), &bytes(4)).unwrap();
    assert_eq!(files(&directory), 4);
    assert!(finish_with(incoming, &bytes(9)));
    assert_eq!((current(&directory).all().unwrap(), files(&directory)), (bytes(9), 2));
}

fn finish_with(mut incoming: Incoming, bytes: &[u8]) -> bool {
    for number in incoming.missing() {
        incoming.put(number, block(bytes, number)).unwrap();
    }
    incoming.finish().unwrap()
}

#[test]
fn a_damaged_manifest_costs_no_blocks() {
    let (_root, directory) = directory();
    let first = directory.write(segment(), version(1), &bytes(1)).unwrap().manifest().clone();
    flip(&directory.manifest_path(segment(), Place::Current), 20);
    assert!(matches!(directory.find(segment()).unwrap(), Found::BadManifest(ManifestError::Damaged)));
    // Neither before another version is staged, nor after.
    for staged in [false, true] {
        let report = directory.report(segment()).unwrap().unwrap();
        let blocks = first.blocks().iter().copied().map(Some).collect();
        assert_eq!(report.current, Some(CopyState { manifest: None, blocks }));
        assert_eq!(report.staged.is_some(), staged);
        directory.begin(manifest(2, &bytes(2))).unwrap();
    }
    let incoming = directory.begin(first.clone()).unwrap();
    assert_eq!(incoming.missing(), [0; 0]);
    assert!(incoming.finish().unwrap());
    assert_eq!((current(&directory).all().unwrap(), files(&directory)), (bytes(1), 2));
}

#[test]
fn what_a_process_left_half_done_does_not_count_and_is_finished_or_removed() {
    let (_root, directory) = directory();
    let path = directory.path.clone();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    // It ended after it had written the blocks of the next version, and in the middle of its manifest.
    let next = manifest(2, &bytes(2));
    fs::write(directory.blocks_path(&next), bytes(2)).unwrap();
    fs::write(path.join("segment-03.manifest.tmp"), &next.encode()[..50]).unwrap();
    let again = SegmentDirectory::open(&path).unwrap();
    assert_eq!((current(&again).all().unwrap(), files(&again)), (bytes(1), 3));
    again.write(segment(), version(2), &bytes(2)).unwrap();
    assert_eq!(files(&again), 2);
    // It ended after the last block, before the staged version was in place.
    let third = bytes(3);
    let mut incoming = again.begin(manifest(3, &third)).unwrap();
    incoming.missing().into_iter().for_each(|number| incoming.put(number, block(&third, number)).unwrap());
    drop(incoming);
    assert_eq!(current(&again).all().unwrap(), bytes(2));
    let finished = SegmentDirectory::open(&path).unwrap();
    assert_eq!((current(&finished).all().unwrap(), files(&finished)), (third, 2));
    // The staged manifest is damaged: it is fetched again.
    drop(finished.begin(manifest(4, &bytes(4))).unwrap());
    flip(&finished.manifest_path(segment(), Place::Staged), 30);
    assert_eq!(staged(&SegmentDirectory::open(&path).unwrap()), None);
    assert!(finish_with(finished.begin(manifest(4, &bytes(4))).unwrap(), &bytes(4)));
    assert_eq!((current(&finished).all().unwrap(), files(&finished)), (bytes(4), 2));
}

#[test]
fn nothing_is_left_of_a_segment_that_is_removed() {
    let (_root, directory) = directory();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    drop(directory.begin(manifest(2, &bytes(2))).unwrap());
    let other = SegmentId::new(4).unwrap();
    directory.write(other, version(1), &bytes(1)).unwrap();
    assert_eq!(files(&directory), 6);
    directory.remove(segment()).unwrap();
    assert_eq!((files(&directory), directory.report(segment()).unwrap()), (2, None));
    assert!(matches!(directory.find(other).unwrap(), Found::Version(_)));
    assert!(directory.by_content(segment(), Digest::of(b"")).unwrap().is_none());
}
