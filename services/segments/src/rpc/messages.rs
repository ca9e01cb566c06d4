//! The messages as they are on the wire.

use bytes::Bytes;
use prost::Message;

/// A frame with a MAC.
#[derive(Clone, PartialEq, Message)]
pub struct Signed {
    #[prost(bytes = "bytes", tag = "1")]
    pub frame: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct BlockReport {
    #[prost(string, tag = "1")]
    pub worker: String,
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Ascending within an incarnation.
    #[prost(uint64, tag = "3")]
    pub number: u64,
    /// Of the partition table that the worker followed.
    #[prost(uint64, tag = "4")]
    pub table_epoch: u64,
    /// All copies of the worker: a segment that is not in it is missing there. Otherwise the report replaces the segments that are in it.
    #[prost(bool, tag = "5")]
    pub complete: bool,
    #[prost(message, repeated, tag = "6")]
    pub segments: Vec<ReportedSegment>,
    /// Orders that have ended since the report before.
    #[prost(message, repeated, tag = "7")]
    pub finished: Vec<Finished>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ReportedSegment {
    #[prost(uint32, tag = "1")]
    pub segment: u32,
    /// None: nothing of the segment is there.
    #[prost(message, optional, tag = "2")]
    pub current: Option<CopyMessage>,
    /// The version that is being fetched.
    #[prost(message, optional, tag = "3")]
    pub staged: Option<CopyMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CopyMessage {
    /// Empty: missing or damaged.
    #[prost(bytes = "bytes", tag = "1")]
    pub manifest: Bytes,
    /// SHA-256 of each block, 32 bytes each; zeros: missing, or it cannot be read. Empty if `as_stated`.
    #[prost(bytes = "bytes", tag = "2")]
    pub blocks: Bytes,
    /// Every block has the digest that the manifest states, as usual.
    #[prost(bool, tag = "3")]
    pub as_stated: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Finished {
    #[prost(uint64, tag = "1")]
    pub order: u64,
    /// Empty: carried out.
    #[prost(string, tag = "2")]
    pub error: String,
    /// Bytes received.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
}

/// The monitor has the report.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Accepted {}

#[derive(Clone, PartialEq, Message)]
pub struct OrdersWanted {
    #[prost(string, tag = "1")]
    pub worker: String,
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// How long the monitor may wait for orders, in milliseconds, at most `MAX_WAIT_MS`.
    #[prost(uint64, tag = "3")]
    pub wait_ms: u64,
    /// A random number: makes each poll, and with it each reply, different.
    #[prost(uint64, tag = "4")]
    pub nonce: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Orders {
    #[prost(message, repeated, tag = "1")]
    pub orders: Vec<OrderMessage>,
}

/// Exactly one of `transfer`, `rebuild` and `removes` says what to do.
#[derive(Clone, PartialEq, Message)]
pub struct OrderMessage {
    /// Unique, also across monitors and their restarts, as far as random numbers are.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint32, tag = "2")]
    pub segment: u32,
    #[prost(message, optional, tag = "3")]
    pub transfer: Option<TransferMessage>,
    #[prost(message, optional, tag = "4")]
    pub rebuild: Option<RebuildMessage>,
    /// The worker is no holder any more, and removes its copy.
    #[prost(bool, tag = "5")]
    pub removes: bool,
    /// W3C trace context of the repair; empty: it is not recorded.
    #[prost(string, tag = "6")]
    pub traceparent: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct TransferMessage {
    #[prost(message, optional, tag = "1")]
    pub version: Option<VersionMessage>,
    #[prost(string, tag = "2")]
    pub from: String,
    /// `host:port` of the source's HTTP port.
    #[prost(string, tag = "3")]
    pub address: String,
    #[prost(bool, tag = "4")]
    pub manifest: bool,
    #[prost(uint32, repeated, tag = "5")]
    pub blocks: Vec<u32>,
    /// `Manifest::content` of the version, 32 bytes.
    #[prost(bytes = "bytes", tag = "6")]
    pub content: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct RebuildMessage {
    #[prost(message, optional, tag = "1")]
    pub version: Option<VersionMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub struct VersionMessage {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// 16 arrival numbers.
    #[prost(uint64, repeated, tag = "2")]
    pub positions: Vec<u64>,
}
