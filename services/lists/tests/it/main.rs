//! Lists with a real Redis, features with a real MariaDB, and the model by real HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod same;
mod segment_server;
mod segments;
mod store_log;
mod write;
