//! Frames with a keyed MAC. Layout: magic, kind and flags, codec, key number (one byte each), payload, and the first 16 bytes of BLAKE3's
//! keyed hash over all of it.
//!
//! BLAKE3 was chosen by measurement (`cargo run --release -p heartbeat --example macs`).

mod window;

pub use self::window::{ReplayWindow, Verdict};
use crate::codec::CodecId;

pub const HEADER_BYTES: usize = 4;
pub const MAC_BYTES: usize = 16;
const MAGIC: u8 = 0xb1;
const ACK_WANTED: u8 = 0x80;
/// Domain separation: the same secret used elsewhere gives another key.
const CONTEXT: &str = "recommendation-testbed heartbeat datagram v1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Beat = 1,
    Batch = 2,
    Ack = 3,
    /// A ballot or a registration: see `frame::sign_control`.
    Control = 4,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: FrameKind,
    pub codec: CodecId,
    /// The sender waits for an `Ack` and repeats the same bytes without one.
    pub ack_wanted: bool,
}

/// Why a frame or heartbeat was dropped. Each reason is counted separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// Not a frame: too short, another magic, or an unknown kind or codec.
    Frame,
    /// The receiver does not have the key with this number.
    Key,
    /// The MAC is wrong: the sender has another key, or the frame was changed.
    Mac,
    /// The payload cannot be decoded.
    Decode,
    /// Decoded, but not a valid heartbeat.
    Invalid,
    /// Received before.
    Repeated,
    /// Older than the replay window.
    TooOld,
    /// Of an earlier incarnation of the node.
    StaleIncarnation,
    /// Of an incarnation too far in the future: see `clock::latest_incarnation`.
    FutureIncarnation,
    /// Of a new node, but the table is full.
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

    /// Reasons for which a control message is refused.
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

/// The key that signs, and the keys that are accepted; two during a key rotation.
///
/// ```
/// use heartbeat::{auth::Keys, codec::Protobuf, frame, message::Beat};
///
/// let keys = Keys::new(1, b"32 random bytes are a good secret");
/// let beat = Beat { node_id: "worker-1".into(), incarnation: 1_767_225_600_000, sequence: 1, ..Beat::default() };
/// let mut datagram = Vec::new();
/// frame::sign_beat(&keys, &mut Protobuf, &beat, false, &mut datagram)?;
/// assert!(keys.verify(&datagram).is_ok());
/// assert!(Keys::new(1, b"another secret").verify(&datagram).is_err());
/// # Ok::<(), heartbeat::codec::EncodeError>(())
/// ```
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
    /// `number` identifies the key on the wire. `secret` is any text, best 32 random bytes or more.
    pub fn new(number: u8, secret: &[u8]) -> Self {
        Self { current: (number, blake3::derive_key(CONTEXT, secret)), former: None }
    }

    /// Also accepts frames signed with this key, until all senders have the new one.
    pub fn accepting(self, number: u8, secret: &[u8]) -> Self {
        Self { former: Some((number, blake3::derive_key(CONTEXT, secret))), ..self }
    }

    /// Appends a frame to `out`; `write` appends the payload.
    ///
    /// # Errors
    /// Those of `write`; `out` is then unchanged.
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

    /// Appends a header and returns the frame's start. The payload follows, then `finish`.
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

    /// Header and payload of an authentic frame.
    ///
    /// # Errors
    /// `Frame`, `Key` or `Mac`.
    pub fn verify<'a>(&self, frame: &'a [u8]) -> Result<(Header, &'a [u8]), Reject> {
        let (signed, mac_found) = frame.split_last_chunk::<MAC_BYTES>().ok_or(Reject::Frame)?;
        let (&[magic, kind, codec, key], payload) = signed.split_first_chunk::<HEADER_BYTES>().ok_or(Reject::Frame)?;
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
        // Compared as integers: the time does not depend on the differing byte.
        if u128::from_le_bytes(mac(&key, signed)) ^ u128::from_le_bytes(*mac_found) != 0 {
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
