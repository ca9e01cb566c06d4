//! What every service needs to run as a process: configuration, logs, traces, the admin port, process metrics, signals and draining.
//!
//! Depends on `contract` (span names, problem documents) and no other crate of this workspace. Begin reading with `lifecycle.rs` and
//! `config.rs`; `telemetry.rs` leads to traces and logs. A service starts in this order: configuration → telemetry → bind → state → ready →
//! serve → drain with a deadline (`api::serve` is an example).

pub mod admin;
pub mod background;
pub mod client;
pub mod config;
pub mod exemplars;
pub mod http;
pub mod lifecycle;
pub mod logs;
pub mod net;
pub mod slot;
pub mod telemetry;
pub mod vitals;

pub use admin::{Admin, AdminPort, Readiness};
pub use client::AdminClient;
pub use exemplars::Exemplars;
pub use net::Endpoint;
