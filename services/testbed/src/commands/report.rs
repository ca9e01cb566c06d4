//! `testbed report`.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use report::{self, Findings, Report, diff};

use crate::{
    cli::{DiffArgs, ReportArgs, ReportCommand},
    exit,
};

/// Default directory of reports.
pub const REPORTS: &str = "reports";

pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    if let Some(ReportCommand::Diff(args)) = &args.command {
        return compare(args);
    }
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => newest().context("there is no report below reports/: run ./testbed evaluate first")?,
    };
    if let Some(findings) = Findings::load(&dir.join("report.json"))? {
        if args.render {
            findings.write_all(&dir)?;
        }
        return show(&findings, &dir, args.json);
    }
    let report = Report::load(&dir.join("report.json"))?;
    if args.render {
        report::write_all(&report, &dir)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
        println!("{}", dir.join("report.html").display());
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let [before, after] = [&args.before, &args.after].map(|path| Report::load(&report_file(path)));
    let diff = diff::diff(&before?, &after?, &args.fail_on);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&diff)?);
    } else {
        print!("{}", diff::render(&diff));
    }
    Ok(if diff.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::MISSED) })
}

/// `path` is a report's directory or its JSON file, because a CI job may keep only the file.
fn report_file(path: &Path) -> PathBuf {
    if path.is_file() { path.to_owned() } else { path.join("report.json") }
}

pub fn print(report: &Report) {
    print!("{}", report::terminal::render(report, colour()));
}

/// Prints the findings of an experiment; `dir` has their files.
pub fn show(findings: &Findings, dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", std::fs::read_to_string(dir.join("report.json"))?);
    } else {
        print!("{}", report::terminal::render_findings(findings, colour()));
        println!("{}", dir.join("report.html").display());
    }
    Ok(ExitCode::SUCCESS)
}

fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Names begin with the time, so the last one is the newest.
fn newest() -> Option<PathBuf> {
    let entries = std::fs::read_dir(Path::new(REPORTS)).ok()?;
    let with_report = entries.flatten().map(|entry| entry.path()).filter(|path| path.join("report.json").is_file());
    with_report.max()
}
