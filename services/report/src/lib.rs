//! Reports of a run: `report.json` for programs, `report.md` and `report.html` for people, a table for the terminal.
//!
//! `schema` is the data, `analysis` computes knees and verdicts from it, `tables` and `words` say what is shown; the rest draws it.
//! It depends on `loadtest` of this workspace for the figures of a step. Begin reading at `schema::Report`.

pub mod analysis;
mod charts;
pub mod diff;
pub mod experiments;
mod findings;
mod html;
mod markdown;
mod numbers;
mod outage;
#[cfg(test)]
mod sample;
pub mod schema;
pub mod soak;
mod svg;
mod tables;
pub mod terminal;
#[cfg(test)]
mod tests;
mod traces;
pub mod trend;
mod words;

use std::path::Path;

use anyhow::{Context, Result};

pub use loadtest::figures::Tolerances;

pub use findings::{Chart, Curve, Findings, Table};
pub use schema::{
    ArticleFigures, DataInfo, DataSource, Knee, Law, Machine, ModelFigures, Outage, OutagePhase, Probes, Recovery,
    Report, Revision, Row, SCHEMA_VERSION, ScenarioInfo, Second, Slope, Soak, SoakMinute, Sources, Stage, Step,
    TimeSpent, Verdict, Waterfall,
};

/// Writes `report.json`, `report.md` and the self-contained `report.html` into `out`, which is created if missing.
///
/// # Errors
/// The folder or a file cannot be written.
pub fn write_all(report: &Report, out: &Path) -> Result<()> {
    write(out, report, &markdown::render(report), &html::render(report))
}

fn write(out: &Path, report: &impl serde::Serialize, markdown: &str, html: &str) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut value = serde_json::to_value(report).context("the report has no JSON form")?;
    round(&mut value);
    let mut json = serde_json::to_string_pretty(&value).context("the report has no JSON form")?;
    json.push('\n');
    // JSON first: the pages can be drawn from it again.
    for (name, text) in [("report.json", json.as_str()), ("report.md", markdown), ("report.html", html)] {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Six decimals: more is noise, and shorter numbers come back exactly.
fn round(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().map(|v| (v * 1e6).round() / 1e6).and_then(serde_json::Number::from_f64);
            if let Some(rounded) = rounded {
                *number = rounded;
            }
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(round),
        serde_json::Value::Object(map) => map.values_mut().for_each(round),
        _ => {}
    }
}
