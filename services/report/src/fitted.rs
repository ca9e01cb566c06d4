//! What is fitted to the article and what is predicted: sections of the report, and verdicts. Pure.
//!
//! Three comparisons are kept apart: measured against model (does the stack do what the model says), model against article (how good the
//! fit is), and a prediction: the law fitted to the article's first rows alone, measured at its last rows.

pub mod sensitivity;

use loadtest::{
    fit::{FITTED_UP_TO, Fit},
    scenario::{KnownIds, Law, Order, Scenario},
};
use serde::{Deserialize, Serialize};

use super::{
    analysis::{StepState, over_repeats, step_state},
    numbers::{NO_FIGURE, count, ms, pct, plain, signed},
    schema::{ArticleFigures, ModelFigures, Report, Step},
    section::{Section, Table, Verdict},
};

/// Name of the variant that measures the prediction.
pub const PREDICTION: &str = "prediction";
/// Largest deviation of a predicted step from the article: of the mean latency, in percent …
const MAX_MEAN_PCT: f64 = 10.0;
/// … and of the errors, in points.
const MAX_ERROR_POINTS: f64 = 2.0;
/// Two fits of the same rows with other seeds differ by this much, in percent.
const NOISE_PCT: f64 = 2.0;

/// `measured` of the section on the prediction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    pub fit: Fit,
    /// The scenario's law, in ms; it is fitted to all rows.
    pub base_ms_in_force: f64,
    pub slope_ms_in_force: f64,
    /// Queries per second with all connections busy, by the fitted law and by the one in force.
    pub capacity_per_s: Option<f64>,
    pub capacity_in_force_per_s: Option<f64>,
    /// The steps that the fit did not see.
    pub rows: Vec<Predicted>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    pub users: u32,
    pub article: ArticleFigures,
    pub model: ModelFigures,
}

/// Measured against model and model against article; the fitted parameters. None without a step that has both figures.
pub fn section(report: &Report, scenario: &Scenario) -> Option<Section> {
    let steps: Vec<&Step> = report.steps.iter().filter(|s| s.model.is_some() && s.article.is_some()).collect();
    let profile = &steps.first()?.profile;
    let mut users: Vec<u32> = steps.iter().map(|s| s.users).collect();
    users.sort_unstable();
    users.dedup();
    let (mut stack, mut fit) = (Vec::new(), Vec::new());
    for users in users {
        let quoted =
            steps.iter().find(|s| s.users == users).and_then(|s| Some((s.model.as_ref()?, s.article.as_ref()?)));
        let Some((model, article)) = quoted else { continue };
        let measured = |figure: fn(&Step) -> f64| {
            over_repeats(report, profile, users, |s| Some(figure(s))).map_or(f64::NAN, |spread| spread.median)
        };
        stack.push(vec![
            count(f64::from(users)),
            percent(measured(|s| s.mean_ms), model.mean_ms),
            points(measured(|s| s.error_pct), model.error_pct),
            percent(measured(|s| s.answered_per_s), model.answered_per_s),
            percent(measured(|s| s.good_per_s), model.good_per_s),
        ]);
        fit.push(vec![
            count(f64::from(users)),
            article.mean_ms.map_or_else(|| NO_FIGURE.into(), |mean_ms| percent(model.mean_ms, mean_ms)),
            points(model.error_pct, article.error_pct),
            percent(model.answered_per_s, article.qps),
        ]);
    }
    let meaning = "The parameters below are fitted: they were chosen so that the queueing model gives the article's table. So the agreement of the \
                   model with the article shows only that such a system can have these figures. The agreement of the stack with the model is \
                   measured, and the prediction tests the fit.";
    Some(Section::new("What is fitted", meaning, serde_json::Value::Null).with_tables(vec![
        Table::new(
            "Fitted parameters",
            "The article states none of them.",
            &["parameter", "value", "figures that depend on it"],
            parameters(scenario),
        ),
        Table::new(
            "(a) Measured against model",
            "Does the stack do what the model says? The model knows nothing of the measurement.",
            &["users", "mean", "errors", "answered/s", "good/s"],
            stack,
        ),
        Table::new(
            "(b) Model against article",
            "How good is the fit? Nothing is measured here.",
            &["users", "mean", "errors", "answered/s against QPS"],
            fit,
        ),
    ]))
}

