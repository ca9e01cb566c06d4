//! A segment, its versions and files, for tests of the directory.

use contract::{SegmentId, VersionVector};
use tempfile::TempDir;

use crate::{
    directory::{Found, SegmentDirectory},
    manifest::{BLOCK_BYTES, Version},
    verified::VerifiedFile,
};

pub(crate) const LENGTH: usize = 3 * BLOCK_BYTES + 100;

pub(crate) fn segment() -> SegmentId {
    SegmentId::new(3).unwrap()
}

pub(crate) fn version(position: u64) -> Version {
    Version { epoch: 1, vector: VersionVector::new([position; 16]) }
}

/// Of `LENGTH`, and different for each seed.
pub(crate) fn bytes(seed: u8) -> Vec<u8> {
    (0..LENGTH).map(|at| (at / 100) as u8 ^ seed).collect()
}

pub(crate) fn directory() -> (TempDir, SegmentDirectory) {
    let root = TempDir::new().unwrap();
    let directory = SegmentDirectory::open(root.path().join("segments")).unwrap();
    (root, directory)
}

/// The current version.
pub(crate) fn current(directory: &SegmentDirectory) -> VerifiedFile {
    match directory.find(segment()).unwrap() {
        Found::Version(file) => file,
        other => panic!("{other:?}"),
    }
}
