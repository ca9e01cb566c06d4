//! What two services must agree on: ids, shards, Redis keys, events and the bodies of the HTTP API.
//! Nothing here does I/O.

pub mod event;
pub mod http;
pub mod id;
pub mod keys;
pub mod shard;

pub use event::{Event, EventKind};
pub use id::{Id, IdError, ItemId, UserId};
pub use shard::{SHARDS, ShardId, hash_of, shard_of};
