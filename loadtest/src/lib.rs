//! The load generator: it sends the requests of a scenario's step and measures the responses.
//!
//! `scenario` defines the load, `plan` is one step of it, `arrivals` how its requests arrive, `curve` its number of users over time, `retry` what a client does after a failure,
//! `criticality` how much a request matters, `run` sends the requests in a separate process (`child`), and `recorder` measures. `model` computes the figures of a queueing system with the same
//! parameters; `fit` finds its law. `behaviour` invents events, and `event_load`
//! sends them.
//! It depends on `contract` and `runtime` of this workspace. Begin reading at `run::run_step`.

pub mod answer;
pub mod arrivals;
pub mod behaviour;
pub mod child;
mod client;
pub mod criticality;
pub mod curve;
pub mod event_load;
pub mod figures;
pub mod fit;
pub mod histogram_log;
mod ids;
pub mod k6;
pub mod latency_bands;
mod live;
pub mod model;
mod open_instants;
mod paths;
pub mod plan;
pub mod rate_curve;
pub mod rates;
mod recorder;
pub mod retry;
pub mod run;
pub mod scenario;
mod schedule;
pub mod target;
mod timetable;
mod trace;

pub use child::{ChildMessage, loadgen_main};
pub use plan::{Progress, StepOutcome, StepPlan};
pub use run::run_step;
pub use scenario::Scenario;
