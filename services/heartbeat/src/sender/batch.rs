//! Packs heartbeats of many nodes into datagrams.

use crate::{
    auth::{FrameKind, Header, Keys, MAC_BYTES},
    codec::{CodecId, protobuf},
    message::{Beat, MAX_BATCH},
};

/// UDP payload that passes an Ethernet of 1500 bytes without fragments, IPv6 and some tunnel headers included.
pub const DATAGRAM_BYTES: usize = 1400;
/// Bytes at the end of a batch besides the sender's name: its key and length, two numbers, MAC.
const TAIL_BYTES: usize = 2 + 2 * 11 + MAC_BYTES;

/// Packs heartbeats into datagrams. Pure, except for sequence numbers.
pub struct BatchWriter {
    keys: Keys,
    sender: String,
    incarnation: u64,
    sequence: u64,
    limit: usize,
    padded: bool,
    datagram: Vec<u8>,
    beats: usize,
}

impl BatchWriter {
    /// `sender`: a valid name; `limit`: bytes of a datagram, MAC included.
    pub fn new(keys: Keys, sender: String, incarnation: u64, limit: usize) -> Self {
        let datagram = Vec::with_capacity(limit.max(DATAGRAM_BYTES));
        Self { keys, sender, incarnation, sequence: 0, limit, padded: false, datagram, beats: 0 }
    }

    /// Pads every full datagram to exactly `limit` bytes: `UDP_SEGMENT` needs equal lengths.
    pub fn padded(self) -> Self {
        Self { padded: true, ..self }
    }

    /// Adds a heartbeat. If it does not fit, first finishes the current datagram and passes it to `full`. A heartbeat longer than `limit`
    /// gets its own, longer datagram.
    pub fn push(&mut self, beat: &Beat, full: impl FnOnce(&[u8])) {
        if self.beats == 0 {
            self.begin();
        }
        let before = self.datagram.len();
        protobuf::append_to_batch(beat, &mut self.datagram);
        let crowded = self.datagram.len() + TAIL_BYTES + self.sender.len() > self.limit || self.beats == MAX_BATCH;
        if crowded && self.beats > 0 {
            // Rare (once per datagram): the heartbeat is encoded twice.
            self.datagram.truncate(before);
            self.finish(full, self.padded);
            self.begin();
            protobuf::append_to_batch(beat, &mut self.datagram);
        }
        self.beats += 1;
    }

    /// Passes the current datagram to `full`, if there is one.
    pub fn flush(&mut self, full: impl FnOnce(&[u8])) {
        if self.beats > 0 {
            self.finish(full, false);
        }
    }

    fn begin(&mut self) {
        self.datagram.clear();
        let header = Header { kind: FrameKind::Batch, codec: CodecId::Protobuf, ack_wanted: false };
        self.keys.begin(header, &mut self.datagram);
    }

    fn finish(&mut self, full: impl FnOnce(&[u8]), padded: bool) {
        self.sequence += 1;
        protobuf::finish_batch(&self.sender, self.incarnation, self.sequence, &mut self.datagram);
        if padded {
            protobuf::pad_batch(self.limit - MAC_BYTES, &mut self.datagram);
        }
        self.keys.finish(FrameKind::Batch.role(), 0, &mut self.datagram);
        full(&self.datagram);
        self.beats = 0;
    }
}
