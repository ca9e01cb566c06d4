//! The process shell that every service shares: configuration, logs, traces, the admin port, vital signs and the order of life and
//! death: config → telemetry → bind → state → ready → serve → drain with a deadline.

pub mod admin;
pub mod client;
pub mod config;
pub mod exemplars;
pub mod http;
pub mod lifecycle;
pub mod logs;
pub mod net;
pub mod telemetry;
pub mod vitals;

pub use admin::{Admin, AdminPort, Readiness};
pub use client::AdminClient;
pub use exemplars::Exemplars;
pub use net::Endpoint;
