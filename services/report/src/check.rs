//! Whether the figures of a report follow from the histograms and counts beside it: they are computed again and compared.

mod concluded;
mod recorded;
mod step;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use loadtest::histogram_log::HistogramLog;
use serde::Serialize;
use serde_json::Value;

use super::{
    document::Document,
    json_diff::{Changed, changes},
    schema::{Law, Report, Step},
};

/// A report has six decimals, so two figures that were rounded may differ by this.
const ROUNDING: f64 = 2e-6;

/// What was compared, and what differs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Checked {
    /// Number of figures, by what they were computed from.
    pub compared: BTreeMap<&'static str, u64>,
    pub differences: Vec<Difference>,
    /// Figures that nothing beside the report can confirm, each with the reason.
    pub not_recomputed: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// `baseline 4000, repeat 1`, or the part of the report.
    pub place: String,
    /// The field in report.json.
    pub figure: String,
    pub reported: String,
    pub recomputed: String,
}

/// Computes again what can be computed. `log` reads a histogram log by its name in the report; `recorded` are the steps of `steps.jsonl`, if it
/// is there.
///
/// # Errors
/// A histogram log is missing or damaged, or the report has no steps of load.
pub fn check(document: &Document, log: impl Fn(&str) -> Result<String>, recorded: Option<&[Step]>) -> Result<Checked> {
    let report = document.clone().into_steps().context("it has no steps of load, so nothing can be computed again")?;
    let mut checked = Checked::default();
    for step in &report.steps {
        for (n, attempt) in step.discarded.iter().chain([step]).enumerate() {
            let name = if n < step.discarded.len() { format!("{}, attempt {}", name(step), n + 1) } else { name(step) };
            let Some(file) = &attempt.hdr_log else {
                checked.not_recomputed.push(format!("{name}: it has no histogram log"));
                continue;
            };
            let log = log(file).and_then(|text| {
                // The last histogram may be one that a log need not have.
                ensure!(text.ends_with('\n'), "it ends within a line");
                HistogramLog::parse(&text)
            });
            let log = log.with_context(|| format!("cannot use the histogram log {file} of step {name}"))?;
            step::check(&report, attempt, &log, &mut checked.of(&name));
        }
    }
    law(&report, &mut checked);
    concluded::check(document, &report, &mut checked);
    recorded::check(&report, recorded, &mut checked);
    checked.not_recomputed.extend(step::NOT_RECOMPUTED.map(str::to_owned));
    Ok(checked)
}

fn law(report: &Report, checked: &mut Checked) {
    if let Law::Modelled { base_ms, base_ms_scenario, overhead_ms, .. } = report.law {
        checked.of("law").number("its own figures", "base_ms", base_ms, base_ms_scenario - overhead_ms);
    }
}

fn name(step: &Step) -> String {
    format!("{} {}, repeat {}", step.profile, step.users, step.repeat)
}

impl Checked {
    fn of(&mut self, place: &str) -> Place<'_> {
        Place { place: place.to_owned(), checked: self }
    }

    /// As text; ends in a line break.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (basis, count) in &self.compared {
            out.push_str(&format!("{count:>7} figures computed again from {basis}\n"));
        }
        for Difference { place, figure, reported, recomputed } in &self.differences {
            out.push_str(&format!(
                "✗ {place}: {figure} is {reported} in the report, and {recomputed} computed again\n"
            ));
        }
        for what in &self.not_recomputed {
            out.push_str(&format!("  not computed again: {what}\n"));
        }
        out.push_str(&match self.differences.len() {
            0 => "✓ no figure differs\n".to_owned(),
            1 => "1 figure differs\n".to_owned(),
            more => format!("{more} figures differ\n"),
        });
        out
    }
}

/// Figures of one part of the report.
struct Place<'a> {
    place: String,
    checked: &'a mut Checked,
}

impl Place<'_> {
    fn number(&mut self, basis: &'static str, figure: &str, reported: f64, recomputed: f64) {
        let same = close(reported, recomputed);
        self.one(basis, figure, same, &reported, &recomputed);
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, basis: &'static str, figure: &str, reported: T, recomputed: T) {
        let (shown, again) = (format!("{reported:?}"), format!("{recomputed:?}"));
        self.one(basis, figure, reported == recomputed, &shown, &again);
    }

    /// Each leaf of two JSON values. Figures are named below `figure`.
    fn values(&mut self, basis: &'static str, figure: &str, reported: &Value, recomputed: &Value) {
        let (changed, compared) = changes(reported, recomputed, &same_value);
        *self.checked.compared.entry(basis).or_default() += compared;
        for Changed { path, before, now } in changed {
            let parts: Vec<&str> = [figure, path.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
            self.differs(&parts.join("."), &before, &now);
        }
    }

    fn one(
        &mut self,
        basis: &'static str,
        figure: &str,
        same: bool,
        reported: &dyn std::fmt::Display,
        recomputed: &dyn std::fmt::Display,
    ) {
        *self.checked.compared.entry(basis).or_default() += 1;
        if !same {
            self.differs(figure, reported, recomputed);
        }
    }

    fn differs(&mut self, figure: &str, reported: &dyn std::fmt::Display, recomputed: &dyn std::fmt::Display) {
        self.checked.differences.push(Difference {
            place: self.place.clone(),
            figure: figure.to_owned(),
            reported: short(reported),
            recomputed: short(recomputed),
        });
    }
}

/// A list of another length is shown with its begin only.
fn short(value: &dyn std::fmt::Display) -> String {
    const LONGEST: usize = 200;
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        return text;
    }
    format!("{}…", text.chars().take(LONGEST).collect::<String>())
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= ROUNDING + 1e-9 * b.abs()
}

fn same_value(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => close(a, b),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests;
