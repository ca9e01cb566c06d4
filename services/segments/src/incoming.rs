//! A version that arrives block by block, from other copies. A new version is staged, and becomes the current one with its last block; blocks
//! of the current version are repaired in place.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
};

use crate::{
    directory::{Place, SegmentDirectory},
    install::WriteError,
    manifest::{BLOCK_BYTES, Manifest},
    verified::{BlockError, read_block},
};

/// Dropped at any time it loses nothing: `begin` goes on from the blocks that came.
#[derive(Debug)]
pub struct Incoming {
    directory: SegmentDirectory,
    manifest: Manifest,
    file: File,
    missing: BTreeSet<u32>,
    is_staged: bool,
}

impl SegmentDirectory {
    /// Begins or goes on to fetch a version. Blocks that a file of this segment has at the same offset are taken from there.
    ///
    /// # Errors
    /// The current version is newer, as after a late order, or the disk fails.
    pub fn begin(&self, manifest: Manifest) -> Result<Incoming, WriteError> {
        let segment = manifest.segment();
        if self.has_newer(&manifest)? {
            return Err(WriteError::Older(segment));
        }
        fs::create_dir_all(&self.path)?;
        let was_there = self.blocks_path(&manifest).exists();
        let begun = self.gather(&manifest);
        if begun.is_err() && !was_there {
            self.remove_if_unnamed(&manifest);
        }
        let (file, missing, is_staged) = begun?;
        Ok(Incoming { directory: self.clone(), manifest, file, missing, is_staged })
    }

    /// The version's file with the blocks that are here, the others, and whether the version is the staged one.
    fn gather(&self, manifest: &Manifest) -> io::Result<(File, BTreeSet<u32>, bool)> {
        let (segment, path) = (manifest.segment(), self.blocks_path(manifest));
        // A file that cannot be opened gives no blocks.
        let known: Vec<File> = self
            .block_files(segment)?
            .into_iter()
            .filter(|other| *other != path)
            .filter_map(|other| File::open(other).ok())
            .collect();
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        file.set_len(manifest.length())?;
        let mut missing = BTreeSet::new();
        for block in 0..manifest.blocks().len() as u32 {
            let good = |other: &File| {
                let bytes = read_block(other, block, manifest.block_length(block)).ok().flatten();
                bytes.filter(|bytes| manifest.accepts(block, bytes))
            };
            if good(&file).is_some() {
                continue;
            }
            match known.iter().find_map(good) {
                Some(bytes) => file.write_all_at(&bytes, u64::from(block) * BLOCK_BYTES as u64)?,
                None => {
                    missing.insert(block);
                }
            }
        }
        let is_at = |place| Ok::<bool, io::Error>(self.read_manifest(segment, place)? == Some(Ok(manifest.clone())));
        let is_staged = !is_at(Place::Current)?;
        if is_staged && !is_at(Place::Staged)? {
            self.stage(manifest)?;
        }
        Ok((file, missing, is_staged))
    }
}

impl Incoming {
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The blocks that are not here yet, ascending.
    pub fn missing(&self) -> Vec<u32> {
        self.missing.iter().copied().collect()
    }

    /// Writes a block. It is on the disk after `finish`; a process that ends before leaves a damaged block at worst, which the next report
    /// shows.
    ///
    /// # Errors
    /// The bytes are not this block of this version: nothing is written. Or the disk fails.
    pub fn put(&mut self, block: u32, bytes: &[u8]) -> Result<(), BlockError> {
        if !self.manifest.accepts(block, bytes) {
            return Err(BlockError::NotThisBlock { block });
        }
        if self.missing.contains(&block) {
            self.file.write_all_at(bytes, u64::from(block) * BLOCK_BYTES as u64)?;
            self.missing.remove(&block);
        }
        Ok(())
    }

    /// Returns when the blocks are on the disk: whether this is now the current version, with all its blocks.
    ///
    /// # Errors
    /// The disk fails. The version before is still there then.
    pub fn finish(self) -> io::Result<bool> {
        self.file.sync_all()?;
        if !self.missing.is_empty() {
            return Ok(false);
        }
        if self.is_staged {
            return self.directory.promote(&self.manifest);
        }
        // A repair in place ends without effect if the version was replaced or removed meanwhile.
        let current = self.directory.read_manifest(self.manifest.segment(), Place::Current)?;
        Ok(current == Some(Ok(self.manifest)))
    }
}

#[cfg(test)]
#[path = "incoming_tests.rs"]
mod tests;
