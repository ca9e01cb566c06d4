use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::{
    examples::{LENGTH, bytes, current, directory, segment, version},
    install::WriteError,
    manifest::Version,
    verified::{BlockError, MAX_RANGE_BYTES},
};

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
    assert_eq!(current(&directory).all().unwrap(), bytes(2));
    assert_eq!(second.manifest(), current(&directory).manifest());
    assert_eq!(first.all().unwrap(), bytes(1), "a reader keeps the version that it has open");
    blocks_path(&directory);
    let older = directory.write(segment(), version(1), &bytes(1)).unwrap_err();
    assert!(matches!(older, WriteError::Older(_)), "{older}");
    assert!(matches!(directory.begin(first.manifest().clone()), Err(WriteError::Older(_))));
    // The same version of a later epoch.
    directory.write(segment(), Version { epoch: 9, ..version(2) }, &bytes(2)).unwrap();
    assert_eq!(current(&directory).manifest().version().epoch, 9);
    let earlier = directory.write(segment(), version(2), &bytes(2)).unwrap_err();
    assert!(matches!(earlier, WriteError::Older(_)), "{earlier}");
}

/// What is written to this name fails as on a full disk.
fn fill(path: PathBuf) {
    std::os::unix::fs::symlink("/dev/full", path.with_added_extension("tmp")).unwrap();
}

#[test]
fn a_write_that_fails_leaves_nothing_on_a_full_disk() {
    let (_root, directory) = directory();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&directory.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        names
    };
    let before = names();
    let second = Manifest::of(segment(), version(2), &bytes(2)).unwrap();
    for full in [directory.blocks_path(&second), directory.manifest_path(segment(), Place::Current)] {
        fill(full);
        let error = directory.write(segment(), version(2), &bytes(2)).unwrap_err();
        assert!(matches!(&error, WriteError::Io(error) if error.kind() == ErrorKind::StorageFull), "{error:?}");
        assert_eq!(names(), before);
    }
    fill(directory.manifest_path(segment(), Place::Staged));
    let error = directory.begin(second).unwrap_err();
    assert!(matches!(&error, WriteError::Io(error) if error.kind() == ErrorKind::StorageFull), "{error:?}");
    assert_eq!(names(), before);
    assert_eq!(current(&directory).all().unwrap(), bytes(1));
    // The blocks of a version whose manifest was damaged stay: another copy's manifest makes them usable again.
    flip(&directory.manifest_path(segment(), Place::Current), 9);
    fill(directory.manifest_path(segment(), Place::Current));
    directory.write(segment(), version(1), &bytes(1)).unwrap_err();
    assert_eq!(names(), before);
}

#[test]
fn no_bad_byte_is_returned() {
    let (_root, directory) = directory();
    let file = directory.write(segment(), version(1), &bytes(1)).unwrap();
    flip(&blocks_path(&directory), BLOCK_BYTES + 7);
    let damaged = |result: Result<Vec<u8>, BlockError>| matches!(result, Err(BlockError::Damaged { block: 1, .. }));
    assert!(damaged(file.block(1)) && damaged(file.all()) && damaged(file.range(0, LENGTH as u64)));
    assert_eq!(file.range(0, BLOCK_BYTES as u64).unwrap(), bytes(1)[..BLOCK_BYTES]);
    let report = directory.report(segment()).unwrap().unwrap().current.unwrap();
    let wrong: Vec<usize> = (0..4).filter(|&n| report.blocks[n] != Some(file.manifest().blocks()[n])).collect();
    assert_eq!(wrong, [1]);
    // The other blocks stay readable, also by content.
    let by_content = directory.by_content(segment(), file.manifest().content()).unwrap().unwrap();
    assert_eq!(by_content.block(2).unwrap(), file.block(2).unwrap());
    assert!(directory.by_content(segment(), Digest::of(b"other")).unwrap().is_none());
}

#[test]
fn a_file_that_is_cut_off_or_gone_is_damaged_and_reading_creates_nothing() {
    let (_root, directory) = directory();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    let path = blocks_path(&directory);
    File::options().write(true).open(&path).unwrap().set_len(BLOCK_BYTES as u64 + 5).unwrap();
    let lost = |directory: &SegmentDirectory| {
        let file = current(directory);
        (0..4).filter(|&block| file.block(block).is_err()).collect::<Vec<u32>>()
    };
    let reported = |directory: &SegmentDirectory| {
        let current = directory.report(segment()).unwrap().unwrap().current.unwrap();
        current.blocks.iter().map(Option::is_some).collect::<Vec<bool>>()
    };
    assert_eq!(lost(&directory), [1, 2, 3]);
    assert_eq!(reported(&directory), [true, false, false, false]);
    fs::remove_file(&path).unwrap();
    assert_eq!(lost(&directory), [0, 1, 2, 3]);
    assert_eq!(reported(&directory), [false; 4]);
    assert!(!path.exists());
    // A file whose reads fail.
    fs::create_dir(&path).unwrap();
    assert_eq!(reported(&directory), [false; 4]);
    assert!(matches!(current(&directory).block(0), Err(BlockError::Io(_))));
}

#[test]
fn a_manifest_that_cannot_be_read_is_a_damaged_one() {
    let (_root, directory) = directory();
    let path = directory.manifest_path(segment(), Place::Current);
    fs::create_dir(&path).unwrap();
    let found = directory.find(segment()).unwrap();
    assert!(matches!(found, Found::BadManifest(ManifestError::Unreadable(ErrorKind::IsADirectory))), "{found:?}");
    assert_eq!(directory.report(segment()).unwrap(), None);
    fs::remove_dir(&path).unwrap();
    // One that never ends is not read to its end.
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(directory.find(segment()).unwrap(), Found::BadManifest(_)));
}

#[test]
fn a_directory_that_is_gone_is_empty_and_is_made_again() {
    let (_root, directory) = directory();
    let manifest = directory.write(segment(), version(1), &bytes(1)).unwrap().manifest().clone();
    let delete = || fs::remove_dir_all(&directory.path).unwrap();
    delete();
    assert!(matches!(directory.find(segment()).unwrap(), Found::Nothing));
    assert_eq!(directory.report(segment()).unwrap(), None);
    assert!(directory.by_content(segment(), manifest.content()).unwrap().is_none());
    directory.remove(segment()).unwrap();
    assert!(!directory.path.exists());
    assert_eq!(directory.begin(manifest).unwrap().missing(), [0, 1, 2, 3]);
    delete();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    assert_eq!(current(&directory).all().unwrap(), bytes(1));
}

#[test]
fn a_reader_of_versions_that_are_replaced_gets_one_of_them_without_a_gap() {
    let (_root, directory) = directory();
    directory.write(segment(), version(1), &bytes(1)).unwrap();
    let writer = directory.clone();
    let writing = std::thread::spawn(move || {
        for position in 2..40 {
            writer.write(segment(), version(position), &bytes(position as u8)).unwrap();
        }
    });
    while !writing.is_finished() {
        let file = current(&directory);
        assert_eq!(file.all().unwrap(), bytes(file.manifest().version().vector.positions()[0] as u8));
    }
    writing.join().unwrap();
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
