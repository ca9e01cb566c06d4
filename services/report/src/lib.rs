//! Reports of evaluations and experiments: `report.json` for programs, `report.md` and `report.html` for people, a table for the terminal.
//!
//! `schema` and `findings` are the data. `analysis`, `counts`, `trend` and `soak` compute what follows from it; `tables` and `words` say it;
//! `charts`, `html`, `markdown` and `terminal` draw it. Depends on `loadtest` for the figures of a step.
//! Begin reading at `schema::Report`.

mod adding_up;
pub mod analysis;
mod attempts;
mod charts;
pub mod check;
pub mod compare;
mod conclude;
mod corrected;
pub mod counts;
pub mod diff;
mod document;
mod files;
mod findings;
pub mod fitted;
mod foreign;
mod html;
mod json_diff;
pub mod manifest;
mod markdown;
pub mod noise;
pub mod numbers;
mod retries;
#[cfg(test)]
mod sample;
mod scheduling;
pub mod schema;
mod section;
pub mod soak;
mod svg;
mod tables;
pub mod terminal;
#[cfg(test)]
mod tests;
mod traces;
pub mod trend;
mod validity;
mod words;

pub use loadtest::figures::Tolerances;

pub use document::Document;
pub use files::{write_comparison, write_findings, write_report};
pub use findings::{Findings, StepConditions};
pub use foreign::to_json;
pub use manifest::Manifest;
pub use scheduling::Scheduling;
pub use schema::{
    ArticleFigures, DataInfo, DataSource, Knee, Latency, Law, Machine, ModelFigures, Report, RetryFigures, Revision,
    Row, SCHEMA_VERSION, ScenarioInfo, Second, Sources, Stage, Step, TargetInfo, TimeSpent, Waterfall,
};
pub use section::{Chart, Curve, Drawing, Section, Table, Verdict};
pub use validity::{Validity, invalid_because, not_judged};
pub use words::score;
