//! What two services must agree on: ids, shards, Redis keys, events, the bodies of the HTTP API and the words of traces. Nothing here
//! does I/O.

pub mod event;
pub mod http;
pub mod id;
pub mod keys;
pub mod shard;
pub mod spans;

pub use event::{Event, EventKind};
pub use id::{Id, IdError, ItemId, UserId};
pub use shard::{SHARDS, ShardId, hash_of, shard_of};
