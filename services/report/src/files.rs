//! The three files of a report.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{compare::Comparison, findings::Findings, foreign, html, markdown, schema::Report};

/// Writes `report.json`, `report.md` and the self-contained `report.html` into `out`, which is created if missing.
///
/// # Errors
/// The folder or a file cannot be written.
pub fn write_report(report: &Report, out: &Path) -> Result<()> {
    write(out, report, &markdown::render(report), &html::render(report))
}

/// As [`write_report`], of an experiment.
///
/// # Errors
/// The folder or a file cannot be written.
pub fn write_findings(findings: &Findings, out: &Path) -> Result<()> {
    write(out, findings, &markdown::render_findings(findings), &html::render_findings(findings))
}

/// Writes the self-contained page of a comparison to this file.
///
/// # Errors
/// The file cannot be written.
pub fn write_comparison(comparison: &Comparison, page: &Path) -> Result<()> {
    std::fs::write(page, html::render_comparison(comparison))
        .with_context(|| format!("cannot write {}", page.display()))
}

fn write(out: &Path, report: &impl serde::Serialize, markdown: &str, html: &str) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut value = foreign::to_json(report).context("the report has no JSON form")?;
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
fn round(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().map(|v| (v * 1e6).round() / 1e6).and_then(serde_json::Number::from_f64);
            if let Some(rounded) = rounded {
                *number = rounded;
            }
        }
        Value::Array(all) => all.iter_mut().for_each(round),
        Value::Object(map) => map.values_mut().for_each(round),
        _ => {}
    }
}
