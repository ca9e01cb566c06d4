//! `testbed report`.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use loadtest::report::{self, Report};

use crate::cli::ReportArgs;

/// Where reports go unless told otherwise.
pub const REPORTS: &str = "reports";

pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => newest().context("there is no report below reports/: ./testbed evaluate makes one")?,
    };
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

pub fn print(report: &Report) {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print!("{}", report::terminal::render(report, colour));
}

/// Names begin with the time, so the last one is the newest.
fn newest() -> Option<PathBuf> {
    let entries = std::fs::read_dir(Path::new(REPORTS)).ok()?;
    let with_report = entries.flatten().map(|entry| entry.path()).filter(|path| path.join("report.json").is_file());
    with_report.max()
}
