//! `testbed report`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use report::{
    Document, Report,
    compare::{Comparison, Run},
    diff,
};

use crate::{
    cli::{CompareArgs, DiffArgs, ReportArgs, ReportCommand},
    exit,
    reports::{self, REPORTS, listed},
};

pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(ReportCommand::Diff(args)) => return differ(args),
        Some(ReportCommand::Compare(args)) => return compare(args),
        None => {}
    }
    if args.list {
        return list(args.json);
    }
    let dir = match &args.report {
        Some(name) => listed::find(Path::new(REPORTS), name)?,
        None => listed::newest(Path::new(REPORTS))
            .context("there is no report below reports/: run ./testbed evaluate first")?,
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

fn list(json: bool) -> anyhow::Result<ExitCode> {
    let all = listed::list(Path::new(REPORTS));
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{}", listed::render(&all));
    }
    Ok(ExitCode::SUCCESS)
}

fn differ(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let [before, after] = [&args.before, &args.after].map(|name| steps(&listed::find(Path::new(REPORTS), name)?));
    let diff = diff::diff(&before?, &after?, &args.fail_on);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&diff)?);
    } else {
        print!("{}", diff::render(&diff));
    }
    Ok(if diff.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::MISSED) })
}

fn compare(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let paths = args.reports.iter().map(|name| listed::find(Path::new(REPORTS), name));
    let paths: Vec<PathBuf> = paths.collect::<anyhow::Result<_>>()?;
    let runs = paths.iter().zip(names(&paths)).map(|(path, name)| Ok(Run { name, report: steps(path)? }));
    let comparison = Comparison::of(runs.collect::<anyhow::Result<_>>()?)?;
    report::write_comparison(&comparison, &args.out)?;
    println!("{}", args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// The last parts of the paths; the whole paths where these are not unique.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let short = |path: &PathBuf| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let is_unique = |path: &PathBuf| paths.iter().filter(|other| short(other) == short(path)).count() == 1;
    paths.iter().map(|path| if is_unique(path) { short(path) } else { path.display().to_string() }).collect()
}

fn steps(path: &Path) -> anyhow::Result<Report> {
    let steps = Document::load(&report_file(path))?.into_steps();
    steps.with_context(|| format!("{} has no steps of load to compare", path.display()))
}

/// `path` is a report's directory or its JSON file, because a CI job may keep only the file.
fn report_file(path: &Path) -> PathBuf {
    if path.is_file() { path.to_owned() } else { path.join("report.json") }
}
