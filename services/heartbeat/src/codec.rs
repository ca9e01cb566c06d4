//! Three codecs for heartbeats: JSON, Protobuf, and Protobuf compressed by Zstandard with a dictionary. Every decoder is bounded and
//! returns an error for invalid bytes.

#[cfg(feature = "bench")]
mod corpus;
mod json;
pub mod protobuf;
#[cfg(feature = "zstd")]
mod zstd;

#[cfg(feature = "bench")]
pub use self::corpus::{Corpus, train};
#[cfg(feature = "zstd")]
pub use self::zstd::{DICTIONARY, ProtobufZstd};
pub use self::{json::Json, protobuf::Protobuf};
use crate::message::{Batch, Beat, Invalid};

/// Maximum payload, compressed or not.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// The codec's number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CodecId {
    Json = 0,
    Protobuf = 1,
    ProtobufZstd = 2,
}

impl CodecId {
    pub const ALL: [Self; 3] = [Self::Json, Self::Protobuf, Self::ProtobufZstd];

    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Protobuf => "Protobuf",
            Self::ProtobufZstd => "Protobuf+Zstd",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{0} bytes exceed the limit of {MAX_PAYLOAD_BYTES}")]
    TooLong(usize),
    #[error("not a heartbeat in JSON")]
    Json(#[from] serde_json::Error),
    #[error("not a heartbeat in Protobuf")]
    Protobuf(#[from] prost::DecodeError),
    /// An error of the borrowing decoder.
    #[error("not a heartbeat in Protobuf: a field is truncated, has a wrong type, or is not UTF-8")]
    Malformed,
    #[error("not compressed with the dictionary in use")]
    Zstd(#[source] std::io::Error),
    #[error("not a valid heartbeat")]
    Invalid(#[from] Invalid),
}

#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("cannot encode the heartbeat as JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot compress the heartbeat")]
    Zstd(#[source] std::io::Error),
}

/// Needs `&mut self` because the compressor's state is reused. One per task.
pub trait Codec: Send + Sync {
    fn id(&self) -> CodecId;

    /// Appends the heartbeat to `out` without checking it.
    ///
    /// # Errors
    /// JSON cannot represent an infinite load, or out of memory. `out` may then contain a part.
    fn encode(&mut self, beat: &Beat, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// As `encode`, for a batch.
    ///
    /// # Errors
    /// As `encode`.
    fn encode_batch(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// A heartbeat that passed `Beat::check`.
    ///
    /// # Errors
    /// Why the bytes are not valid.
    fn decode(&mut self, bytes: &[u8]) -> Result<Beat, DecodeError>;

    /// A batch that passed `Batch::check`.
    ///
    /// # Errors
    /// Why the bytes are not valid.
    fn decode_batch(&mut self, bytes: &[u8]) -> Result<Batch, DecodeError>;
}

/// The codec with this number.
///
/// # Errors
/// Out of memory, or the crate was built without the feature `zstd`.
pub fn codec(id: CodecId) -> std::io::Result<Box<dyn Codec>> {
    match id {
        CodecId::Json => Ok(Box::new(Json)),
        CodecId::Protobuf => Ok(Box::new(Protobuf)),
        #[cfg(feature = "zstd")]
        CodecId::ProtobufZstd => Ok(Box::new(ProtobufZstd::new()?)),
        #[cfg(not(feature = "zstd"))]
        CodecId::ProtobufZstd => Err(std::io::ErrorKind::Unsupported.into()),
    }
}

pub(crate) fn within_limit(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.len() > MAX_PAYLOAD_BYTES { Err(DecodeError::TooLong(bytes.len())) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
