//! The data stores: MySQL (16 shards on 1 to 16 instances, and the catalogue) and Redis.
//!
//! Depends on `contract` (ids, shards, span names) and `runtime` (telemetry). Begin reading with `mysql.rs`, the shards;
//! `history.rs` reads a user's part of the log, `ingest.rs` writes batches of events from Kafka, `features.rs` reads what they leave. Every row
//! of the log gets an arrival number (`numbered.rs`), by which `log_reader.rs` reads the log. `pool.rs`, `gate.rs`,
//! `waiting.rs` and `dialer.rs` give them connections, in the order of `turn.rs`, and `breaker.rs` stops calls to a server that is down. `redis.rs` is separate from MySQL.

mod announce;
mod append;
mod breaker;
mod bulk;
mod catalogue;
mod command_timeout;
pub mod config;
mod dialer;
mod error;
mod features;
mod fence;
mod gate;
mod history;
mod ingest;
mod log_reader;
mod metrics;
mod migrate;
mod mysql;
mod numbered;
mod pool;
pub mod redis;
mod spans;
mod sql;
mod transaction;
mod turn;
mod waiting;

pub use announce::announce;
pub use bulk::Imported;
pub use catalogue::StoredModel;
pub use config::{Flavour, Instance, StoreConfig};
pub use error::StoreError;
pub use features::StoredFeatures;
pub use fence::{MAX_EPOCH_JUMP, Ownership, Refused};
pub use history::LoggedEvent;
pub use ingest::{ArrivedEvent, BatchRefused, EventBatch, EventKey, EventPosition, FeaturesRow};
pub use metrics::{RedisMetrics, StoreMetrics};
pub use migrate::migrate;
pub use mysql::Store;
pub use numbered::ImportEvent;
pub use turn::Turn;
pub use waiting::{Entered, QueueOrder, WaitingQueue};
