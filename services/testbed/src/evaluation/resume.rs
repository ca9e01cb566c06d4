//! What a run that was interrupted goes on with, and what its report says about it. Decisions are pure.

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::{bail, ensure};
use report::{Manifest, Report, Step};

use super::{
    Plan, conditions,
    journal::{Past, Resumed},
    order,
};
use crate::reports::rfc3339;

/// Checks that the plan is that of the run before.
///
/// # Errors
/// Names what differs.
pub fn same_run(before: &Manifest, now: &Manifest) -> anyhow::Result<()> {
    // Both through JSON once, so that numbers have the same digits.
    let now: Manifest = serde_json::from_value(serde_json::to_value(now)?)?;
    let before: Manifest = serde_json::from_value(serde_json::to_value(before)?)?;
    let differences = before.differences(&now);
    let other_binary = before.binary_blake3 != now.binary_blake3;
    let what_to_do = if other_binary {
        "use the program that began the run, or begin a new run with another --out"
    } else {
        "restore what differs, or begin a new run with another --out"
    };
    ensure!(
        differences.is_empty(),
        "the run cannot be resumed, because its other steps would be measured under other conditions: {what_to_do}\n  {}",
        differences.join("\n  ")
    );
    Ok(())
}

/// # Errors
/// Another version of a server is installed now.
pub fn same_servers(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> anyhow::Result<()> {
    ensure!(
        before == now,
        "the run cannot be resumed: it was measured with {before:?}, and now there is {now:?}; install these versions, or begin a new run with \
         another --out"
    );
    Ok(())
}

/// The words of the run before, for the command line.
///
/// # Errors
/// One of them was a secret.
pub fn words(before: &Manifest) -> anyhow::Result<&[String]> {
    let secret = before.argv.iter().find(|word| word.contains(report::manifest::REDACTED));
    match secret {
        Some(word) => bail!("the run cannot be resumed: its word {word:?} had a secret, which is not stored"),
        None => Ok(&before.argv),
    }
}

/// Removes the steps that do not count, and says with what the run goes on: a variant whose cache depends on its earlier steps begins anew.
///
/// # Errors
/// A setting is refused, or the steps are not those of the plan.
pub fn go_on(plan: &Plan, past: &mut Past, now: SystemTime) -> anyhow::Result<Resumed> {
    let after = past.finished.last().map(|finished| name(&finished.step));
    let mut anew = None;
    for repeat in 1..=plan.repeat {
        for variant in order::of_round(plan, repeat) {
            let planned = &variant.scenario(plan).steps;
            let own = past.finished.iter().map(|finished| &finished.step);
            let own: Vec<u32> = own
                .filter(|step| step.profile == variant.name && step.repeat == repeat)
                .map(|step| step.users)
                .collect();
            ensure!(
                planned.starts_with(&own),
                "the steps of {}, repeat {repeat}, are {own:?} and not the first of {planned:?}: run ./testbed evaluate again with another --out",
                variant.name
            );
            let begun = !own.is_empty() && own.len() < planned.len();
            if begun && !conditions::starts_alike(plan, variant)? {
                anew = Some((variant.name.clone(), repeat));
            }
        }
    }
    if let Some((profile, repeat)) = &anew {
        past.finished.retain(|one| (&one.step.profile, one.step.repeat) != (profile, *repeat));
    }
    Ok(Resumed { at: rfc3339(now), after, anew })
}

/// Adds a remark for each time that the run was resumed.
pub fn remark(report: &mut Report, resumed: &[Resumed]) {
    for Resumed { at, after, anew } in resumed {
        let before = match after {
            Some(step) => format!("the steps up to {step} were measured before, the others afterwards"),
            None => "no step had ended before".to_owned(),
        };
        let anew = anew.as_ref().map_or_else(String::new, |(profile, repeat)| {
            format!(
                " {profile}, repeat {repeat}, began anew with its first step, because its cache depends on the steps before; its earlier \
                 steps do not count."
            )
        });
        report.remarks.push(format!(
            "This run was interrupted and resumed at {at} on a stack started anew, with the calibration of its first part: {before}.{anew}"
        ));
    }
}

fn name(step: &Step) -> String {
    format!("{} {}, repeat {}", step.profile, step.users, step.repeat)
}

/// Ends what a killed `evaluate` left: its servers would take CPU from the steps to come.
///
/// # Errors
/// A process does not end.
pub fn remove_leftovers(stack: &str) -> anyhow::Result<()> {
    for found in launcher::orphans::find()?.iter().filter(|found| found.is_orphaned() && found.name() == stack) {
        launcher::orphans::reap(found)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
