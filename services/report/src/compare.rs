//! Several reports beside each other: which steps they share, and under which conditions they differ. Pure; `html` draws the page.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::{
    analysis::{StepState, over_repeats, step_state},
    numbers::{NO_FIGURE, count, ms, pct},
    schema::{Report, Step},
    section::Table,
};

/// More lines cannot be told apart.
pub const MAX_REPORTS: usize = 16;
/// Characters of a condition that are shown.
const SHOWN_CHARACTERS: usize = 160;

/// A report and its name on the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub name: String,
    pub report: Report,
}

impl Run {
    /// Users of the step of a profile at this rate, requests/s; `None` without such a step.
    pub(super) fn users_at(&self, profile: &str, rate: u64) -> Option<u32> {
        self.report.steps.iter().find(|step| step.profile == profile && rate_of(step) == rate).map(|step| step.users)
    }
}

/// Steps of different reports are the same if they offer the same whole number of requests/s.
fn rate_of(step: &Step) -> u64 {
    step.offered_per_s.round() as u64
}

/// 2 to 16 different reports with steps of load.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    runs: Vec<Run>,
}

impl Comparison {
    /// # Errors
    /// Fewer than 2 reports or more than 16, a report without steps of load, or the same report twice.
    pub fn of(runs: Vec<Run>) -> Result<Self> {
        ensure!(
            (2..=MAX_REPORTS).contains(&runs.len()),
            "a comparison has 2 to {MAX_REPORTS} reports, and {} are given",
            runs.len()
        );
        for (n, run) in runs.iter().enumerate() {
            ensure!(!run.report.steps.is_empty(), "{} has no steps of load to compare: leave it out", run.name);
            if let Some(same) = runs.iter().take(n).find(|earlier| earlier.report == run.report) {
                bail!("{} and {} are the same report: leave one of them out", same.name, run.name);
            }
        }
        Ok(Self { runs })
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// "2 before": number and name.
    pub(super) fn label(&self, run: usize) -> String {
        format!("{} {}", run + 1, self.runs.get(run).map_or("", |run| &run.name))
    }

    /// Of all reports that have steps of it, in their order.
    pub(super) fn profiles(&self) -> Vec<&str> {
        let mut profiles: Vec<&str> = Vec::new();
        for run in &self.runs {
            let run_of = |profile: &&String| run.report.steps.iter().any(|step| step.profile == **profile);
            for profile in run.report.profiles.iter().filter(run_of) {
                if !profiles.contains(&profile.as_str()) {
                    profiles.push(profile);
                }
            }
        }
        profiles
    }

    /// Offered, requests/s, of all steps of a profile, ascending.
    pub(super) fn rates(&self, profile: &str) -> Vec<u64> {
        let steps = self.runs.iter().flat_map(|run| &run.report.steps);
        let mut rates: Vec<u64> = steps.filter(|step| step.profile == profile).map(rate_of).collect();
        rates.sort_unstable();
        rates.dedup();
        rates
    }

    /// When each was made, of what.
    pub(super) fn list(&self) -> Vec<[String; 4]> {
        let row = |(n, run): (usize, &Run)| {
            let report = &run.report;
            let repeats = if report.repeats > 1 { format!(", {} times", report.repeats) } else { String::new() };
            let quick = if report.quick { ", quick" } else { "" };
            let what = format!("{}{repeats}{quick}", report.scenario.name);
            [self.label(n), report.created.clone(), what, report.profiles.join(", ")]
        };
        self.runs.iter().enumerate().map(row).collect()
    }

    /// Conditions that are not the same in all reports, a row per value; empty if all are.
    pub(super) fn differences(&self) -> Table {
        let conditions: Vec<BTreeMap<String, String>> = self.runs.iter().map(|run| conditions(&run.report)).collect();
        let mut names: Vec<&String> = conditions.iter().flat_map(BTreeMap::keys).collect();
        names.sort_unstable();
        names.dedup();
        let mut rows = Vec::new();
        for name in names {
            let mut values: Vec<(&str, Vec<String>)> = Vec::new();
            for (n, conditions) in conditions.iter().enumerate() {
                let value = conditions.get(name).map_or(NO_FIGURE, String::as_str);
                let number = (n + 1).to_string();
                match values.iter_mut().find(|(known, _)| *known == value) {
                    Some((_, runs)) => runs.push(number),
                    None => values.push((value, vec![number])),
                }
            }
            if values.len() > 1 {
                rows.extend(
                    values.into_iter().map(|(value, runs)| vec![name.clone(), shortened(value), runs.join(", ")]),
                );
            }
        }
        Table::new(
            "Conditions that differ",
            "Names as in report.json. A difference of the figures may be theirs.",
            &["condition", "value", "reports"],
            rows,
        )
    }

    /// The figures of a profile: a row per step and report.
    pub(super) fn figures(&self, profile: &str) -> Table {
        let mut rows = Vec::new();
        for rate in self.rates(profile) {
            for (n, run) in self.runs.iter().enumerate() {
                if let Some(users) = run.users_at(profile, rate) {
                    rows.push(self.row(
                        &run.report,
                        profile,
                        users,
                        &format!("{}/s: {}", count(rate as f64), self.label(n)),
                    ));
                }
            }
        }
        let head = ["offered", "mean, ms", "p50, ms", "p99, ms", "errors, %", "good/s", "good of offered, %", "valid"];
        let meaning = "Medians of the valid repeats, with minimum…maximum where they differ.";
        Table::new(&format!("{profile}, step by step"), meaning, &head, rows)
    }

    fn row(&self, report: &Report, profile: &str, users: u32, name: &str) -> Vec<String> {
        let shown = |figure: fn(&Step) -> Option<f64>, show: fn(f64) -> String| {
            let Some(spread) = over_repeats(report, profile, users, figure) else { return NO_FIGURE.to_owned() };
            let [median, min, max] = [spread.median, spread.min, spread.max].map(show);
            if min == max { median } else { format!("{median} ({min}…{max})") }
        };
        let valid = if step_state(report, profile, users) == StepState::Invalid { "no" } else { "yes" };
        vec![
            name.to_owned(),
            shown(|s| Some(s.mean_ms), ms),
            shown(|s| Some(s.p50_ms), ms),
            shown(|s| Some(s.p99_ms), ms),
            shown(|s| Some(s.error_pct), pct),
            shown(|s| Some(s.good_per_s), count),
            shown(|s| (s.offered_per_s > 0.0).then(|| 100.0 * s.good_per_s / s.offered_per_s), pct),
            valid.to_owned(),
        ]
    }
}

/// Everything that was the same for all steps, by its name in report.json, such as `scenario.timeout_ms`: fields that are added to the
/// schema are compared too.
fn conditions(report: &Report) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let Ok(Value::Object(fields)) = serde_json::to_value(report) else { return all };
    for (name, value) in fields {
        match value {
            Value::Object(inner) => {
                all.extend(inner.iter().map(|(key, value)| (format!("{name}.{key}"), text(value))));
            }
            value if ["model_version", "quick", "repeats", "profiles", "changed"].contains(&name.as_str()) => {
                all.insert(name, text(&value));
            }
            _ => {}
        }
    }
    all
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn shortened(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
