//! MySQL (16 logical shards over 1..=16 instances, and the catalogue) and Redis, as the services use them.

mod breaker;
mod bulk;
mod catalogue;
pub mod config;
mod dialer;
mod fence;
mod gate;
mod limit;
mod metrics;
mod migrate;
mod mysql;
mod pool;
pub mod redis;
mod spans;
mod transaction;

pub use breaker::Breaker;
pub use bulk::{Imported, Row as ImportRow};
pub use catalogue::StoredModel;
pub use config::{Flavour, Instance, StoreConfig};
pub use fence::{Overruled, Ownership};
pub use gate::{Gate, GateError, Order, Permit};
pub use metrics::{RedisMetrics, StoreMetrics};
pub use migrate::migrate;
pub use mysql::{LoggedEvent, Store};
pub use pool::StoreError;
