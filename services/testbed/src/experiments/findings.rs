//! What experiments without a load have in common: what they found out is written, shown and judged alike.

use std::{process::ExitCode, time::SystemTime};

use ::report::{Chart, Findings, SCHEMA_VERSION, Table, Verdict};

use crate::{cli::FindingsArgs, commands::report, evaluation, exit, instruments::machine};

/// The part of `Findings` that is the experiment's own.
pub struct Found {
    /// What was done, in words.
    pub what: String,
    pub tables: Vec<Table>,
    pub charts: Vec<Chart>,
    /// The tables in numbers.
    pub measured: serde_json::Value,
    pub verdicts: Vec<Verdict>,
    pub remarks: Vec<String>,
}

/// Writes and shows it; exit code 2: something was judged and failed.
pub fn publish(name: &str, begun: SystemTime, found: Found, args: &FindingsArgs) -> anyhow::Result<ExitCode> {
    let Found { what, tables, charts, measured, mut verdicts, mut remarks } = found;
    if cfg!(debug_assertions) {
        remarks.push("This is a debug build: its figures say nothing about a release build.".into());
    }
    if args.quick {
        verdicts.iter_mut().for_each(|verdict| verdict.passed = None);
    }
    let findings = Findings {
        schema_version: SCHEMA_VERSION,
        experiment: name.to_owned(),
        created: evaluation::rfc3339(begun),
        what,
        quick: args.quick,
        machine: machine::read(),
        versions: machine::own_versions(),
        revision: machine::revision(),
        tables,
        charts,
        measured,
        verdicts,
        remarks,
    };
    let out = args.out.clone().unwrap_or_else(|| evaluation::default_out(begun, name));
    findings.write_all(&out)?;
    report::show(&findings, &out, args.json)?;
    Ok(exit::judged(&findings.verdicts))
}

pub fn table(title: &str, meaning: &str, head: &[&str], rows: Vec<Vec<String>>) -> Table {
    let head = head.iter().map(|&cell| cell.to_owned()).collect();
    Table { title: title.to_owned(), meaning: meaning.to_owned(), head, rows }
}

pub fn verdict(name: &str, expected: String, measured: String, passed: bool, note: &str) -> Verdict {
    Verdict { name: name.to_owned(), expected, measured, passed: Some(passed), note: note.to_owned(), undecided: false }
}
