//! The steps of the report beside those that were written to `steps.jsonl` during the run.

use serde_json::to_value;

use super::{Checked, name};
use crate::schema::{Report, Step};

const RECORDED: &str = "steps.jsonl (steps as they were measured)";

pub(super) fn check(report: &Report, recorded: Option<&[Step]>, checked: &mut Checked) {
    let Some(recorded) = recorded else {
        checked
            .not_recomputed
            .push("steps.jsonl is not there: figures of single steps are not compared with it".into());
        return;
    };
    let names = |steps: &[Step]| steps.iter().map(name).collect::<Vec<_>>();
    checked.of("steps").same(RECORDED, "their order", names(&report.steps), names(recorded));
    for step in &report.steps {
        let name = name(step);
        let Some(recorded) = recorded.iter().find(|recorded| super::name(recorded) == name) else { continue };
        let [reported, recorded] = [step, recorded].map(|step| to_value(step).unwrap_or_default());
        checked.of(&name).values(RECORDED, "", &reported, &recorded);
    }
}
