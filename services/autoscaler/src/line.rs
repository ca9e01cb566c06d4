//! The planner by lines of JSON: a [`Case`] per line in, an [`Answer`] per line out. The live experiment writes the same lines into its
//! report, so that `testbed plan` can replay its decisions.

mod answer;
mod check;
mod input;
mod session;
mod step_answer;

use thiserror::Error;

pub use answer::{Answer, GroupsAnswer};
pub use check::{MOST_PODS, Problem};
pub use input::{
    BehaviorInput, Case, ContainerInput, EventInput, Kind, LoadInput, MetricInput, MetricKind, OrphanInput, PodInput,
    PolicyInput, RecommendationInput, RulesInput, SampleInput, StepInput, UsageInput,
};
pub use session::Session;
pub use step_answer::{StepAnswer, ValuesAnswer};

/// A line that is no case: the field, if it is known, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct BadLine(pub Problem);

/// # Errors
///
/// The line is not JSON, or a field is unknown, missing or of another type.
pub fn parse(line: &[u8]) -> Result<Case, BadLine> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let case = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        bad_json(&field, error.inner())
    })?;
    json.end().map_err(|error| bad_json("", &error))?;
    Ok(case)
}

/// # Errors
///
/// A field that the kind needs is missing, or its value cannot be.
pub fn answer(case: &Case) -> Result<Answer, BadLine> {
    answer::answer(case).map_err(BadLine)
}

/// A field whose name could not be read is shown as the object that has it. The place is a column: a case is one line of its file.
fn bad_json(field: &str, error: &serde_json::Error) -> BadLine {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let field = field.trim_end_matches('?').trim_end_matches('.');
    BadLine(Problem::new(field, format!("{what} (column {})", error.column())))
}
