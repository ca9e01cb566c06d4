//! The files of the segments in a directory of a worker or a replica.
//!
//! ```text
//! segment-03.manifest               the version that is here
//! segment-03-CONTENT.blocks         its file; CONTENT is from the manifest, so that a manifest never belongs to another file
//! *.tmp                             being written
//! ```
//! A version appears when its manifest is renamed into place: everything is written to a temporary name, on the disk before it is renamed,
//! and the rename is on the disk before the call returns. A process that ends in between leaves the version before.
//!
//! One task at a time writes a segment. Readers need no lock: a file that they have open stays readable.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use contract::SegmentId;

use crate::{
    digest::Digest,
    manifest::{BLOCK_BYTES, MAX_BLOCKS, MAX_MANIFEST_BYTES, Manifest, ManifestError, TooLong, Version},
    report::CopyReport,
    verified::{VerifiedFile, read_block},
};

const TEMPORARY: &str = "tmp";

#[derive(Debug)]
pub struct SegmentDirectory {
    path: PathBuf,
}

/// What a directory has of a segment.
#[derive(Debug)]
pub enum Found {
    /// A version. Some of its blocks may be damaged, or all of them missing.
    Version(VerifiedFile),
    /// The manifest cannot be used, so no block can be verified. Another copy's manifest makes the blocks usable again (`adopt`).
    BadManifest(ManifestError),
    Nothing,
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error("the directory has a version of segment {0} that dominates this one: it is not replaced by an older one")]
    Older(SegmentId),
    #[error("cannot write the file of the segment")]
    Io(#[from] io::Error),
}

impl SegmentDirectory {
    /// Creates the directory if it is missing, and removes what a process left half-written.
    ///
    /// # Errors
    /// The disk fails.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = Self { path: path.into() };
        fs::create_dir_all(&directory.path)?;
        for entry in fs::read_dir(&directory.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == TEMPORARY) {
                fs::remove_file(path)?;
            }
        }
        Ok(directory)
    }

    /// # Errors
    /// The disk fails. A damaged manifest is no error of the disk.
    pub fn find(&self, segment: SegmentId) -> io::Result<Found> {
        let mut bytes = Vec::new();
        match File::open(self.manifest_path(segment)) {
            // One byte more than the longest manifest is refused by its length.
            Ok(file) => file.take(MAX_MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        match Manifest::decode(&bytes, segment) {
            Ok(manifest) => self.open_blocks(manifest).map(Found::Version),
            Err(error) => Ok(Found::BadManifest(error)),
        }
    }

    /// What the block report says: reads every block. `None`: there is nothing.
    ///
    /// # Errors
    /// The disk fails.
    pub fn report(&self, segment: SegmentId) -> io::Result<Option<CopyReport>> {
        if let Found::Version(file) = self.find(segment)? {
            let blocks = (0..file.manifest().blocks().len() as u32).map(|block| file.digest_on_disk(block)).collect();
            return Ok(Some(CopyReport { manifest: Some(file.manifest().clone()), blocks }));
        }
        // Blocks without a manifest: usually there is one such file.
        let mut blocks = Vec::new();
        for path in self.block_files(segment)?.into_iter().take(1) {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            for block in 0..length.div_ceil(BLOCK_BYTES as u64).min(u64::from(MAX_BLOCKS)) {
                let rest = (length - block * BLOCK_BYTES as u64).min(BLOCK_BYTES as u64);
                blocks.push(read_block(&file, block as u32, rest as usize)?.map(|bytes| Digest::of(&bytes)));
            }
        }
        Ok((!blocks.is_empty()).then_some(CopyReport { manifest: None, blocks }))
    }

    /// Writes a version, and returns when it is on the disk. It replaces the version before.
    ///
    /// # Errors
    /// The file is too long, the version there dominates it, or the disk fails. The version before is still there then.
    pub fn write(&self, segment: SegmentId, version: Version, bytes: &[u8]) -> Result<VerifiedFile, WriteError> {
        let manifest = Manifest::of(segment, version, bytes)?;
        self.check_newer(&manifest)?;
        let temporary = self.temporary(segment, "blocks");
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        self.install(manifest, &file, &temporary)
    }

    /// Takes another copy's manifest: the version is here from now on. Blocks that a file of this segment has at the same offset are kept,
    /// the others count as damaged until `VerifiedFile::repair` writes them.
    ///
    /// # Errors
    /// The version there dominates it, as after a late order, or the disk fails. The version before is still there then.
    pub fn adopt(&self, manifest: Manifest) -> Result<VerifiedFile, WriteError> {
        self.check_newer(&manifest)?;
        let segment = manifest.segment();
        let known: Vec<File> = self.block_files(segment)?.into_iter().map(File::open).collect::<io::Result<_>>()?;
        let temporary = self.temporary(segment, "blocks");
        let file = File::create(&temporary)?;
        file.set_len(manifest.length())?;
        for block in 0..manifest.blocks().len() as u32 {
            for other in &known {
                let bytes = read_block(other, block, manifest.block_length(block))?;
                if let Some(bytes) = bytes.filter(|bytes| manifest.accepts(block, bytes)) {
                    file.write_all_at(&bytes, u64::from(block) * BLOCK_BYTES as u64)?;
                    break;
                }
            }
        }
        self.install(manifest, &file, &temporary)
    }

    fn check_newer(&self, manifest: &Manifest) -> Result<(), WriteError> {
        match self.find(manifest.segment())? {
            Found::Version(known) if known.manifest().version().vector > manifest.version().vector => {
                Err(WriteError::Older(manifest.segment()))
            }
            _ => Ok(()),
        }
    }

    fn install(&self, manifest: Manifest, blocks: &File, temporary: &Path) -> Result<VerifiedFile, WriteError> {
        let segment = manifest.segment();
        let path = self.blocks_path(&manifest);
        blocks.sync_all()?;
        fs::rename(temporary, &path)?;
        let temporary = self.temporary(segment, "manifest");
        let mut file = File::create(&temporary)?;
        file.write_all(&manifest.encode())?;
        file.sync_all()?;
        // The blocks must not come after the manifest that names them.
        self.sync()?;
        fs::rename(temporary, self.manifest_path(segment))?;
        self.sync()?;
        for older in self.block_files(segment)?.into_iter().filter(|older| *older != path) {
            fs::remove_file(older)?;
        }
        Ok(self.open_blocks(manifest)?)
    }

    /// A file that is missing is made anew without blocks, so that it is repaired like a damaged one.
    fn open_blocks(&self, manifest: Manifest) -> io::Result<VerifiedFile> {
        let path = self.blocks_path(&manifest);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(VerifiedFile::new(manifest, file))
    }

    /// Names of directory entries are on the disk when this returns.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn manifest_path(&self, segment: SegmentId) -> PathBuf {
        self.path.join(format!("segment-{segment}.manifest"))
    }

    fn blocks_path(&self, manifest: &Manifest) -> PathBuf {
        let content = manifest.content().to_string();
        self.path.join(format!("segment-{}-{}.blocks", manifest.segment(), &content[..32]))
    }

    fn temporary(&self, segment: SegmentId, of: &str) -> PathBuf {
        self.path.join(format!("segment-{segment}.{of}.{TEMPORARY}"))
    }

    /// In order of name.
    fn block_files(&self, segment: SegmentId) -> io::Result<Vec<PathBuf>> {
        let start = OsString::from(format!("segment-{segment}-"));
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
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

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
