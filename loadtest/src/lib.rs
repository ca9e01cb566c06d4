//! The load test: scenarios as data, a model of what they should come to, users who carry them out, and the report.
//!
//! `scenario` says what to do; `run` does one step of it (in a process of its own: `child`); `report` shows what came of it.

pub mod model;
pub mod report;
pub mod scenario;
mod schedule;
