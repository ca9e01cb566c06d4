//! Protobuf compressed with a dictionary that both sides have. It pays off for batches, where names and timestamps repeat.

use std::{io, sync::LazyLock};

use zstd::{
    bulk::{Compressor, Decompressor},
    dict::{DecoderDictionary, EncoderDictionary},
    zstd_safe::CParameter,
};

use super::{Codec, CodecId, DecodeError, EncodeError, MAX_PAYLOAD_BYTES, Protobuf, within_limit};
use crate::message::{Batch, Beat};

/// Made by `cargo run -p heartbeat --example train_dictionary`; a test makes it again and compares. A change of it changes the wire format:
/// both sides need the same dictionary.
pub const DICTIONARY: &[u8] = include_bytes!("beats.dict");
/// Higher levels take several times as long and save no byte here.
const LEVEL: i32 = 3;

static TO_COMPRESS: LazyLock<EncoderDictionary<'static>> = LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, LEVEL));
static TO_DECOMPRESS: LazyLock<DecoderDictionary<'static>> = LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

/// About 1 MB of state; one per task.
pub struct ProtobufZstd {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    /// Uncompressed Protobuf; its capacity bounds the output of decompression.
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl ProtobufZstd {
    /// # Errors
    /// Out of memory.
    pub fn new() -> io::Result<Self> {
        let mut compressor = Compressor::with_prepared_dictionary(&TO_COMPRESS)?;
        // The frame around the payload provides identification and integrity already.
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

    /// The decompressed Protobuf, valid until the next call.
    ///
    /// # Errors
    /// Not compressed with this dictionary, or too long.
    pub fn unpack(&mut self, bytes: &[u8]) -> Result<&[u8], DecodeError> {
        within_limit(bytes)?;
        self.plain.clear();
        self.decompressor.decompress_to_buffer(bytes, &mut self.plain).map_err(DecodeError::Zstd)?;
        Ok(&self.plain)
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