fn parameters(scenario: &Scenario) -> Vec<Vec<String>> {
    let mut rows: Vec<[String; 3]> = Vec::new();
    if let Law::Modelled { base_ms, slope_ms, crosstalk_ms, spread } = scenario.law {
        let law = format!("{} ms + {} ms × queries in flight", plain(base_ms), plain(slope_ms));
        rows.push(["law of the store".into(), law, "all means; the rate from which pools are full".into()]);
        if crosstalk_ms > 0.0 {
            let crosstalk = format!("{crosstalk_ms} ms × queries in flight × (queries in flight − 1)");
            rows.push(["crosstalk of the law".into(), crosstalk, "the rate, which falls beyond its peak".into()]);
        }
        rows.push(["spread of the law".into(), plain(spread), "percentiles; hardly the means".into()]);
    }
    let store = &scenario.store;
    let pool = format!("{} × {} connections", scenario.replicas, store.pool_size);
    rows.push(["connection pool".into(), pool, "errors beyond 3000 users".into()]);
    let order = match store.order {
        Order::Newest => "newest first",
        Order::Oldest => "oldest first",
    };
    rows.push(["order of the waiting line".into(), order.into(), "errors and means beyond 3000 users".into()]);
    let patience = format!("{} ms for a connection, {} ms in all", store.checkout_timeout_ms, scenario.timeout_ms);
    rows.push(["patience".into(), patience, "mean of the failed requests".into()]);
    let share = scenario.unknown_share.first().copied().unwrap_or_default();
    rows.push([
        "share of unknown ids".into(),
        format!("{} %", pct(100.0 * share)),
        "store queries per request, with a cache".into(),
    ]);
    let once = if scenario.known == KnownIds::Once { "yes" } else { "no" };
    rows.push(["one use per id".into(), once.into(), "store queries per request: no id is found in the cache".into()]);
    let flush = if scenario.flush_cache_before_step { "yes" } else { "no" };
    rows.push(["flush before each baseline step".into(), flush.into(), "as above".into()]);
    rows.into_iter().map(Vec::from).collect()
}

/// The prediction, with what was measured.
pub fn prediction(report: &Report, prediction: &Prediction) -> Section {
    let Prediction { fit, base_ms_in_force, slope_ms_in_force, .. } = prediction;
    let law = vec![
        vec![
            "fitted".into(),
            ms1(fit.base_ms),
            plain(fit.slope_ms),
            prediction.capacity_per_s.map_or_else(|| NO_FIGURE.into(), count),
        ],
        vec![
            "in force".into(),
            ms1(*base_ms_in_force),
            plain(*slope_ms_in_force),
            prediction.capacity_in_force_per_s.map_or_else(|| NO_FIGURE.into(), count),
        ],
    ];
    let fitted = fit.rows.iter().map(|row| {
        vec![count(f64::from(row.users)), ms(row.article_ms), ms(row.model_ms), percent(row.model_ms, row.article_ms)]
    });
    let mut rows = Vec::new();
    for row in &prediction.rows {
        let measured = measured(report, row.users);
        let shown = measured.as_ref().map(|m| (ms(m.mean_ms), pct(m.error_pct), count(m.answered_per_s)));
        let (mean, errors, answered) = shown.unwrap_or_else(|| (NO_FIGURE.into(), NO_FIGURE.into(), NO_FIGURE.into()));
        let mean_of = row.article.mean_ms.map_or_else(|| NO_FIGURE.into(), ms);
        let result = outcome(row, measured.as_ref());
        rows.push(vec![
            count(f64::from(row.users)),
            format!("{mean_of} · {} % · {}", pct(row.article.error_pct), count(row.article.qps)),
            figures(&row.model),
            format!("{mean} · {errors} % · {answered}"),
            result.words,
        ]);
    }
    let same = equal_within_noise(prediction);
    let meaning = format!(
        "The law's base and slope, fitted to the mean latencies of the article's rows up to {FITTED_UP_TO} users alone, at the steps that the fit did not \
         see. Three means determine these two parameters and no other: up to {FITTED_UP_TO} users the model has no full pool and no error. Pool, order, patience \
         and spread keep the scenario's values, which were chosen with the whole table. {}",
        if same {
            "The fit equals the law in force within its noise."
        } else {
            "The fit differs from the law in force, which is a compromise between all rows."
        }
    );
    let measured = serde_json::to_value(prediction).unwrap_or_default();
    Section::new("Prediction", &meaning, measured).with_tables(vec![
        Table::new(
            "Fitted law",
            "Queries/s: what the store can do with all connections busy.",
            &["law", "base, ms", "slope, ms", "queries/s"],
            law,
        ),
        Table::new(
            "Rows of the fit",
            &format!("{} laws tried; root mean square {} %.", fit.evaluations, pct(fit.deviation_pct())),
            &["users", "article, ms", "fitted, ms", "difference"],
            fitted.collect(),
        ),
        Table::new(
            "Predicted steps",
            "Mean ms · errors · answered/s.",
            &["users", "article", "model's prediction", "measured", "measured against article"],
            rows,
        ),
    ])
}

fn equal_within_noise(prediction: &Prediction) -> bool {
    let Prediction { fit, base_ms_in_force, slope_ms_in_force, .. } = prediction;
    let apart = |a: f64, b: f64| 100.0 * (a / b - 1.0).abs();
    apart(fit.base_ms, *base_ms_in_force) <= NOISE_PCT && apart(fit.slope_ms, *slope_ms_in_force) <= NOISE_PCT
}

