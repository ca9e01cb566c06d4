//! The interfaces between services: ids, shards, Redis keys, events, HTTP request and response bodies, and names in traces. No I/O.
//!
//! Depends on no crate of this workspace; every other crate may depend on it. Begin reading with `id.rs` and `shard.rs`; `http.rs` has the
//! bodies of the API, `keys.rs` the keys in Redis, `spans.rs` the names of spans and attributes,
//! `event_message.rs` the messages in Kafka, `segment.rs` the shares of the model.

pub mod event;
pub mod event_message;
pub mod http;
pub mod id;
pub mod keys;
pub mod segment;
pub mod shard;
pub mod spans;

pub use event::{Event, EventKind};
pub use id::{Id, IdError, ItemId, UserId};
pub use segment::{SEGMENTS, SegmentId, VersionVector, segment_of};
pub use shard::{SHARDS, ShardId, hash_of, shard_of};
