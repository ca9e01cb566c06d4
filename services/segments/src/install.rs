//! Puts versions into a directory, and removes them.
//!
//! A version becomes the current one when its manifest is renamed into place. Before that its blocks and its manifest are on the disk, and the
//! rename is on the disk before the call returns. Only then the version before is removed. So a process that ends at any point leaves a
//! version that is complete.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use contract::SegmentId;

use crate::{
    directory::{Found, Place, SegmentDirectory},
    manifest::{Manifest, TooLong, Version},
    verified::VerifiedFile,
};

const TEMPORARY: &str = "tmp";

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error("the directory has a version of segment {0} that is newer than this one")]
    Older(SegmentId),
    #[error("cannot write the file of the segment")]
    Io(#[from] io::Error),
}

impl SegmentDirectory {
    /// Creates the directory if it is missing, removes what a process left half-written, and finishes what it left complete.
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
        for segment in SegmentId::all() {
            if let Found::Version(staged) = directory.open_version(segment, Place::Staged)?
                && staged.is_complete()
            {
                directory.promote(staged.manifest())?;
            }
        }
        Ok(directory)
    }

    /// Writes a version, and returns when it is on the disk. It replaces the version before, and a staged one that it dominates.
    ///
    /// # Errors
    /// The file is too long, the version there is newer, or the disk fails. The version before is still there then.
    pub fn write(&self, segment: SegmentId, version: Version, bytes: &[u8]) -> Result<VerifiedFile, WriteError> {
        let manifest = Manifest::of(segment, version, bytes)?;
        if self.has_newer(&manifest)? {
            return Err(WriteError::Older(segment));
        }
        fs::create_dir_all(&self.path)?;
        let path = self.blocks_path(&manifest);
        let was_there = path.exists();
        if let Err(error) = self.put_version(&manifest, &path, bytes) {
            if !was_there {
                self.remove_if_unnamed(&manifest);
            }
            return Err(error.into());
        }
        let staged = self.read_manifest(segment, Place::Staged)?.and_then(Result::ok);
        if staged.is_none_or(|staged| staged.version().vector <= version.vector) {
            remove(self.manifest_path(segment, Place::Staged))?;
        }
        self.remove_unnamed(segment)?;
        Ok(VerifiedFile::new(manifest, Some(File::open(path)?)))
    }

    fn put_version(&self, manifest: &Manifest, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.put(path, bytes)?;
        // The blocks must not come after the manifest that names them.
        self.sync()?;
        self.put(&self.manifest_path(manifest.segment(), Place::Current), &manifest.encode())?;
        self.sync()
    }

    /// Removes the current and the staged version, for a worker that holds the segment no more.
    ///
    /// # Errors
    /// The disk fails. Some files may be left then: call it again.
    pub fn remove(&self, segment: SegmentId) -> io::Result<()> {
        for place in [Place::Current, Place::Staged] {
            remove(self.manifest_path(segment, place))?;
        }
        self.block_files(segment)?.into_iter().try_for_each(remove)?;
        match self.sync() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Makes a manifest the staged one, instead of the one before. Its blocks come later.
    pub(crate) fn stage(&self, manifest: &Manifest) -> io::Result<()> {
        self.put(&self.manifest_path(manifest.segment(), Place::Staged), &manifest.encode())?;
        self.sync()?;
        // Without a manifest of the current version, its blocks cannot be told from others.
        match self.read_manifest(manifest.segment(), Place::Current)? {
            Some(Err(_)) => Ok(()),
            _ => self.remove_unnamed(manifest.segment()),
        }
    }

    /// Makes the staged version the current one. The caller knows that its blocks are good. Returns `false` if it is not staged any more, or
    /// if the current version is newer by now.
    pub(crate) fn promote(&self, manifest: &Manifest) -> io::Result<bool> {
        let segment = manifest.segment();
        let staged = self.read_manifest(segment, Place::Staged)?.and_then(Result::ok);
        if staged.as_ref() != Some(manifest) {
            return Ok(false);
        }
        if self.has_newer(manifest)? {
            remove(self.manifest_path(segment, Place::Staged))?;
            self.remove_unnamed(segment)?;
            return Ok(false);
        }
        File::open(self.blocks_path(manifest))?.sync_all()?;
        self.sync()?;
        fs::rename(self.manifest_path(segment, Place::Staged), self.manifest_path(segment, Place::Current))?;
        self.sync()?;
        self.remove_unnamed(segment)?;
        Ok(true)
    }

    /// Whether the current version dominates this one, or is the same one of a later epoch.
    pub(crate) fn has_newer(&self, manifest: &Manifest) -> io::Result<bool> {
        let current = self.read_manifest(manifest.segment(), Place::Current)?.and_then(Result::ok);
        Ok(current.is_some_and(|current| current.version().is_newer_than(&manifest.version())))
    }

    /// Writes a file to a temporary name, and renames it when it is on the disk. The caller syncs the directory. After an error nothing of
    /// it is left: a full disk must not fill further with each attempt.
    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_added_extension(TEMPORARY);
        let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // If it cannot be removed, the next `open` does it.
            let _ = fs::remove_file(temporary);
        }
        written
    }

    /// After a failed write: removes the file with the version's blocks, if no manifest names it. If it cannot be removed, the next version
    /// that is written does it.
    pub(crate) fn remove_if_unnamed(&self, manifest: &Manifest) {
        let is_unnamed = |named: Vec<Manifest>| !named.iter().any(|named| named.content() == manifest.content());
        if self.manifests(manifest.segment()).is_ok_and(is_unnamed) {
            let _ = remove(self.blocks_path(manifest));
        }
    }

    /// Removes the files of blocks that no manifest names.
    fn remove_unnamed(&self, segment: SegmentId) -> io::Result<()> {
        let named: Vec<PathBuf> = self.manifests(segment)?.iter().map(|manifest| self.blocks_path(manifest)).collect();
        self.block_files(segment)?.into_iter().filter(|path| !named.contains(path)).try_for_each(remove)
    }

    /// Names of directory entries are on the disk when this returns.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file that is missing is no error.
fn remove(path: PathBuf) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
