//! Damages the files of a segment in a worker's directory, as a bad disk, an operator or a restored backup would.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use contract::SegmentId;
use segments::{BLOCK_BYTES, Found, Manifest, SegmentDirectory};

/// Flips a bit in each of these blocks.
///
/// # Errors
/// The file is not there, or has no such block.
pub fn flip(directory: &Path, segment: SegmentId, blocks: &[u32]) -> anyhow::Result<()> {
    let path = blocks_file(directory, segment)?;
    let file = File::options().read(true).write(true).open(&path)?;
    for &block in blocks {
        let at = u64::from(block) * BLOCK_BYTES as u64;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).with_context(|| format!("{} has no block {block}", path.display()))?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
    }
    Ok(())
}

/// Cuts the file off after this number of blocks.
///
/// # Errors
/// The file is not there.
pub fn truncate(directory: &Path, segment: SegmentId, blocks: u32) -> anyhow::Result<()> {
    let path = blocks_file(directory, segment)?;
    Ok(File::options().write(true).open(path)?.set_len(u64::from(blocks) * BLOCK_BYTES as u64)?)
}

/// Flips a bit in the middle of the manifest.
///
/// # Errors
/// The manifest is not there.
pub fn manifest(directory: &Path, segment: SegmentId) -> anyhow::Result<()> {
    let path = manifest_file(directory, segment);
    let mut bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(!bytes.is_empty(), "{} is empty", path.display());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(fs::write(path, bytes)?)
}

/// Puts another content in place of the version that is there, with a manifest of the same version that agrees with it: as a worker that
/// folds in another way would publish it. Each call makes another content.
///
/// # Errors
/// The version is not there, or the files cannot be written.
pub fn forge(directory: &Path, segment: SegmentId) -> anyhow::Result<()> {
    let Found::Version(file) = SegmentDirectory::of_another(directory).find(segment)? else {
        anyhow::bail!("{} has no version of segment {segment}", directory.display());
    };
    let mut bytes = fs::read(directory.join(file.manifest().file_name()))?;
    let last = bytes.last_mut().context("the file is empty")?;
    *last = last.wrapping_add(1);
    let forged = Manifest::of(segment, file.manifest().version(), &bytes)?;
    fs::write(directory.join(forged.file_name()), &bytes)?;
    // In one step, since the worker may be reading. It removes the file of the former content with the next version.
    let temporary = directory.join("forged");
    fs::write(&temporary, forged.encode())?;
    Ok(fs::rename(temporary, manifest_file(directory, segment))?)
}

/// Removes the directory with all segments.
///
/// # Errors
/// It is not there.
pub fn delete(directory: &Path) -> anyhow::Result<()> {
    // At once: its worker may write a file while others are removed.
    let gone = directory.with_extension("gone");
    let renamed = fs::rename(directory, &gone).and_then(|()| fs::remove_dir_all(&gone));
    renamed.with_context(|| format!("cannot remove {}", directory.display()))
}

/// Files of a version, to be put back later.
#[derive(Debug, Clone)]
pub struct Backup {
    manifest: (PathBuf, Vec<u8>),
    blocks: (PathBuf, Vec<u8>),
}

impl Backup {
    /// # Errors
    /// The files are not there.
    pub fn take(directory: &Path, segment: SegmentId) -> anyhow::Result<Self> {
        let (manifest, blocks) = (manifest_file(directory, segment), blocks_file(directory, segment)?);
        let read = |path: PathBuf| fs::read(&path).map(|bytes| (path, bytes));
        Ok(Self { manifest: read(manifest)?, blocks: read(blocks)? })
    }

    /// The version is there again, in place of a newer one, of which nothing is left.
    ///
    /// # Errors
    /// The files cannot be removed or written.
    pub fn restore(&self, directory: &Path, segment: SegmentId) -> anyhow::Result<()> {
        fs::remove_file(blocks_file(directory, segment)?)?;
        for (path, bytes) in [&self.blocks, &self.manifest] {
            fs::write(path, bytes)?;
        }
        Ok(())
    }

    /// Blocks of the version that is there which differ from those that were saved at the same offset.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn differing_blocks(&self, directory: &Path, segment: SegmentId) -> anyhow::Result<u64> {
        let bytes = fs::read(blocks_file(directory, segment)?)?;
        let saved: Vec<&[u8]> = self.blocks.1.chunks(BLOCK_BYTES).collect();
        let differs = |(at, block): &(usize, &[u8])| saved.get(*at) != Some(block);
        Ok(bytes.chunks(BLOCK_BYTES).enumerate().filter(differs).count() as u64)
    }

    /// Whether the directory has another version by now.
    pub fn is_replaced(&self, directory: &Path, segment: SegmentId) -> bool {
        fs::read(manifest_file(directory, segment)).is_ok_and(|bytes| bytes != self.manifest.1)
    }
}

/// Number of blocks of the version that is there.
///
/// # Errors
/// There is none.
pub fn block_count(directory: &Path, segment: SegmentId) -> anyhow::Result<u32> {
    match SegmentDirectory::of_another(directory).find(segment)? {
        Found::Version(file) => Ok(file.manifest().blocks().len() as u32),
        _ => anyhow::bail!("{} has no version of segment {segment}", directory.display()),
    }
}

/// Length of the manifest that is there.
///
/// # Errors
/// There is none.
pub fn manifest_bytes(directory: &Path, segment: SegmentId) -> anyhow::Result<u64> {
    let path = manifest_file(directory, segment);
    Ok(fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len())
}

fn manifest_file(directory: &Path, segment: SegmentId) -> PathBuf {
    directory.join(format!("segment-{segment}.manifest"))
}

/// Of the version that is there.
fn blocks_file(directory: &Path, segment: SegmentId) -> anyhow::Result<PathBuf> {
    let Found::Version(file) = SegmentDirectory::of_another(directory).find(segment)? else {
        anyhow::bail!("{} has no version of segment {segment}", directory.display());
    };
    Ok(directory.join(file.manifest().file_name()))
}
