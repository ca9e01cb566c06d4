//! Packs heartbeats of many nodes into datagrams.

use crate::{
    auth::{FrameKind, Header, Keys, MAC_BYTES},
    codec::{CodecId, protobuf},
    message::{Beat, MAX_BATCH},
};

/// UDP payload that passes an Ethernet of 1500 bytes without fragments, IPv6 and some tunnel headers included.
pub const DATAGRAM_BYTES: usize = 1400;
/// Room for the end of a batch beside the sender's name: its key and length, two numbers, MAC.
const TAIL_BYTES: usize = 2 + 2 * 11 + MAC_BYTES;

/// Packs beats into one datagram after the other. Pure but for the numbers it draws.
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
    /// `sender` by the rule of ids; `limit` in bytes of a datagram, MAC included.
    pub fn new(keys: Keys, sender: String, incarnation: u64, limit: usize) -> Self {
        let datagram = Vec::with_capacity(limit.max(DATAGRAM_BYTES));
        Self { keys, sender, incarnation, sequence: 0, limit, padded: false, datagram, beats: 0 }
    }

    /// Makes every full datagram exactly `limit` bytes long: `UDP_SEGMENT` wants one length for all.
    pub fn padded(self) -> Self {
        Self { padded: true, ..self }
    }

    /// Adds a beat. If it finds no room, the datagram before it is finished and given to `full` first. A beat longer than a
    /// datagram gets one of its own, which is too long for `limit`.
    pub fn push(&mut self, beat: &Beat, full: impl FnOnce(&[u8])) {
        if self.beats == 0 {
            self.begin();
        }
        let before = self.datagram.len();
        protobuf::append_to_batch(beat, &mut self.datagram);
        let crowded = self.datagram.len() + TAIL_BYTES + self.sender.len() > self.limit || self.beats == MAX_BATCH;
        if crowded && self.beats > 0 {
            // Rare (once per datagram): the beat is written a second time.
            self.datagram.truncate(before);
            self.finish(full, self.padded);
            self.begin();
            protobuf::append_to_batch(beat, &mut self.datagram);
        }
        self.beats += 1;
    }

    /// Gives what is there to `full`, if anything is.
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
        self.keys.finish(0, &mut self.datagram);
        full(&self.datagram);
        self.beats = 0;
    }
}
