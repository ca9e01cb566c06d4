//! Read buffer of a connection. Bytes are read up to `end`, scanned up to `scanned`, ready to send up to `released`, and sent up to
//! `start`.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::packet::Malformed;

/// Also the maximum packet length of the authentication phase. Only used pages take memory.
pub(crate) const CAPACITY: usize = 16 * 1024;

pub(crate) struct Buffer {
    data: Box<[u8]>,
    start: usize,
    released: usize,
    scanned: usize,
    end: usize,
}

/// A complete packet at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompletePacket {
    /// Length with the header.
    pub(crate) bytes: usize,
    pub(crate) seq: u8,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self { data: vec![0; CAPACITY].into(), start: 0, released: 0, scanned: 0, end: 0 }
    }

    /// Reads once; 0: end of the stream. Cancel safe.
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

    /// Marks all but the last `left` bytes as scanned.
    pub(crate) fn scanned_but(&mut self, left: usize) {
        self.scanned = self.end - left;
    }

    /// Marks scanned bytes as ready to send.
    pub(crate) fn release(&mut self) {
        self.released = self.scanned;
    }

    /// Bytes that are ready to send.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.data[self.start..self.released]
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.end {
            (self.start, self.released, self.scanned, self.end) = (0, 0, 0, 0);
        }
    }

    /// The packet at the front, if it is complete. Marks it as scanned and ready to send.
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

    /// Payload of the packet that `complete_packet` found.
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
