//! The gRPC service between workers and monitors: reports of copies, and orders.
//!
//! ```text
//! Report: BlockReport → Accepted     all copies once per interval, and one segment after each change
//! Orders: OrdersWanted → Orders      a long poll; only the leading monitor has orders
//! ```
//! Both directions carry frames with a MAC (`heartbeat::frame`), in which these messages are.

mod convert;
mod messages;

use contract::SEGMENTS;

pub use self::{
    convert::{BadMessage, Order, OrderId, ReadReport, Step, segment},
    messages::{
        Accepted, BlockReport, CopyMessage, Finished, OrderMessage, Orders, OrdersWanted, RebuildMessage,
        ReportedSegment, Signed, TransferMessage, VersionMessage,
    },
};

use crate::{
    digest::Digest,
    manifest::{BLOCK_BYTES, encoded_bytes},
};

#[expect(clippy::allow_attributes, reason = "the generator writes them")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/testbed.segments.v1.SegmentCare.rs"));
}

pub use generated::{
    segment_care_client::SegmentCareClient,
    segment_care_server::{SegmentCare, SegmentCareServer},
};

/// Limit of each message. A report of 16 good copies of 64 MiB has 8 MiB: the digests of their manifests. Other copies have the digests of
/// their blocks too.
pub const MAX_MESSAGE_BYTES: usize = 34 << 20;

/// The largest report that has to fit: 16 segments of 64 MiB, each with a damaged current version and a staged one, and 1 MiB for the ended
/// orders and the rest.
const LARGEST_REPORT_BYTES: usize = {
    let blocks = (64 << 20) / BLOCK_BYTES;
    SEGMENTS as usize * 2 * (encoded_bytes(blocks) + blocks * Digest::BYTES) + (1 << 20)
};
const _: () = assert!(LARGEST_REPORT_BYTES <= MAX_MESSAGE_BYTES);

/// The longest wait of a poll for orders, in milliseconds.
pub const MAX_WAIT_MS: u64 = 10_000;
