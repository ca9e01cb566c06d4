//! Real workers in this process, with real stores behind relays, and monitors that the test controls.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod events;
mod forged;
mod incarnations;
mod monitor;
mod partitions;
#[path = "../../../stores/tests/it/relay.rs"]
mod relay;
mod support;
