//! Real workers in this process, with real stores behind relays, and monitors that the test controls.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod care;
mod events;
mod forged;
mod incarnations;
mod monitor;
mod partitions;
#[path = "../../../stores/tests/it/relay.rs"]
mod relay;
#[path = "../../../lists/tests/it/segment_server.rs"]
#[expect(dead_code, reason = "the tests of `lists` need more of it")]
mod segment_server;
mod segments;
mod support;
