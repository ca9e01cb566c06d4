//! `testbed report`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use report::{Document, Report, diff};

use crate::{
    cli::{DiffArgs, ReportArgs, ReportCommand},
    exit,
    reports::{self, REPORTS},
};

pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    if let Some(ReportCommand::Diff(args)) = &args.command {
        return compare(args);
    }
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => newest().context("there is no report below reports/: run ./testbed evaluate first")?,
    };
    match Document::load(&dir.join("report.json"))? {
        Document::Experiment(findings) => {
            if args.render {
                report::write_findings(&findings, &dir)?;
            }
            reports::show_findings(&findings, &dir, args.json)?;
        }
        Document::Evaluation(report) => {
            if args.render {
                report::write_report(&report, &dir)?;
            }
            if args.json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                reports::print(&report);
                println!("{}", dir.join("report.html").display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let [before, after] = [&args.before, &args.after].map(|path| steps(path));
    let diff = diff::diff(&before?, &after?, &args.fail_on);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&diff)?);
    } else {
        print!("{}", diff::render(&diff));
    }
    Ok(if diff.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::MISSED) })
}

fn steps(path: &Path) -> anyhow::Result<Report> {
    let steps = Document::load(&report_file(path))?.into_steps();
    steps.with_context(|| format!("{} has no steps of load to compare", path.display()))
}

/// `path` is a report's directory or its JSON file, because a CI job may keep only the file.
fn report_file(path: &Path) -> PathBuf {
    if path.is_file() { path.to_owned() } else { path.join("report.json") }
}

/// Names begin with the time, so the last one is the newest.
fn newest() -> Option<PathBuf> {
    let entries = std::fs::read_dir(Path::new(REPORTS)).ok()?;
    let with_report = entries.flatten().map(|entry| entry.path()).filter(|path| path.join("report.json").is_file());
    with_report.max()
}
