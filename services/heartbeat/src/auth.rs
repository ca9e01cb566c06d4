//! Datagrams and frames under one keyed MAC each. Layout: magic, kind and flags, codec, key number (a byte each), payload, and
//! the first 16 bytes of BLAKE3's keyed hash over all of it.
//!
//! BLAKE3 was chosen by measurement (`cargo run --release -p heartbeat --example macs`).

mod window;

pub use self::window::{ReplayWindow, Verdict};
use crate::codec::CodecId;

pub const HEADER_BYTES: usize = 4;
pub const MAC_BYTES: usize = 16;
const MAGIC: u8 = 0xb1;
const ACK_WANTED: u8 = 0x80;
/// Keeps a key that is used elsewhere from being this one.
const CONTEXT: &str = "recommendation-testbed heartbeat datagram v1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Beat = 1,
    Batch = 2,
    Ack = 3,
    /// A ballot or a registration: see `frame::sign_control`.
    Control = 4,
}

/// What the receiver must know before it reads the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: FrameKind,
    pub codec: CodecId,
    /// The sender waits for an `Ack` and sends the same bytes again without one.
    pub ack_wanted: bool,
}

/// Why something received was dropped. Each is counted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// No frame of ours: too short, another magic, or an unknown kind or codec.
    Frame,
    /// Under a key number that this receiver does not hold.
    Key,
    /// Not written, or not unchanged, by a holder of the key.
    Mac,
    /// The payload cannot be decoded.
    Decode,
    /// Decoded, and no heartbeat.
    Invalid,
    /// Was received before.
    Repeated,
    /// So old that nobody knows whether it was received before.
    TooOld,
    /// Of a former incarnation of the node.
    StaleIncarnation,
    /// Of a incarnation that cannot have begun: see `clock::latest_incarnation`.
    FutureIncarnation,
    /// Of a node for which the table has no room.
    Full,
}

impl Reject {
    pub const ALL: [Self; 10] = [
        Self::Frame,
        Self::Key,
        Self::Mac,
        Self::Decode,
        Self::Invalid,
        Self::Repeated,
        Self::TooOld,
        Self::StaleIncarnation,
        Self::FutureIncarnation,
        Self::Full,
    ];

    /// Why a ballot or a registration is not believed.
    pub const OF_WORDS: [Self; 4] = [Self::Frame, Self::Key, Self::Mac, Self::Decode];

    /// Value of a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Key => "key",
            Self::Mac => "mac",
            Self::Decode => "decode",
            Self::Invalid => "invalid",
            Self::Repeated => "repeated",
            Self::TooOld => "too_old",
            Self::StaleIncarnation => "stale_incarnation",
            Self::FutureIncarnation => "future_incarnation",
            Self::Full => "full",
        }
    }
}

/// The key to seal with, and those whose seals are accepted; two during a change of keys.
#[derive(Clone)]
pub struct Keys {
    current: (u8, [u8; 32]),
    former: Option<(u8, [u8; 32])>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({}, former {:?})", self.current.0, self.former.map(|(number, _)| number))
    }
}

impl Keys {
    /// `number` names the key on the wire; `secret` is any text, best 32 random bytes or more.
    pub fn new(number: u8, secret: &[u8]) -> Self {
        Self { current: (number, blake3::derive_key(CONTEXT, secret)), former: None }
    }

    /// Also accepts what was sealed with this one, until all senders have changed.
    pub fn accepting(self, number: u8, secret: &[u8]) -> Self {
        Self { former: Some((number, blake3::derive_key(CONTEXT, secret))), ..self }
    }

    /// Appends one frame to `out`: the payload is written where it is sent from.
    ///
    /// # Errors
    /// Those of `write`; `out` is then as it was.
    pub fn sign<E>(
        &self,
        header: Header,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.begin(header, out);
        if let Err(error) = write(out) {
            out.truncate(start);
            return Err(error);
        }
        self.finish(start, out);
        Ok(())
    }

    /// Appends a header; answers where the frame begins. The payload follows, then `finish`.
    pub(crate) fn begin(&self, header: Header, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let flags = if header.ack_wanted { ACK_WANTED } else { 0 };
        out.extend_from_slice(&[MAGIC, header.kind as u8 | flags, header.codec as u8, self.current.0]);
        start
    }

    pub(crate) fn finish(&self, start: usize, out: &mut Vec<u8>) {
        let mac = mac(&self.current.1, &out[start..]);
        out.extend_from_slice(&mac);
    }

    /// Header and payload of a frame that a holder of a key wrote.
    ///
    /// # Errors
    /// `Frame`, `Key` or `Mac`.
    pub fn verify<'a>(&self, frame: &'a [u8]) -> Result<(Header, &'a [u8]), Reject> {
        let (sealed, mac_found) = frame.split_last_chunk::<MAC_BYTES>().ok_or(Reject::Frame)?;
        let (&[magic, kind, codec, key], payload) = sealed.split_first_chunk::<HEADER_BYTES>().ok_or(Reject::Frame)?;
        let codec = CodecId::of(codec).filter(|_| magic == MAGIC).ok_or(Reject::Frame)?;
        let ack_wanted = kind & ACK_WANTED != 0;
        let kind = match kind & !ACK_WANTED {
            1 => FrameKind::Beat,
            2 => FrameKind::Batch,
            3 => FrameKind::Ack,
            4 => FrameKind::Control,
            _ => return Err(Reject::Frame),
        };
        let keys = [Some(self.current), self.former];
        let (_, key) = keys.into_iter().flatten().find(|&(number, _)| number == key).ok_or(Reject::Key)?;
        // As numbers: the comparison takes as long whichever byte differs.
        if u128::from_le_bytes(mac(&key, sealed)) ^ u128::from_le_bytes(*mac_found) != 0 {
            return Err(Reject::Mac);
        }
        Ok((Header { kind, codec, ack_wanted }, payload))
    }
}

fn mac(key: &[u8; 32], bytes: &[u8]) -> [u8; MAC_BYTES] {
    let hash = blake3::keyed_hash(key, bytes);
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&hash.as_bytes()[..MAC_BYTES]);
    mac
}

#[cfg(test)]
mod tests;
