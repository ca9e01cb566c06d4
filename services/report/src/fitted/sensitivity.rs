//! What each fitted parameter does to the table: a section of the report. Pure.

use loadtest::fit::sensitivity::{Effect, VARIED_BY};

use super::figures;
use crate::{
    analysis::over_repeats,
    numbers::{NO_FIGURE, count, ms, pct, signed},
    schema::{ModelFigures, Report, Step},
    section::{Section, Table},
};

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Sensitivity {
    /// Steps, by their users.
    pub users: Vec<u32>,
    /// The model with the scenario's parameters, one for each step.
    pub unchanged: Vec<ModelFigures>,
    pub effects: Vec<Effect>,
    /// The effects that were measured, with the names of their variants.
    pub measured: Vec<(Effect, String)>,
    /// Changes of the model that could make the rate fall, one figure for each step. The first changes nothing.
    pub candidates: Vec<(String, Vec<ModelFigures>)>,
}

pub fn section(report: &Report, sensitivity: &Sensitivity) -> Section {
    let Sensitivity { users, unchanged, effects, measured, candidates } = sensitivity;
    let meaning = format!(
        "Each fitted parameter alone, {:.0} % lower and higher; of the order, the other one. By the model, and for the two parameters that change a \
         mean latency most also measured.",
        100.0 * VARIED_BY
    );
    let columns: Vec<String> = users.iter().map(|&users| count(f64::from(users))).collect();
    let head = |first: &'static str| -> Vec<&str> {
        std::iter::once(first).chain(columns.iter().map(String::as_str)).collect()
    };
    let row = |name: &str, steps: &[ModelFigures]| -> Vec<String> {
        std::iter::once(name.to_owned()).chain(steps.iter().map(figures)).collect()
    };
    let mut by_model = vec![row("unchanged", unchanged)];
    by_model.extend(effects.iter().map(|effect| row(&effect.variation.name, &effect.figures)));
    let mut tables = vec![Table::new("By the model", "Mean ms · errors · answered/s.", &head("change"), by_model)];
    if !measured.is_empty() {
        let rows = measured.iter().map(|(effect, profile)| measured_row(report, users, effect, profile));
        tables.push(Table::new(
            "The two most sensitive parameters, measured",
            "Mean ms · errors · answered/s, at the step where the mean changes most.",
            &["change", "users", "model", "measured", "mean against model"],
            rows.collect(),
        ));
    }
    if let Some(table) = falling(users, candidates) {
        tables.push(table);
    }
    let measured: Vec<_> = effects
        .iter()
        .map(|effect| serde_json::json!({"change": effect.variation.name, "figures": effect.figures}))
        .collect();
    Section::new("Sensitivity", &meaning, serde_json::Value::Array(measured)).with_tables(tables)
}

fn measured_row(report: &Report, users: &[u32], effect: &Effect, profile: &str) -> Vec<String> {
    let (Some(&users), Some(model)) = (users.get(effect.step), effect.figures.get(effect.step)) else {
        return vec![effect.variation.name.clone(); 5];
    };
    let median = |figure: fn(&Step) -> f64| {
        over_repeats(report, profile, users, |s| Some(figure(s))).map_or(f64::NAN, |spread| spread.median)
    };
    let (mean_ms, error_pct) = (median(|s| s.mean_ms), median(|s| s.error_pct));
    let measured = if mean_ms.is_finite() {
        format!("{} · {} % · {}", ms(mean_ms), pct(error_pct), count(median(|s| s.answered_per_s)))
    } else {
        NO_FIGURE.into()
    };
    vec![
        effect.variation.name.clone(),
        count(f64::from(users)),
        figures(model),
        measured,
        format!("{} %", signed(100.0 * (mean_ms / model.mean_ms - 1.0))),
    ]
}

/// From the last step but one to the last.
fn falling(users: &[u32], candidates: &[(String, Vec<ModelFigures>)]) -> Option<Table> {
    let [.., low, high] = users else { return None };
    let rows = candidates.iter().filter_map(|(name, steps)| {
        let [.., a, b] = steps.as_slice() else { return None };
        let change = |from: f64, to: f64| format!("{} %", signed(100.0 * (to / from - 1.0)));
        let (answered, good) = (change(a.answered_per_s, b.answered_per_s), change(a.good_per_s, b.good_per_s));
        Some(vec![name.clone(), figures(a), figures(b), answered, good])
    });
    let (low, high) = (count(f64::from(*low)), count(f64::from(*high)));
    Some(Table::new(
        "Which change of the model makes the rate fall?",
        "By the model alone: mean ms · errors · answered/s, and the change of both rates between the steps.",
        &["change of the model", &low, &high, "answered/s", "good/s"],
        rows.collect(),
    ))
}
