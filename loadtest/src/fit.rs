//! Fits the law to the article's first rows, and predicts its other rows with the queueing model. Pure and seeded.
//!
//! Only the law's base and slope are fitted, to the mean latencies of the rows up to [`FITTED_UP_TO`] users. Three means determine two
//! parameters. They do not determine the others: in these rows, the model has no full connection pool and no error. Pool size, order,
//! patience and spread therefore keep the scenario's values, and [`sensitivity`] says what other values would do.

pub mod sensitivity;

use serde::{Deserialize, Serialize};

use crate::{
    figures::ModelFigures,
    model::{self, Change},
    scenario::{Law, PROFILES, Scenario},
};

/// Users of the last row that the fit uses.
pub const FITTED_UP_TO: u32 = 3000;
/// Seeds over which predictions are averaged.
const PREDICTION_SEEDS: u64 = 3;
/// First step of the search, as a share of a parameter; halved down to the last one.
const FIRST_STEP: f64 = 0.08;
const LAST_STEP: f64 = 0.002;

/// How much a fit computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Warm-up of a modelled step, in seconds.
    pub warm_up_s: u32,
    /// Measured part of a modelled step, in seconds.
    pub measure_s: u32,
    /// Seeds over which each step is averaged, at least 1.
    pub seeds: u64,
    /// Most laws to try.
    pub evaluations: u32,
}

impl Effort {
    /// Some seconds of computation in a release build.
    pub const FULL: Self = Self { warm_up_s: 3, measure_s: 10, seeds: 3, evaluations: 120 };
}

/// A law that explains the fitted rows best.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Response time of an idle store, in milliseconds.
    pub base_ms: f64,
    /// Additional response time for each query in flight, in milliseconds.
    pub slope_ms: f64,
    /// The rows that were used, ascending.
    pub rows: Vec<FittedRow>,
    /// Laws that were tried.
    pub evaluations: u32,
}

/// A row that the fit used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FittedRow {
    /// Users of the step.
    pub users: u32,
    /// The article's mean latency, in milliseconds.
    pub article_ms: f64,
    /// The fitted model's mean latency, in milliseconds.
    pub model_ms: f64,
}

impl Fit {
    /// The scenario with the fitted law instead of its own.
    pub fn apply(&self, scenario: &Scenario) -> Scenario {
        with_law(scenario, self.base_ms, self.slope_ms)
    }

    /// Root mean square of the rows' relative deviations, in percent.
    pub fn deviation_pct(&self) -> f64 {
        let squares = self.rows.iter().map(|row| (row.model_ms / row.article_ms - 1.0).powi(2));
        100.0 * (squares.sum::<f64>() / self.rows.len().max(1) as f64).sqrt()
    }
}

/// Fits the law. `None` without a modelled law, or with fewer than three rows that state a mean latency up to [`FITTED_UP_TO`] users.
///
/// The same arguments give the same fit. The rows of more users, and the law in force, have no influence.
pub fn fit(scenario: &Scenario, effort: Effort) -> Option<Fit> {
    let Law::Modelled { .. } = scenario.law else { return None };
    let rows = fitted_rows(scenario);
    if rows.len() < 3 {
        return None;
    }
    let mut short = Scenario { warm_up_s: effort.warm_up_s, measure_s: effort.measure_s, ..scenario.clone() };
    // The search cannot see any other row.
    short.article.clear();
    let mut evaluations = 0;
    let mut try_law = |(base_ms, slope_ms): (f64, f64)| -> Option<Vec<f64>> {
        evaluations += 1;
        let scenario = with_law(&short, base_ms, slope_ms);
        rows.iter()
            .map(|&(users, _)| Some(average(&scenario, users, effort.seeds, Change::default())?.mean_ms))
            .collect()
    };
    let mut best = first_guess(&rows, &short);
    let mut means = try_law(best)?;
    let mut step = FIRST_STEP;
    let mut left = effort.evaluations.saturating_sub(1);
    'search: while step >= LAST_STEP {
        let (base_ms, slope_ms) = best;
        let (up, down) = (1.0 + step, 1.0 - step);
        // The diagonals matter: a smaller base with a larger slope explains nearly the same means.
        let neighbours = [
            (base_ms * up, slope_ms),
            (base_ms * down, slope_ms),
            (base_ms, slope_ms * up),
            (base_ms, slope_ms * down),
            (base_ms * down, slope_ms * up),
            (base_ms * up, slope_ms * down),
        ];
        let mut better = false;
        for law in neighbours {
            if left == 0 {
                break 'search;
            }
            left -= 1;
            let tried = try_law(law)?;
            if squares(&rows, &tried) < squares(&rows, &means) {
                (best, means, better) = (law, tried, true);
            }
        }
        if !better {
            step /= 2.0;
        }
    }
    let rows = rows.iter().zip(means);
    let rows = rows.map(|(&(users, article_ms), model_ms)| FittedRow { users, article_ms, model_ms }).collect();
    Some(Fit { base_ms: best.0, slope_ms: best.1, rows, evaluations })
}

/// The figures of a step, averaged over some seeds. `None` without a law.
pub fn predict(scenario: &Scenario, users: u32, change: Change) -> Option<ModelFigures> {
    average(scenario, users, PREDICTION_SEEDS, change)
}

