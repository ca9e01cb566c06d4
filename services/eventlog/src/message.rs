//! Messages and their places.

use contract::ShardId;

/// The place of a message in the topic `behaviour`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub partition: ShardId,
    pub offset: u64,
}

impl std::fmt::Display for Position {
    /// The key of a dead letter without its topic: `PARTITION/OFFSET`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.partition.index(), self.offset)
    }
}

/// A message of the topic `behaviour`. Its bytes are not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub offset: u64,
    /// When the producer made it, Unix ms; `None`: it has no time.
    pub timestamp_ms: Option<i64>,
    /// `None`: a tombstone.
    pub payload: Option<Vec<u8>>,
    /// W3C trace context of the request that sent it.
    pub traceparent: Option<String>,
}

/// Name of the header with the trace context.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// The client's number of a partition.
pub(crate) fn number(partition: ShardId) -> i32 {
    // Below 16.
    partition.index() as i32
}

/// `None`: no shard has this number.
pub(crate) fn partition(number: i32) -> Option<ShardId> {
    ShardId::all().nth(usize::try_from(number).ok()?)
}
