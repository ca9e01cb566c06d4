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

/// What a frame contains. The MAC covers it, and the kind's role decides the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Beat = 1,
    Batch = 2,
    /// Acknowledges a heartbeat or a batch.
    Ack = 3,
    Registration = 4,
    /// The response to a registration.
    Registered = 5,
    /// A question whether a node is alive.
    Probe = 6,
    /// The response to a probe.
    Alive = 7,
    /// A question for the partition table.
    Poll = 8,
    /// The response to a poll.
    Table = 9,
    Ballot = 10,
    /// What a worker has of the segments: see the crate `segments`.
    BlockReport = 11,
    /// The response to a block report.
    ReportAccepted = 12,
    /// A worker's question for orders about its copies.
    OrdersWanted = 13,
    /// The response to it.
    Orders = 14,
}

/// Who signs a frame. Each role has its own key, so that a frame of one role cannot be used as one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A worker, to monitors.
    Worker,
    /// A monitor, to workers.
    Monitor,
    /// A monitor, to monitors.
    Voter,
}

impl FrameKind {
    pub const ALL: [Self; 14] = [
        Self::Beat,
        Self::Batch,
        Self::Ack,
        Self::Registration,
        Self::Registered,
        Self::Probe,
        Self::Alive,
        Self::Poll,
        Self::Table,
        Self::Ballot,
        Self::BlockReport,
        Self::ReportAccepted,
        Self::OrdersWanted,
        Self::Orders,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    pub fn role(self) -> Role {
        match self {
            Self::Beat
            | Self::Batch
            | Self::Registration
            | Self::Alive
            | Self::Poll
            | Self::BlockReport
            | Self::OrdersWanted => Role::Worker,
            Self::Ack | Self::Registered | Self::Probe | Self::Table | Self::ReportAccepted | Self::Orders => {
                Role::Monitor
            }
            Self::Ballot => Role::Voter,
        }
    }
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

/// Contexts of the key derivation, by role: the same secret gives another key for each, and for each other use of the secret.
const CONTEXTS: [&str; 3] = [
    "recommendation-testbed heartbeat v2 worker to monitors",
    "recommendation-testbed heartbeat v2 monitor to workers",
    "recommendation-testbed heartbeat v2 monitor to monitors",
];
const NUMBER_CONTEXT: &str = "recommendation-testbed heartbeat v2 key number";

/// Keys of the three roles, derived from one secret.
#[derive(Clone)]
struct Derived {
    /// Identifies the secret on the wire. Two secrets have the same number with a probability of 1/256: then the MAC decides.
    number: u8,
    by_role: [[u8; 32]; CONTEXTS.len()],
}

impl Derived {
    fn new(secret: &[u8]) -> Self {
        let [number, ..] = blake3::derive_key(NUMBER_CONTEXT, secret);
        Self { number, by_role: CONTEXTS.map(|context| blake3::derive_key(context, secret)) }
    }

    fn mac(&self, role: Role, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let hash = blake3::keyed_hash(&self.by_role[role as usize], bytes);
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&hash.as_bytes()[..MAC_BYTES]);
        mac
    }
}

/// The secret that signs, and the secrets that are accepted; two while the secret is being changed.
///
/// ```
/// use heartbeat::{auth::Keys, codec::Protobuf, frame, message::Beat};
///
/// let keys = Keys::new(b"32 random bytes are a good secret");
/// let beat = Beat { node_id: "worker-1".into(), incarnation: 1_767_225_600_000, sequence: 1, ..Beat::default() };
/// let mut datagram = Vec::new();
/// frame::sign_beat(&keys, &mut Protobuf, &beat, false, &mut datagram)?;
/// assert!(keys.verify(&datagram).is_ok());
/// assert!(Keys::new(b"another secret").verify(&datagram).is_err());
/// # Ok::<(), heartbeat::codec::EncodeError>(())
/// ```
#[derive(Clone)]
pub struct Keys {
    current: Derived,
    accepted: Option<Derived>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({}, also accepted {:?})", self.current.number, self.accepted.as_ref().map(|key| key.number))
    }
}

impl Keys {
    /// `secret` is any text, best 32 random bytes or more.
    pub fn new(secret: &[u8]) -> Self {
        Self { current: Derived::new(secret), accepted: None }
    }

    /// Also accepts frames signed with this secret; an empty one is ignored.
    pub fn accepting(self, secret: &[u8]) -> Self {
        Self { accepted: (!secret.is_empty()).then(|| Derived::new(secret)), ..self }
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
        self.finish(header.kind.role(), start, out);
        Ok(())
    }

    /// Appends a header and returns the frame's start. The payload follows, then `finish`.
    pub(crate) fn begin(&self, header: Header, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let flags = if header.ack_wanted { ACK_WANTED } else { 0 };
        out.extend_from_slice(&[MAGIC, header.kind as u8 | flags, header.codec as u8, self.current.number]);
        start
    }

    pub(crate) fn finish(&self, role: Role, start: usize, out: &mut Vec<u8>) {
        let mac = self.current.mac(role, &out[start..]);
        out.extend_from_slice(&mac);
    }

    /// Header and payload of an authentic frame.
    ///
    /// # Errors
    /// `Frame`, `Key` or `Mac`.
    pub fn verify<'a>(&self, frame: &'a [u8]) -> Result<(Header, &'a [u8]), Reject> {
        let (signed, mac_found) = frame.split_last_chunk::<MAC_BYTES>().ok_or(Reject::Frame)?;
        let (&[magic, kind, codec, number], payload) =
            signed.split_first_chunk::<HEADER_BYTES>().ok_or(Reject::Frame)?;
        let codec = CodecId::of(codec).filter(|_| magic == MAGIC).ok_or(Reject::Frame)?;
        let ack_wanted = kind & ACK_WANTED != 0;
        let kind = FrameKind::of(kind & !ACK_WANTED).ok_or(Reject::Frame)?;
        let known = [Some(&self.current), self.accepted.as_ref()];
        let mut refusal = Reject::Key;
        for key in known.into_iter().flatten().filter(|key| key.number == number) {
            // Compared as integers: the time does not depend on the differing byte.
            if u128::from_le_bytes(key.mac(kind.role(), signed)) ^ u128::from_le_bytes(*mac_found) == 0 {
                return Ok((Header { kind, codec, ack_wanted }, payload));
            }
            refusal = Reject::Mac;
        }
        Err(refusal)
    }
}

#[cfg(test)]
mod tests;
