//! The file of a segment in memory: complete, or being fetched.

use std::{ops::Range, sync::Arc};

use segments::{BLOCK_BYTES, MAX_RANGE_BYTES, Manifest};

use super::failure::Failure;

const BLOCKS_PER_RANGE: u32 = (MAX_RANGE_BYTES / BLOCK_BYTES as u64) as u32;

/// A version whose blocks are all verified.
#[derive(Debug)]
pub struct Held {
    pub manifest: Manifest,
    pub bytes: Arc<Vec<u8>>,
    /// As the workers write it.
    pub etag: String,
}

/// A version of which some blocks are missing.
#[derive(Debug)]
pub struct Unfinished {
    manifest: Manifest,
    bytes: Vec<u8>,
    /// Ascending.
    missing: Vec<u32>,
}

impl Unfinished {
    /// Takes over blocks that the version in use or the one fetched before has at the same offset.
    pub fn new(manifest: Manifest, held: Option<&Held>, before: Option<&Self>) -> Self {
        // At most MAX_FILE_BYTES: the manifest was checked when it was decoded.
        let mut file = Self { bytes: vec![0; manifest.length() as usize], missing: Vec::new(), manifest };
        for block in 0..file.manifest.blocks().len() as u32 {
            let digest = file.manifest.blocks().get(block as usize);
            let is_same = |other: &Manifest| other.blocks().get(block as usize) == digest;
            let known = match (held, before) {
                (Some(held), _) if is_same(&held.manifest) => Some(&held.bytes[..]),
                (_, Some(before)) if is_same(&before.manifest) && before.missing.binary_search(&block).is_err() => {
                    Some(&before.bytes[..])
                }
                _ => None,
            };
            let place = file.place(block);
            match known.and_then(|known| known.get(place.clone())) {
                Some(known) => file.bytes[place].copy_from_slice(known),
                None => file.missing.push(block),
            }
        }
        file
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The next blocks to fetch, at most 1 MiB. `None`: the file is complete.
    pub fn next_blocks(&self) -> Option<Range<u32>> {
        let first = *self.missing.first()?;
        let run = (first..).zip(&self.missing).take(BLOCKS_PER_RANGE as usize);
        let count = run.take_while(|(expected, block)| expected == *block).count();
        Some(first..first + count as u32)
    }

    /// Offsets in the file, in bytes.
    pub fn offsets(&self, blocks: &Range<u32>) -> Range<u64> {
        self.place(blocks.start).start as u64..self.place(blocks.end.saturating_sub(1)).end as u64
    }

    /// Puts the blocks that are those of the manifest in their places. `bytes` are as many as `offsets` says.
    ///
    /// # Errors
    /// One is not. The right ones before and after it are kept.
    pub fn put(&mut self, blocks: Range<u32>, bytes: &[u8]) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        for (block, bytes) in blocks.clone().zip(bytes.chunks(BLOCK_BYTES)) {
            if self.manifest.accepts(block, bytes) {
                let place = self.place(block);
                self.bytes[place].copy_from_slice(bytes);
            } else {
                wrong.push(block);
            }
        }
        self.missing.retain(|block| !blocks.contains(block) || wrong.contains(block));
        wrong.first().map_or(Ok(()), |&block| Err(Failure::WrongBytes { block }))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// To be called when no block is missing.
    pub fn finish(self) -> Held {
        let etag = self.manifest.etag();
        Held { manifest: self.manifest, bytes: Arc::new(self.bytes), etag }
    }

    fn place(&self, block: u32) -> Range<usize> {
        let start = block as usize * BLOCK_BYTES;
        start..start + self.manifest.block_length(block)
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
