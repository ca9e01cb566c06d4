//! The gRPC service between workers and monitors: reports of copies, and orders.
//!
//! ```text
//! Report: BlockReport → Accepted     all copies once per interval, and one segment after each change
//! Orders: OrdersWanted → Orders      a long poll; only the leading monitor has orders
//! ```
//! Both directions carry frames with a MAC (`heartbeat::frame`), in which these messages are.

mod convert;
mod messages;

pub use self::{
    convert::{BadMessage, Order, OrderId, ReadReport, Step, segment},
    messages::{
        Accepted, BlockReport, CopyMessage, Finished, OrderMessage, Orders, OrdersWanted, RebuildMessage,
        ReportedSegment, Signed, TransferMessage, VersionMessage,
    },
};

#[expect(clippy::allow_attributes, reason = "the generator writes them")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/testbed.segments.v1.SegmentCare.rs"));
}

pub use generated::{
    segment_care_client::SegmentCareClient,
    segment_care_server::{SegmentCare, SegmentCareServer},
};

/// A report of 16 copies of 64 MiB each has 8 MiB of digests.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// The longest wait of a poll for orders, in milliseconds.
pub const MAX_WAIT_MS: u64 = 10_000;
