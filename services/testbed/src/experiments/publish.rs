//! The end of every experiment: its findings are written, shown and judged alike.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::SystemTime};

use clap::Args;
use report::{Findings, Report, SCHEMA_VERSION, Section, Validity, Verdict};

use super::Experiment;
use crate::{exit, instruments::machine, reports};

/// Arguments of every experiment.
#[derive(Args, Clone, Default)]
pub struct RunArgs {
    /// A shorter and smaller run, which is not judged
    #[arg(long)]
    pub quick: bool,
    /// Directory of the report [default: reports/<time>-<name>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print report.json instead of the tables
    #[arg(long)]
    pub json: bool,
}

/// What an experiment found; `publish` adds the head of the report.
#[derive(Default)]
pub struct Found {
    /// What was done, in words.
    pub what: String,
    /// Its steps of load, if it has any: a report of `evaluation`.
    pub steps: Option<Report>,
    pub sections: Vec<Section>,
    pub verdicts: Vec<Verdict>,
    /// Of its windows of load that are not steps, by name.
    pub validity: BTreeMap<String, Validity>,
    pub remarks: Vec<String>,
    /// The verdicts already take into account that this is a quick run.
    pub judged_when_quick: bool,
}

/// Writes `report.{json,md,html}` and shows it.
///
/// # Errors
/// The report cannot be written.
pub fn publish(experiment: &Experiment, begun: SystemTime, found: Found, args: &RunArgs) -> anyhow::Result<ExitCode> {
    let Found { what, steps, sections, mut verdicts, validity, mut remarks, judged_when_quick } = found;
    if cfg!(debug_assertions) {
        remarks.push("This is a debug build: its figures say nothing about a release build.".into());
    }
    if args.quick && !judged_when_quick {
        verdicts.iter_mut().for_each(|verdict| (verdict.passed, verdict.undecided) = (None, false));
    }
    let findings = Findings {
        schema_version: SCHEMA_VERSION,
        experiment: experiment.name.to_owned(),
        created: reports::rfc3339(begun),
        what,
        quick: args.quick,
        machine: machine::read(),
        versions: machine::own_versions(),
        revision: machine::revision(),
        steps: Vec::new(),
        conditions: None,
        sections,
        verdicts,
        validity,
        remarks,
    };
    let findings = match steps {
        Some(report) => findings.with_steps(report),
        None => findings,
    };
    let out = args.out.clone().unwrap_or_else(|| reports::default_out(begun, experiment.name));
    report::write_findings(&findings, &out)?;
    reports::show_findings(&findings, &out, args.json)?;
    Ok(exit::judged(&findings.verdicts))
}
