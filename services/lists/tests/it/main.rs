//! Lists with a real Redis, and features with a real MariaDB.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod same;
mod write;