/// Users and mean latency, ascending.
fn fitted_rows(scenario: &Scenario) -> Vec<(u32, f64)> {
    let rows = scenario.article.iter().filter(|row| row.profile == PROFILES[0] && row.users <= FITTED_UP_TO);
    let mut rows: Vec<_> = rows.filter_map(|row| Some((row.users, row.figures.mean_ms?))).collect();
    rows.sort_by_key(|row| row.0);
    rows
}

/// As long as no request waits, Little's law gives `mean = base / (1 − rate × slope)`, so `1 / mean` is a line over the rate.
fn first_guess(rows: &[(u32, f64)], scenario: &Scenario) -> (f64, f64) {
    let points = rows.iter().map(|&(users, mean_ms)| (scenario.offered_per_s(users) / 1000.0, 1.0 / mean_ms));
    let points: Vec<_> = points.collect();
    let n = points.len() as f64;
    let mean = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / n, sum.1 + point.1 / n));
    let covariance: f64 = points.iter().map(|point| (point.0 - mean.0) * (point.1 - mean.1)).sum();
    let variance: f64 = points.iter().map(|point| (point.0 - mean.0).powi(2)).sum();
    let gradient = covariance / variance;
    let base_ms = 1.0 / (mean.1 - gradient * mean.0);
    // Latencies that do not rise with the rate, or rise too steeply for the line, still give the search a place to begin.
    let base_ms = if base_ms.is_finite() && base_ms > 0.0 { base_ms } else { rows[0].1 };
    (base_ms, (-gradient * base_ms).max(0.001))
}

fn squares(rows: &[(u32, f64)], means: &[f64]) -> f64 {
    rows.iter().zip(means).map(|((_, article), model)| (model / article - 1.0).powi(2)).sum()
}

fn average(scenario: &Scenario, users: u32, seeds: u64, change: Change) -> Option<ModelFigures> {
    let mut sum = ModelFigures::default();
    for seed in 1..=seeds {
        let one = model::changed_step(scenario, users, seed, change)?;
        sum.mean_ms += one.mean_ms;
        sum.error_pct += one.error_pct;
        sum.answered_per_s += one.answered_per_s;
        sum.good_per_s += one.good_per_s;
    }
    let n = seeds.max(1) as f64;
    Some(ModelFigures {
        mean_ms: sum.mean_ms / n,
        error_pct: sum.error_pct / n,
        answered_per_s: sum.answered_per_s / n,
        good_per_s: sum.good_per_s / n,
    })
}

fn with_law(scenario: &Scenario, base_ms: f64, slope_ms: f64) -> Scenario {
    let Law::Modelled { crosstalk_ms, spread, .. } = scenario.law else { return scenario.clone() };
    Scenario { law: Law::Modelled { base_ms, slope_ms, crosstalk_ms, spread }, ..scenario.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COARSE: Effort = Effort { warm_up_s: 1, measure_s: 2, seeds: 1, evaluations: 40 };

    fn article() -> Scenario {
        Scenario::load("article").unwrap()
    }

    #[test]
    fn the_rows_to_predict_and_the_law_in_force_have_no_influence() {
        let known = fit(&article(), COARSE).unwrap();
        let mut other = article();
        for row in other.article.iter_mut().filter(|row| row.users > FITTED_UP_TO) {
            row.figures = crate::figures::ArticleFigures { mean_ms: Some(5.0), error_pct: 77.0, qps: 1.0 };
        }
        other.law = Law::Modelled { base_ms: 1.0, slope_ms: 3.0, crosstalk_ms: 0.0, spread: 0.3 };
        assert_eq!(fit(&other, COARSE).unwrap(), known);
        other.article.retain(|row| row.users <= FITTED_UP_TO);
        assert_eq!(fit(&other, COARSE).unwrap(), known, "without these rows");
        other.article[1].figures.mean_ms = Some(150.0);
        assert_ne!(fit(&other, COARSE).unwrap(), known, "a row that is fitted has an influence");
    }

    #[test]
    fn a_fit_finds_the_law_that_made_the_rows() {
        let mut scenario = with_law(&article(), 60.0, 0.15);
        scenario.article.truncate(3);
        let made = scenario.clone();
        for row in &mut scenario.article {
            row.figures.mean_ms = Some(model::step(&made, row.users, 9).unwrap().mean_ms);
        }
        let found = fit(&scenario, COARSE).unwrap();
        assert!((found.base_ms / 60.0 - 1.0).abs() < 0.03, "{found:?}");
        assert!((found.slope_ms / 0.15 - 1.0).abs() < 0.06, "{found:?}");
        assert!(found.deviation_pct() < 1.0 && found.evaluations <= COARSE.evaluations, "{found:?}");
    }

    #[test]
    fn a_fit_needs_a_law_and_three_rows() {
        let mut scenario = article();
        scenario.article.retain(|row| row.users != 2000);
        assert_eq!(fit(&scenario, COARSE), None);
        let without = Scenario { law: Law::None, ..article() };
        assert_eq!(fit(&without, COARSE), None);
    }

    #[test]
    fn rows_that_fall_do_not_break_the_search() {
        let mut scenario = article();
        for (row, mean_ms) in scenario.article.iter_mut().zip([200.0, 150.0, 100.0]) {
            row.figures.mean_ms = Some(mean_ms);
        }
        let found = fit(&scenario, Effort { evaluations: 8, ..COARSE }).unwrap();
        assert!(found.base_ms.is_finite() && found.slope_ms > 0.0 && found.evaluations <= 8, "{found:?}");
    }
}
