//! The load test: scenarios as data, a model of what they should come to, users who carry them out, and the report.
//!
//! `scenario` says what to do; `run` does one step of it, in a process of its own (`child`); `report` shows what came of it.

pub mod answer;
pub mod child;
mod client;
mod ids;
pub mod k6;
mod live;
pub mod model;
pub mod plan;
mod recorder;
pub mod report;
pub mod run;
pub mod scenario;
mod schedule;
mod trace;

pub use child::{Line, loadgen_main};
pub use plan::{Progress, StepOutcome, StepPlan};
pub use run::run_step;
pub use scenario::Scenario;