/// Verdicts on the prediction and on the article's falling rate. A miss is stated and does not fail the run: it is a property of the model and
/// the article, which no run of the stack can change.
pub fn verdicts(report: &Report, prediction: &Prediction) -> Vec<Verdict> {
    let of_rows = prediction.rows.iter().map(|row| (row, outcome(row, measured(report, row.users).as_ref())));
    let of_rows: Vec<_> = of_rows.collect();
    let list = |rows: &[(&Predicted, Outcome)]| {
        rows.iter().map(|(row, outcome)| format!("{}: {}", row.users, outcome.words)).collect::<Vec<_>>().join(" · ")
    };
    let users = prediction.rows.iter().map(|row| row.users.to_string()).collect::<Vec<_>>().join(" and ");
    let met = of_rows.iter().all(|(_, outcome)| outcome.met == Some(true));
    let invalid = prediction.rows.iter().any(|row| step_state(report, PREDICTION, row.users) == StepState::Invalid);
    let (fitted, in_force) = (prediction.capacity_per_s, prediction.capacity_in_force_per_s);
    let reason = match (fitted, in_force) {
        (Some(fitted), Some(in_force)) => format!(
            "the law that gives the means up to {FITTED_UP_TO} lets all connections do {} queries/s; the law in force, fitted to all rows, {}",
            count(fitted),
            count(in_force)
        ),
        _ => String::new(),
    };
    let note = if met { String::new() } else { format!("stated, does not decide the run: {reason}") };
    let mut verdicts = vec![Verdict {
        name: format!("Prediction of {users} from the rows up to {FITTED_UP_TO}"),
        expected: format!("mean within {MAX_MEAN_PCT} %, errors within {MAX_ERROR_POINTS} points of the article's"),
        measured: list(&of_rows),
        passed: (met && !invalid).then_some(true),
        note: if invalid { format!("a step is not valid; {note}") } else { note },
        undecided: false,
    }];
    verdicts.extend(falling_rate(report));
    verdicts
}

/// The article's rate falls from one step to the next; ours should too.
fn falling_rate(report: &Report) -> Option<Verdict> {
    let mut known: Vec<&Step> = report.steps.iter().filter(|s| s.article.is_some() && s.model.is_some()).collect();
    known.sort_by_key(|s| s.users);
    let qps = |step: &Step| step.article.as_ref().map_or(f64::NAN, |article| article.qps);
    let pair = known.windows(2).find(|pair| qps(pair[1]) < qps(pair[0]))?;
    let (low, high) = (pair[0], pair[1]);
    let answered = |step: &Step| {
        over_repeats(report, &step.profile, step.users, |s| Some(s.answered_per_s))
            .map_or(f64::NAN, |spread| spread.median)
    };
    let change = 100.0 * (answered(high) / answered(low) - 1.0);
    let falls = change < 0.0;
    Some(Verdict {
        name: format!("QPS falls from {} to {} users", low.users, high.users),
        expected: format!("{} %, as the article's", signed(100.0 * (qps(high) / qps(low) - 1.0))),
        measured: format!("{} %: {}", signed(change), if falls { "it falls" } else { "missed" }),
        passed: falls.then_some(true),
        note: if falls {
            String::new()
        } else {
            "stated, does not decide the run: users who send once a second offer more with each step, and a linear law with bounded pools keeps its \
             rate; evaluate --sensitivity shows changes of the model that make it fall"
                .into()
        },
        undecided: false,
    })
}

struct Outcome {
    /// None: not measured.
    met: Option<bool>,
    words: String,
}

fn outcome(row: &Predicted, measured: Option<&ModelFigures>) -> Outcome {
    let (Some(measured), Some(article_ms)) = (measured, row.article.mean_ms) else {
        return Outcome { met: None, words: "not measured".into() };
    };
    let mean_pct = 100.0 * (measured.mean_ms / article_ms - 1.0);
    let error_points = measured.error_pct - row.article.error_pct;
    let met = mean_pct.abs() <= MAX_MEAN_PCT && error_points.abs() <= MAX_ERROR_POINTS;
    let sign = if met { "within" } else { "missed" };
    Outcome {
        met: Some(met),
        words: format!("{sign}: mean {} %, errors {} points", signed(mean_pct), signed(error_points)),
    }
}

/// Medians of the prediction's step.
fn measured(report: &Report, users: u32) -> Option<ModelFigures> {
    let median =
        |figure: fn(&Step) -> f64| over_repeats(report, PREDICTION, users, |s| Some(figure(s))).map(|s| s.median);
    Some(ModelFigures {
        mean_ms: median(|s| s.mean_ms)?,
        error_pct: median(|s| s.error_pct)?,
        answered_per_s: median(|s| s.answered_per_s)?,
        good_per_s: median(|s| s.good_per_s)?,
    })
}

fn ms1(value: f64) -> String {
    format!("{value:.1}")
}

/// "390 · 5.4 % · 3,613".
fn figures(figures: &ModelFigures) -> String {
    format!("{} · {} % · {}", ms(figures.mean_ms), pct(figures.error_pct), count(figures.answered_per_s))
}

fn percent(value: f64, than: f64) -> String {
    format!("{} %", signed(100.0 * (value / than - 1.0)))
}

fn points(value: f64, than: f64) -> String {
    format!("{} points", signed(value - than))
}
