//! A connection's read buffer: bytes are read at `end`, looked at up to `scanned`, free to go up to `released`, sent on
//! from `start`.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::packet::Malformed;

/// Also the longest packet of the authentication phase. Only pages in use take memory.
pub(crate) const CAPACITY: usize = 16 * 1024;

pub(crate) struct Buffer {
    data: Box<[u8]>,
    start: usize,
    released: usize,
    scanned: usize,
    end: usize,
}

/// A whole packet at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompletePacket {
    /// Header included.
    pub(crate) bytes: usize,
    pub(crate) seq: u8,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self { data: vec![0; CAPACITY].into(), start: 0, released: 0, scanned: 0, end: 0 }
    }

    /// Reads once; 0 = the peer will send no more. Cancel safe.
    pub(crate) async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.released -= self.start;
            self.scanned -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
        debug_assert!(self.has_room(), "a read of nothing looks like the end");
        let read = from.read(&mut self.data[self.end..]).await?;
        self.end += read;
        Ok(read)
    }

    pub(crate) fn unscanned(&self) -> &[u8] {
        &self.data[self.scanned..self.end]
    }

    /// All but the last `left` bytes were looked at.
    pub(crate) fn scanned_but(&mut self, left: usize) {
        self.scanned = self.end - left;
    }

    /// What was looked at may go.
    pub(crate) fn release(&mut self) {
        self.released = self.scanned;
    }

    /// Free to go, not sent on yet.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.data[self.start..self.released]
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.end {
            (self.start, self.released, self.scanned, self.end) = (0, 0, 0, 0);
        }
    }

    /// The packet at the front, once all of it is there; it counts as scanned and released.
    ///
    /// # Errors
    /// `OversizedHandshake`: it can never fit.
    pub(crate) fn complete_packet(&mut self) -> Result<Option<CompletePacket>, Malformed> {
        let held = &self.data[self.start..self.end];
        let Some(&[a, b, c, seq]) = held.first_chunk() else { return Ok(None) };
        let bytes = 4 + u32::from_le_bytes([a, b, c, 0]) as usize;
        if bytes > CAPACITY {
            return Err(Malformed::OversizedHandshake);
        }
        if held.len() < bytes {
            return Ok(None);
        }
        self.scanned = self.start + bytes;
        self.released = self.scanned;
        Ok(Some(CompletePacket { bytes, seq }))
    }

    /// Payload of the packet that `whole` found.
    pub(crate) fn payload(&mut self) -> &mut [u8] {
        &mut self.data[self.start + 4..self.released]
    }

    pub(crate) fn has_room(&self) -> bool {
        self.end - self.start < CAPACITY
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }
}
