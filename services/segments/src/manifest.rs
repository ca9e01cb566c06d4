//! The manifest of a segment's file: which version it is, and the SHA-256 of each of its blocks.
//!
//! ```text
//! format u8 | format of the file u8 | segment u8 | epoch u64 | version vector 16 × u64 | length u64 | SHA-256 of each block | SHA-256 of all this
//! ```
//! Little endian. The last digest tells a damaged manifest from a good one; it does not protect from forgery.

use std::io::ErrorKind;

use contract::{SegmentId, VersionVector};

use crate::{
    digest::Digest,
    file,
    input::{EndsTooEarly, Input},
};

pub const BLOCK_BYTES: usize = 4096;
/// The longest manifest has 2 MiB and a header.
pub const MAX_BLOCKS: u32 = 1 << 16;
/// 256 MiB.
pub const MAX_FILE_BYTES: u64 = MAX_BLOCKS as u64 * BLOCK_BYTES as u64;
/// Changes with the layout.
const FORMAT: u8 = 2;
const HEADER_BYTES: usize = 1 + 1 + 1 + 8 + VersionVector::BYTES + 8;
pub const MAX_MANIFEST_BYTES: usize = encoded_bytes(MAX_BLOCKS as usize);

/// Bytes of the manifest of a file with this many blocks.
pub(crate) const fn encoded_bytes(blocks: usize) -> usize {
    HEADER_BYTES + (blocks + 1) * Digest::BYTES
}

/// A version that was published: by which epoch of the segment's partition, and what was folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub epoch: u64,
    pub vector: VersionVector,
}

impl Version {
    /// Whether it dominates the other one, or is the same one of a later epoch.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.vector > other.vector || self.vector == other.vector && self.epoch > other.epoch
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    segment: SegmentId,
    version: Version,
    length: u64,
    /// Of the length and the blocks. Requests ask for it, so it is computed once.
    content: Digest,
    blocks: Vec<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest has format {0}, but this program reads format {FORMAT}")]
    Format(u8),
    #[error("the manifest is of a file of format {0}, but this program reads format {format}", format = file::FORMAT)]
    FileFormat(u8),
    #[error("the manifest cannot be read from the disk: {0}")]
    Unreadable(ErrorKind),
    #[error("the manifest belongs to segment {found}, not to segment {expected}")]
    ForeignSegment { expected: SegmentId, found: u8 },
    #[error("the manifest ends too early")]
    Truncated,
    #[error("the manifest states a file of {0} bytes, the limit is {MAX_FILE_BYTES}")]
    Length(u64),
    #[error("the manifest of a file of {length} bytes must have {expected} bytes, but it has {found}")]
    Size { length: u64, expected: usize, found: usize },
    #[error("the manifest is damaged: its digest is another one")]
    Damaged,
}

impl From<EndsTooEarly> for ManifestError {
    fn from(EndsTooEarly: EndsTooEarly) -> Self {
        Self::Truncated
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file would have {0} bytes, the limit is {MAX_FILE_BYTES}")]
pub struct TooLong(pub u64);

impl Manifest {
    /// Of the file with these bytes.
    ///
    /// # Errors
    /// The file is longer than `MAX_FILE_BYTES`.
    pub fn of(segment: SegmentId, version: Version, bytes: &[u8]) -> Result<Self, TooLong> {
        let length = bytes.len() as u64;
        if length > MAX_FILE_BYTES {
            return Err(TooLong(length));
        }
        Ok(Self::new(segment, version, length, bytes.chunks(BLOCK_BYTES).map(Digest::of).collect()))
    }

    fn new(segment: SegmentId, version: Version, length: u64, blocks: Vec<Digest>) -> Self {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(blocks.iter().flat_map(|digest| digest.0));
        Self { segment, version, length, content: Digest::of(&bytes), blocks }
    }

    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Of the file, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// SHA-256 of each block, by offset. All blocks have 4096 bytes, the last one may have fewer.
    pub fn blocks(&self) -> &[Digest] {
        &self.blocks
    }

    /// Length of a block in bytes; 0: the file has no such block.
    pub fn block_length(&self, block: u32) -> usize {
        let start = u64::from(block) * BLOCK_BYTES as u64;
        // At most BLOCK_BYTES.
        self.length.saturating_sub(start).min(BLOCK_BYTES as u64) as usize
    }

    /// Whether these bytes are this block of the file.
    pub fn accepts(&self, block: u32, bytes: &[u8]) -> bool {
        self.blocks.get(block as usize).is_some_and(|&digest| digest == Digest::of(bytes))
    }

    /// Depends on the file only: two epochs that publish the same bytes have the same content.
    pub fn content(&self) -> Digest {
        self.content
    }

    /// `"CONTENT-EPOCH"` with the quotes: the entity tag of the manifest over HTTP.
    pub fn etag(&self) -> String {
        format!("\"{}-{}\"", self.content, self.version.epoch)
    }

    /// Name of the file with the blocks.
    pub fn file_name(&self) -> String {
        format!("segment-{}-{}.blocks", self.segment, &self.content.to_string()[..32])
    }

    /// At most 2 MiB and a header.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(encoded_bytes(self.blocks.len()));
        out.extend([FORMAT, file::FORMAT, self.segment.number()]);
        out.extend(self.version.epoch.to_le_bytes());
        out.extend(self.version.vector.to_bytes());
        out.extend(self.length.to_le_bytes());
        out.extend(self.blocks.iter().flat_map(|digest| digest.0));
        out.extend(Digest::of(&out).0);
        out
    }

    /// The inverse of `encode`.
    ///
    /// # Errors
    /// `encode` cannot have written these bytes for segment `expected`. Invalid bytes never cause a panic; nothing is allocated before the
    /// length is known to be the right one.
    pub fn decode(bytes: &[u8], expected: SegmentId) -> Result<Self, ManifestError> {
        let mut input = Input(bytes);
        let format = input.u8()?;
        if format != FORMAT {
            return Err(ManifestError::Format(format));
        }
        let format = input.u8()?;
        if format != file::FORMAT {
            return Err(ManifestError::FileFormat(format));
        }
        let found = input.u8()?;
        if found != expected.number() {
            return Err(ManifestError::ForeignSegment { expected, found });
        }
        let version = Version { epoch: input.u64()?, vector: VersionVector::from_bytes(&input.array()?) };
        let length = input.u64()?;
        if length > MAX_FILE_BYTES {
            return Err(ManifestError::Length(length));
        }
        let count = length.div_ceil(BLOCK_BYTES as u64) as usize;
        let size = encoded_bytes(count);
        if bytes.len() != size {
            return Err(ManifestError::Size { length, expected: size, found: bytes.len() });
        }
        let blocks = input.bytes(count * Digest::BYTES)?;
        if input.0 != Digest::of(&bytes[..size - Digest::BYTES]).0 {
            return Err(ManifestError::Damaged);
        }
        let blocks = blocks.as_chunks().0.iter().copied().map(Digest).collect();
        Ok(Self::new(expected, version, length, blocks))
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
