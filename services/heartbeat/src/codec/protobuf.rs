//! Protobuf by prost, and a borrowing decoder: a monitor needs five fields and no copies of the names.

use prost::{
    Message,
    encoding::{self, WireType},
};

use super::{Codec, CodecId, DecodeError, EncodeError, within_limit};
use crate::{
    id,
    message::{Batch, Beat, Invalid, MAX_BATCH, MAX_SERVICES, WorkerReport, check_load},
};

#[derive(Debug, Clone, Copy, Default)]
pub struct Protobuf;

impl Codec for Protobuf {
    fn id(&self) -> CodecId {
        CodecId::Protobuf
    }

    fn encode(&mut self, beat: &Beat, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        beat.encode_raw(out);
        Ok(())
    }

    fn encode_batch(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        batch.encode_raw(out);
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<Beat, DecodeError> {
        within_limit(bytes)?;
        let beat = Beat::decode(bytes)?;
        beat.check()?;
        Ok(beat)
    }

    fn decode_batch(&mut self, bytes: &[u8]) -> Result<Batch, DecodeError> {
        within_limit(bytes)?;
        let batch = Batch::decode(bytes)?;
        batch.check()?;
        Ok(batch)
    }
}

/// Appends a heartbeat as one element of `Batch::beats`; fields may be in any order.
pub fn append_to_batch(beat: &Beat, out: &mut Vec<u8>) {
    encoding::message::encode(1, beat, out);
}

/// Appends the other fields of a batch.
pub fn finish_batch(sender: &str, incarnation: u64, sequence: u64, out: &mut Vec<u8>) {
    encoding::encode_key(2, WireType::LengthDelimited, out);
    encoding::encode_varint(sender.len() as u64, out);
    out.extend_from_slice(sender.as_bytes());
    encoding::uint64::encode(3, &sequence, out);
    encoding::uint64::encode(4, &incarnation, out);
}

/// Appends an unknown field, so that `out` gets `length` bytes. It stays shorter if one byte is missing, and unchanged if it is longer.
pub(crate) fn pad_batch(length: usize, out: &mut Vec<u8>) {
    const PADDING: u32 = 15;
    let missing = length.saturating_sub(out.len());
    // Key, length of the field, and its bytes.
    let Some(bytes) = missing.checked_sub(if missing < 130 { 2 } else { 3 }) else { return };
    encoding::encode_key(PADDING, WireType::LengthDelimited, out);
    encoding::encode_varint(bytes as u64, out);
    out.resize(out.len() + bytes, 0);
}

/// A checked heartbeat that borrows its text from the datagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeatRef<'a> {
    pub timestamp: u64,
    pub node_id: &'a str,
    pub sequence: u64,
    pub incarnation: u64,
    pub load: f32,
    raw: &'a [u8],
}

impl<'a> BeatRef<'a> {
    /// Accepts exactly what `Protobuf::decode` accepts.
    ///
    /// # Errors
    /// Why the bytes are not valid.
    pub fn parse(raw: &'a [u8]) -> Result<Self, DecodeError> {
        within_limit(raw)?;
        let mut beat = Self { timestamp: 0, node_id: "", sequence: 0, incarnation: 0, load: 0.0, raw };
        let (mut services, mut report) = (0, WorkerReport::default());
        let mut rest = raw;
        while !rest.is_empty() {
            match field(&mut rest)? {
                (1, Value::Varint(value)) => beat.timestamp = value,
                (2, Value::Bytes(value)) => beat.node_id = text(value)?,
                (3, Value::Bytes(value)) => {
                    services += 1;
                    if services > MAX_SERVICES {
                        return Err(Invalid::Services.into());
                    }
                    id::check(text(value)?).map_err(Invalid::Service)?;
                }
                (4, Value::Varint(value)) => beat.sequence = value,
                (5, Value::Varint(value)) => beat.incarnation = value,
                (6, Value::Fixed32(value)) => beat.load = f32::from_bits(value),
                // Without complaints this allocates nothing.
                (7, Value::Bytes(value)) => report.merge(value)?,
                (1..=7, _) => return Err(DecodeError::Malformed),
                _ => {}
            }
        }
        id::check(beat.node_id).map_err(Invalid::NodeId)?;
        check_load(beat.load)?;
        report.check()?;
        Ok(beat)
    }

    /// The owned heartbeat.
    ///
    /// # Errors
    /// None for a value that `parse` returned.
    pub fn to_beat(&self) -> Result<Beat, DecodeError> {
        Ok(Beat::decode(self.raw)?)
    }
}

/// A decoded batch without its heartbeats.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRef<'a> {
    pub sender: &'a str,
    pub sequence: u64,
    pub incarnation: u64,
}

impl<'a> BatchRef<'a> {
    /// Fills `beats` (cleared first) with the batch's heartbeats in order.
    ///
    /// # Errors
    /// Why the bytes are not valid. One invalid heartbeat invalidates the batch: only a key holder could write it.
    pub fn parse(bytes: &'a [u8], beats: &mut Vec<BeatRef<'a>>) -> Result<Self, DecodeError> {
        within_limit(bytes)?;
        beats.clear();
        let mut batch = Self { sender: "", sequence: 0, incarnation: 0 };
        let mut rest = bytes;
        while !rest.is_empty() {
            match field(&mut rest)? {
                (1, Value::Bytes(value)) => {
                    if beats.len() == MAX_BATCH {
                        return Err(Invalid::Beats.into());
                    }
                    beats.push(BeatRef::parse(value)?);
                }
                (2, Value::Bytes(value)) => batch.sender = text(value)?,
                (3, Value::Varint(value)) => batch.sequence = value,
                (4, Value::Varint(value)) => batch.incarnation = value,
                (1..=4, _) => return Err(DecodeError::Malformed),
                _ => {}
            }
        }
        id::check(batch.sender).map_err(Invalid::Sender)?;
        Ok(batch)
    }
}

enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// A field of a later version.
    Skipped,
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), DecodeError> {
    let (tag, wire_type) = encoding::decode_key(rest)?;
    let value = match wire_type {
        WireType::Varint => Value::Varint(encoding::decode_varint(rest)?),
        WireType::ThirtyTwoBit => {
            let (bytes, after) = rest.split_first_chunk::<4>().ok_or(DecodeError::Malformed)?;
            *rest = after;
            Value::Fixed32(u32::from_le_bytes(*bytes))
        }
        WireType::LengthDelimited => {
            let length = usize::try_from(encoding::decode_varint(rest)?).map_err(|_| DecodeError::Malformed)?;
            let (bytes, after) = rest.split_at_checked(length).ok_or(DecodeError::Malformed)?;
            *rest = after;
            Value::Bytes(bytes)
        }
        _ => {
            encoding::skip_field(wire_type, tag, rest, encoding::DecodeContext::default())?;
            Value::Skipped
        }
    };
    Ok((tag, value))
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed)
}
