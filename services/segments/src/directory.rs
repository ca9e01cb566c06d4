//! The files of the segments in a directory of a worker or a replica: their names, and reading them.
//!
//! ```text
//! segment-03.manifest               the current version
//! segment-03.next.manifest          the staged version: it is being fetched, and becomes the current one when its last block is good
//! segment-03-CONTENT.blocks         the file of one of them; CONTENT is from the manifest, so a manifest never belongs to another file
//! *.tmp                             being written
//! ```
//! Nothing here writes: `install.rs` does, and `incoming.rs` fetches a version block by block. A directory that is missing is an empty one.
//!
//! One task at a time writes a segment. Readers need no lock: a file that they have open stays readable.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::PathBuf,
};

use contract::SegmentId;

use crate::{
    digest::Digest,
    manifest::{BLOCK_BYTES, MAX_BLOCKS, MAX_MANIFEST_BYTES, Manifest, ManifestError},
    report::{CopyReport, CopyState},
    verified::{VerifiedFile, read_block},
};

/// A version has to be replaced during each of them for the last one to fail.
const MAX_READS: usize = 8;

#[derive(Debug, Clone)]
pub struct SegmentDirectory {
    pub(crate) path: PathBuf,
}

/// What a directory has of a segment.
#[derive(Debug)]
pub enum Found {
    /// A version. Some of its blocks may be damaged, or all of them missing.
    Version(VerifiedFile),
    /// The manifest cannot be used, so no block can be verified. Another copy's manifest makes the blocks usable again (`begin`).
    BadManifest(ManifestError),
    Nothing,
}

/// Which of the two versions of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Current,
    Staged,
}

impl SegmentDirectory {
    /// The current version.
    ///
    /// # Errors
    /// The disk fails. A damaged manifest is no error of the disk.
    pub fn find(&self, segment: SegmentId) -> io::Result<Found> {
        self.open_version(segment, Place::Current)
    }

    /// The current or the staged version, if its file has this content.
    ///
    /// # Errors
    /// The disk fails.
    pub fn by_content(&self, segment: SegmentId, content: Digest) -> io::Result<Option<VerifiedFile>> {
        // The staged version first: it may become the current one in between.
        for place in [Place::Staged, Place::Current] {
            if let Found::Version(file) = self.open_version(segment, place)?
                && file.manifest().content() == content
            {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// The manifests that are here and can be used: the staged version's, then the current one's.
    ///
    /// # Errors
    /// The disk fails.
    pub fn manifests(&self, segment: SegmentId) -> io::Result<Vec<Manifest>> {
        let mut found = Vec::new();
        for place in [Place::Staged, Place::Current] {
            if let Some(Ok(manifest)) = self.read_manifest(segment, place)? {
                found.push(manifest);
            }
        }
        Ok(found)
    }

    /// What the block report says: reads every block. `None`: there is nothing. What cannot be read counts as missing.
    ///
    /// # Errors
    /// The directory or a manifest cannot be opened.
    pub fn report(&self, segment: SegmentId) -> io::Result<Option<CopyReport>> {
        let staged = match self.open_version(segment, Place::Staged)? {
            Found::Version(file) => Some(file),
            Found::BadManifest(_) | Found::Nothing => None,
        };
        let current = match self.find(segment)? {
            Found::Version(file) => Some(state(&file)),
            Found::BadManifest(_) | Found::Nothing => {
                self.blocks_without_manifest(segment, staged.as_ref().map(VerifiedFile::manifest))?
            }
        };
        let staged = staged.as_ref().map(state);
        Ok((current.is_some() || staged.is_some()).then_some(CopyReport { current, staged }))
    }

    /// Usually there is at most one such file.
    fn blocks_without_manifest(&self, segment: SegmentId, staged: Option<&Manifest>) -> io::Result<Option<CopyState>> {
        let of_staged = staged.map(|manifest| self.blocks_path(manifest));
        let others = self.block_files(segment)?.into_iter().filter(|path| Some(path) != of_staged.as_ref());
        let Some(file) = others.take(1).find_map(|path| File::open(path).ok()) else { return Ok(None) };
        let length = file.metadata()?.len();
        let mut blocks = Vec::new();
        for block in 0..length.div_ceil(BLOCK_BYTES as u64).min(u64::from(MAX_BLOCKS)) {
            let rest = (length - block * BLOCK_BYTES as u64).min(BLOCK_BYTES as u64);
            let bytes = read_block(&file, block as u32, rest as usize).ok().flatten();
            blocks.push(bytes.map(|bytes| Digest::of(&bytes)));
        }
        Ok((!blocks.is_empty()).then_some(CopyState { manifest: None, blocks }))
    }

    pub(crate) fn open_version(&self, segment: SegmentId, place: Place) -> io::Result<Found> {
        // The manifest of the blocks that were not found. If it is still there, they are missing; else the version was replaced meanwhile.
        let mut without_blocks = None;
        for _ in 0..MAX_READS {
            let manifest = match self.read_manifest(segment, place)? {
                None => return Ok(Found::Nothing),
                Some(Err(error)) => return Ok(Found::BadManifest(error)),
                Some(Ok(manifest)) => manifest,
            };
            match File::open(self.blocks_path(&manifest)) {
                Ok(file) => return Ok(Found::Version(VerifiedFile::new(manifest, Some(file)))),
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Err(_) if without_blocks.as_ref() == Some(&manifest) => {
                    return Ok(Found::Version(VerifiedFile::new(manifest, None)));
                }
                Err(_) => without_blocks = Some(manifest),
            }
        }
        Err(io::Error::new(ErrorKind::ResourceBusy, "the version was replaced during each of several reads"))
    }

    /// `None`: there is none.
    pub(crate) fn read_manifest(
        &self,
        segment: SegmentId,
        place: Place,
    ) -> io::Result<Option<Result<Manifest, ManifestError>>> {
        let file = match File::open(self.manifest_path(segment, place)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        // One byte more than the longest manifest is refused by its length.
        Ok(Some(match file.take(MAX_MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes) {
            Ok(_) => Manifest::decode(&bytes, segment),
            Err(error) => Err(ManifestError::Unreadable(error.kind())),
        }))
    }

    pub(crate) fn manifest_path(&self, segment: SegmentId, place: Place) -> PathBuf {
        let next = if place == Place::Staged { ".next" } else { "" };
        self.path.join(format!("segment-{segment}{next}.manifest"))
    }

    pub(crate) fn blocks_path(&self, manifest: &Manifest) -> PathBuf {
        let content = manifest.content().to_string();
        self.path.join(format!("segment-{}-{}.blocks", manifest.segment(), &content[..32]))
    }

    /// In order of name.
    pub(crate) fn block_files(&self, segment: SegmentId) -> io::Result<Vec<PathBuf>> {
        let start = OsString::from(format!("segment-{segment}-"));
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let is_of_segment = path.file_name().is_some_and(|name| {
                name.as_encoded_bytes().starts_with(start.as_encoded_bytes())
                    && name.as_encoded_bytes().ends_with(b".blocks")
            });
            if is_of_segment {
                found.push(path);
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn state(file: &VerifiedFile) -> CopyState {
    let blocks = (0..file.manifest().blocks().len() as u32).map(|block| file.digest_on_disk(block)).collect();
    CopyState { manifest: Some(file.manifest().clone()), blocks }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
