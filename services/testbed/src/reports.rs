//! Where reports go, and how they are shown.

pub mod listed;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    time::SystemTime,
};

use report::{Findings, Report};

/// Unless `--out` names another directory.
pub const REPORTS: &str = "reports";

/// `reports/<time>-<name>`
pub fn default_out(created: SystemTime, name: &str) -> PathBuf {
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let time = rfc3339(created).trim_end_matches('Z').replace(':', "-");
    Path::new(REPORTS).join(format!("{time}-{stem}"))
}

/// `2026-01-31T12:00:00Z`
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

pub fn print(report: &Report) {
    print!("{}", report::terminal::render(report, colour()));
}

/// Prints `report.json` of `dir`, or what it says as text.
///
/// # Errors
/// The file cannot be read.
pub fn show_findings(findings: &Findings, dir: &Path, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", std::fs::read_to_string(dir.join("report.json"))?);
    } else {
        print!("{}", report::terminal::render_findings(findings, colour()));
        println!("{}", dir.join("report.html").display());
    }
    Ok(())
}

fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
