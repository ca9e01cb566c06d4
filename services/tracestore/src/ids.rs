//! Ids of the W3C Trace Context, written in hex.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// 16 bytes, not all of them zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceId(u128);

/// 8 bytes, not all of them zero; unique within a trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpanId(u64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a valid id: it must have {digits} hexadecimal digits, not all zero")]
pub struct InvalidId {
    text: String,
    digits: usize,
}

impl TraceId {
    /// `None`: not 16 bytes, or all zero.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(u128::from_be_bytes).filter(|&id| id != 0).map(Self)
    }

    /// Hash of the id, uniform whichever part of the id is random.
    pub(crate) fn sample_hash(self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.0.to_be_bytes())
    }
}

impl SpanId {
    /// `None`: not 8 bytes, or all zero.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(u64::from_be_bytes).filter(|&id| id != 0).map(Self)
    }
}

/// Hex digits only: `from_str_radix` would accept a sign.
fn hex(text: &str, digits: usize) -> Result<u128, InvalidId> {
    let invalid = || InvalidId { text: text.chars().take(64).collect(), digits };
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(invalid());
    }
    u128::from_str_radix(text, 16).ok().filter(|&id| id != 0).ok_or_else(invalid)
}

impl FromStr for TraceId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        hex(text, 32).map(Self)
    }
}

impl FromStr for SpanId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        hex(text, 16).map(|id| Self(u64::try_from(id).unwrap_or_default()))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for TraceId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl TryFrom<String> for SpanId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<TraceId> for String {
    fn from(id: TraceId) -> Self {
        id.to_string()
    }
}

impl From<SpanId> for String {
    fn from(id: SpanId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let id: TraceId = "4BF92f3577b34da6a3ce929d0e0e4736".parse().unwrap();
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(
            TraceId::from_bytes(&[
                0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 14, 14, 0x47, 0x36
            ]),
            Some(id)
        );
        assert_eq!("00f067aa0ba902b7".parse::<SpanId>().unwrap().to_string(), "00f067aa0ba902b7");
        for bad in [
            "",
            "4bf9",
            "+bf92f3577b34da6a3ce929d0e0e4736",
            "00000000000000000000000000000000",
            "4bf92f3577b34da6a3ce929d0e0e473é",
        ] {
            let error = bad.parse::<TraceId>().unwrap_err().to_string();
            assert!(error.contains("32 hexadecimal digits"), "{error}");
        }
        assert_eq!(TraceId::from_bytes(&[0; 16]), None);
        assert_eq!(SpanId::from_bytes(&[1; 7]), None);
    }
}
