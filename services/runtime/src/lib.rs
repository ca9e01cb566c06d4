//! The process shell that every service shares: configuration, logs, the admin port, vital signs and the order of life and death:
//! config → logs → bind → state → ready → serve → drain with a deadline.

pub mod admin;
pub mod config;
pub mod lifecycle;
pub mod logs;
pub mod net;
pub mod vitals;

pub use admin::{Admin, Readiness};
pub use net::Endpoint;
