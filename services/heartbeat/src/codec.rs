//! Three ways to write a heartbeat: JSON, Protobuf, and Protobuf compressed by Zstandard with a dictionary.
//! Every decoder is bounded and answers bad bytes with an error.

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

/// Longest payload a decoder looks at, compressed or not. A datagram has less; a TCP frame or an HTTP body may not have more.
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
    #[error("{0} bytes are more than the {MAX_PAYLOAD_BYTES} allowed")]
    TooLong(usize),
    #[error("not JSON of a heartbeat")]
    Json(#[from] serde_json::Error),
    #[error("not Protobuf of a heartbeat")]
    Protobuf(#[from] prost::DecodeError),
    /// As prost would say it, from the reader that borrows.
    #[error("not Protobuf of a heartbeat: a field is cut short, of another type, or no UTF-8")]
    Malformed,
    #[error("not compressed with the dictionary in use")]
    Zstd(#[source] std::io::Error),
    #[error("not a heartbeat")]
    Invalid(#[from] Invalid),
}

#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot be compressed")]
    Zstd(#[source] std::io::Error),
}

/// Not `&self`: the compressor's state is reused from message to message. One per task.
pub trait Codec: Send + Sync {
    fn id(&self) -> CodecId;

    /// Appends to `out`; nothing of the message is checked.
    ///
    /// # Errors
    /// JSON has no infinite load; a compressor can be out of memory. `out` may then hold a part.
    fn encode(&mut self, beat: &Beat, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// As `encode`, for a batch.
    ///
    /// # Errors
    /// As `encode`.
    fn encode_batch(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// A beat that passed `Beat::check`.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn decode(&mut self, bytes: &[u8]) -> Result<Beat, DecodeError>;

    /// A batch that passed `Batch::check`.
    ///
    /// # Errors
    /// What is wrong with the bytes.
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
