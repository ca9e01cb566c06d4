//! Protobuf compressed with a dictionary that both sides know. It pays for batches, where names and instants repeat.

use std::{io, sync::LazyLock};

use zstd::{
    bulk::{Compressor, Decompressor},
    dict::{DecoderDictionary, EncoderDictionary},
    zstd_safe::CParameter,
};

use super::{Codec, CodecId, DecodeError, EncodeError, MAX_PAYLOAD_BYTES, Protobuf, within_limit};
use crate::message::{Batch, Beat};

/// Made by `cargo run -p heartbeat --example train_dictionary`; a test makes it again and compares. Whoever changes it changes
/// the wire format: what is compressed with one cannot be read with another.
pub const DICTIONARY: &[u8] = include_bytes!("beats.dict");
/// The highest that costs little here: beyond it a batch takes several times as long and loses no byte.
const LEVEL: i32 = 3;

static TO_COMPRESS: LazyLock<EncoderDictionary<'static>> = LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, LEVEL));
static TO_DECOMPRESS: LazyLock<DecoderDictionary<'static>> = LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

/// About 1 MB of state; one per task that sends or receives.
pub struct ProtobufZstd {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    /// Protobuf on its way in or out; its capacity bounds what a compressed message can become.
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl ProtobufZstd {
    /// # Errors
    /// Out of memory.
    pub fn new() -> io::Result<Self> {
        let mut compressor = Compressor::with_prepared_dictionary(&TO_COMPRESS)?;
        // Frames are told apart and protected by what is around them; these bytes would say it a second time.
        compressor.set_parameter(CParameter::DictIdFlag(false))?;
        compressor.set_parameter(CParameter::ChecksumFlag(false))?;
        compressor.set_parameter(CParameter::ContentSizeFlag(false))?;
        let decompressor = Decompressor::with_prepared_dictionary(&TO_DECOMPRESS)?;
        Ok(Self { compressor, decompressor, plain: Vec::with_capacity(MAX_PAYLOAD_BYTES), packed: Vec::new() })
    }

    fn pack(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.plain.len()));
        self.compressor.compress_to_buffer(&self.plain, &mut self.packed).map_err(EncodeError::Zstd)?;
        out.extend_from_slice(&self.packed);
        Ok(())
    }

    /// The Protobuf in it, valid until the next call.
    ///
    /// # Errors
    /// Not compressed with this dictionary, or longer than a payload may be.
    pub fn unpack(&mut self, bytes: &[u8]) -> Result<&[u8], DecodeError> {
        within_limit(bytes)?;
        self.plain.clear();
        self.decompressor.decompress_to_buffer(bytes, &mut self.plain).map_err(DecodeError::Zstd)?;
        Ok(&self.plain)
    }

    /// Compresses a Protobuf payload.
    ///
    /// # Errors
    /// Out of memory.
    pub fn pack_payload(&mut self, protobuf: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.plain.clear();
        self.plain.extend_from_slice(protobuf);
        self.pack(out)
    }
}

impl Codec for ProtobufZstd {
    fn id(&self) -> CodecId {
        CodecId::ProtobufZstd
    }

    fn encode(&mut self, beat: &Beat, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.plain.clear();
        Protobuf.encode(beat, &mut self.plain)?;
        self.pack(out)
    }

    fn encode_batch(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.plain.clear();
        Protobuf.encode_batch(batch, &mut self.plain)?;
        self.pack(out)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<Beat, DecodeError> {
        Protobuf.decode(self.unpack(bytes)?)
    }

    fn decode_batch(&mut self, bytes: &[u8]) -> Result<Batch, DecodeError> {
        Protobuf.decode_batch(self.unpack(bytes)?)
    }
}
