//! What a report concludes from its steps: seeds, knees, verdicts.

use std::collections::BTreeMap;

use serde_json::{Value, to_value};

use super::{Checked, name};
use crate::{analysis::all_valid, document::Document, schema::Report, section::Verdict, soak};

const STEPS: &str = "all steps (knees, verdicts with their intervals, seeds)";

pub(super) fn check(document: &Document, report: &Report, checked: &mut Checked) {
    seeds(report, checked);
    let tolerances = report.manifest.as_ref().and_then(|manifest| manifest.tolerances.clone());
    let mut again = report.clone();
    again.conclude(tolerances.as_ref());
    checked.of("knees").values(STEPS, "", &json(&report.knees), &json(&again.knees));
    again.verdicts.push(all_valid(report, "Steps are valid", |_| true));
    again.verdicts.extend(soak::of(&report.sections).map(|soak| soak::verdict(&soak, &report.steps)));
    let by_name: BTreeMap<&str, &Verdict> = again.verdicts.iter().map(|one| (one.name.as_str(), one)).collect();
    for verdict in &report.verdicts {
        match by_name.get(verdict.name.as_str()) {
            Some(again) => {
                checked.of(&format!("verdict {:?}", verdict.name)).values(STEPS, "", &json(verdict), &json(*again))
            }
            None => checked.not_recomputed.push(format!("verdict {:?}: it needs more than the steps", verdict.name)),
        }
    }
    // An experiment has verdicts of its own instead.
    if matches!(document, Document::Evaluation(_)) {
        let expected = again.verdicts.iter().filter(|one| one.name != "Steps are valid");
        for missing in expected.filter(|one| report.verdicts.iter().all(|reported| reported.name != one.name)) {
            checked.of("verdicts").same(STEPS, &missing.name, "missing", "there");
        }
    }
}

fn json(value: &impl serde::Serialize) -> Value {
    to_value(value).unwrap_or_default()
}

/// A step's seed follows from the run's, its repeat and its place in its variant.
fn seeds(report: &Report, checked: &mut Checked) {
    let Some(run) = report.seed else { return };
    let mut places: BTreeMap<(&str, u32), usize> = BTreeMap::new();
    for step in &report.steps {
        let n = places.entry((&step.profile, step.repeat)).or_default();
        if let Some(seed) = step.seed {
            let again = statistics::seed::of_step(run, step.repeat, *n);
            checked.of(&name(step)).same(STEPS, "seed", seed, again);
        }
        *n += 1;
    }
}
