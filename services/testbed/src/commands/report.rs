//! `testbed report`.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use report::{
    Document, Report, Step,
    compare::{Comparison, Run},
    diff,
};

use crate::{
    cli::{CheckArgs, CompareArgs, DiffArgs, ReportArgs, ReportCommand},
    evaluation::journal::{self, Past},
    exit,
    reports::{self, REPORTS, listed},
};

pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(ReportCommand::Diff(args)) => return differ(args),
        Some(ReportCommand::Compare(args)) => return compare(args),
        Some(ReportCommand::Check(args)) => return check(args),
        None => {}
    }
    if args.list {
        return list(args.json);
    }
    let dir = directory(args.report.as_deref())?;
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

/// The newest without a name.
fn directory(name: Option<&Path>) -> anyhow::Result<PathBuf> {
    match name {
        Some(name) => listed::find(Path::new(REPORTS), name),
        None => listed::newest(Path::new(REPORTS))
            .context("there is no report below reports/: run ./testbed evaluate first"),
    }
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let dir = directory(args.report.as_deref())?;
    let document = Document::load(&dir.join("report.json"))?;
    let recorded = recorded(&dir, &document)?;
    let log = |name: &str| {
        ensure!(
            Path::new(name).file_name() == Some(OsStr::new(name)),
            "{name:?} is no name of a file beside the report"
        );
        let path = dir.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let checked = report::check::check(&document, log, recorded.as_deref())?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&checked)?);
    } else {
        print!("{}", checked.render());
    }
    Ok(if checked.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::MISSED) })
}

/// The steps in `steps.jsonl`, if it is there and is that of the report's run.
fn recorded(dir: &Path, document: &Document) -> anyhow::Result<Option<Vec<Step>>> {
    if !dir.join(journal::FILE).is_file() {
        return Ok(None);
    }
    let past = Past::read(dir)?;
    let is_of_the_run = matches!(document, Document::Evaluation(report) if report.created == past.header.created);
    Ok(is_of_the_run.then(|| past.steps()))
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
