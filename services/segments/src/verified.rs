//! Reads a segment's file. Every block is compared with the manifest before it is returned: no caller can serve or copy a bad byte.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
};

use crate::{
    digest::Digest,
    manifest::{BLOCK_BYTES, Manifest},
};

/// Longest range of one call, in bytes: 256 blocks.
pub const MAX_RANGE_BYTES: u64 = 1 << 20;

/// A file with its manifest, open for reading. It stays readable if a newer version replaces it in the directory.
#[derive(Debug)]
pub struct VerifiedFile {
    manifest: Manifest,
    /// `None`: the file is missing, so every block counts as missing.
    file: Option<File>,
}

#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    #[error("block {block} of segment {segment} is damaged or missing on this disk", segment = .segment.number())]
    Damaged { segment: contract::SegmentId, block: u32 },
    #[error("bytes {offset} to {offset} + {length} are beyond the end of the file, which has {end} bytes")]
    BeyondEnd { offset: u64, length: u64, end: u64 },
    #[error("a range of {0} bytes is too long, the limit is {MAX_RANGE_BYTES}")]
    RangeTooLong(u64),
    #[error("the bytes are not block {block} of this version")]
    NotThisBlock { block: u32 },
    #[error("cannot access the file of the segment")]
    Io(#[from] io::Error),
}

impl VerifiedFile {
    pub(crate) fn new(manifest: Manifest, file: Option<File>) -> Self {
        Self { manifest, file }
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes of a block: 4096, or fewer at the end of the file.
    ///
    /// # Errors
    /// The block is damaged, the file has no such block, or the disk fails.
    pub fn block(&self, block: u32) -> Result<Vec<u8>, BlockError> {
        let length = self.manifest.block_length(block);
        if length == 0 {
            let offset = u64::from(block) * BLOCK_BYTES as u64;
            return Err(BlockError::BeyondEnd { offset, length: BLOCK_BYTES as u64, end: self.manifest.length() });
        }
        let found = self.file.as_ref().map(|file| read_block(file, block, length)).transpose()?.flatten();
        match found {
            Some(bytes) if self.manifest.accepts(block, &bytes) => Ok(bytes),
            _ => Err(BlockError::Damaged { segment: self.manifest.segment(), block }),
        }
    }

    /// `length` bytes from `offset`.
    ///
    /// # Errors
    /// One of the blocks that the range touches is damaged, the range is too long or ends beyond the file, or the disk fails.
    pub fn range(&self, offset: u64, length: u64) -> Result<Vec<u8>, BlockError> {
        if length > MAX_RANGE_BYTES {
            return Err(BlockError::RangeTooLong(length));
        }
        let end = self.manifest.length();
        let Some(last) = offset.checked_add(length).filter(|&last| last <= end) else {
            return Err(BlockError::BeyondEnd { offset, length, end });
        };
        let block_bytes = BLOCK_BYTES as u64;
        let mut bytes = Vec::with_capacity(length as usize);
        // The file has at most `MAX_BLOCKS` blocks.
        for block in (offset / block_bytes) as u32..last.div_ceil(block_bytes) as u32 {
            let start = u64::from(block) * block_bytes;
            let found = self.block(block)?;
            let (from, to) = (offset.saturating_sub(start) as usize, (last - start).min(found.len() as u64) as usize);
            bytes.extend_from_slice(found.get(from..to).unwrap_or_default());
        }
        Ok(bytes)
    }

    /// The whole file.
    ///
    /// # Errors
    /// A block is damaged, or the disk fails.
    pub fn all(&self) -> Result<Vec<u8>, BlockError> {
        let mut bytes = Vec::with_capacity(self.manifest.length() as usize);
        for block in 0..self.manifest.blocks().len() as u32 {
            bytes.extend(self.block(block)?);
        }
        Ok(bytes)
    }

    /// SHA-256 of a block as it is on the disk, for the report. `None`: it is not there, or cannot be read.
    pub fn digest_on_disk(&self, block: u32) -> Option<Digest> {
        let bytes = read_block(self.file.as_ref()?, block, self.manifest.block_length(block)).ok().flatten()?;
        Some(Digest::of(&bytes))
    }

    /// Whether every block is good. Reads the whole file.
    pub fn is_complete(&self) -> bool {
        (0..).zip(self.manifest.blocks()).all(|(block, digest)| self.digest_on_disk(block) == Some(*digest))
    }
}

/// `None`: the file ends before the block does.
pub(crate) fn read_block(file: &File, block: u32, length: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, u64::from(block) * BLOCK_BYTES as u64) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
