//! What is fitted, the prediction and the sensitivity.

use loadtest::{
    fit::{
        Fit, FittedRow,
        sensitivity::{Effect, Variation},
    },
    model::Change,
    scenario::Scenario,
};

use super::*;
use crate::fitted::{self, PREDICTION, Predicted, Prediction, sensitivity::Sensitivity};

fn article() -> Scenario {
    Scenario::load("article").unwrap()
}

/// The sample with steps of the prediction: users, mean ms, errors %.
fn predicted(steps: [(u32, f64, f64); 2]) -> (Report, Prediction) {
    let mut report = sample::report();
    report.profiles.push(PREDICTION.into());
    let rows = steps.map(|(users, mean_ms, error_pct)| {
        let measured = report.steps.iter().find(|s| s.profile == "baseline" && s.users == users).cloned().unwrap();
        let row =
            Predicted { users, article: measured.article.clone().unwrap(), model: measured.model.clone().unwrap() };
        report.steps.push(Step { profile: PREDICTION.into(), mean_ms, error_pct, article: None, ..measured });
        row
    });
    let fit = Fit {
        base_ms: 71.4,
        slope_ms: 0.2215,
        rows: vec![FittedRow { users: 1000, article_ms: 89.0, model_ms: 92.0 }],
        evaluations: 55,
    };
    let prediction = Prediction {
        fit,
        base_ms_in_force: 74.0,
        slope_ms_in_force: 0.2,
        capacity_per_s: Some(3218.0),
        capacity_in_force_per_s: Some(3419.0),
        rows: rows.into(),
    };
    (report, prediction)
}

#[test]
fn the_three_comparisons_stand_apart() {
    let section = fitted::section(&sample::report(), &article()).unwrap();
    let [parameters, stack, fit] = section.tables.as_slice() else { panic!("{section:?}") };
    let names: Vec<_> = parameters.rows.iter().map(|row| row[0].as_str()).collect();
    for name in [
        "law of the store",
        "connection pool",
        "order of the waiting line",
        "patience",
        "share of unknown ids",
        "one use per id",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(names.iter().any(|name| name.contains("flush")) && section.meaning.contains("fitted"));
    assert_eq!((stack.rows.len(), fit.rows.len()), (5, 5));
    // The model's 186 ms against the article's 210, and 0 % errors against 1.2.
    assert_eq!(fit.rows[2][..3], ["3,000", "−11.4 %", "−1.2 points"]);
    let mut without = sample::report();
    without.steps.iter_mut().for_each(|s| s.model = None);
    assert_eq!(fitted::section(&without, &article()), None);
}

#[test]
fn a_missed_prediction_is_stated_and_does_not_fail() {
    let (mut report, prediction) = predicted([(4000, 460.0, 7.5), (5000, 677.0, 15.8)]);
    report.conclude(Some(&Tolerances::default()));
    assert!(report.knees.iter().all(|knee| knee.profile != PREDICTION), "it begins at 4000");
    assert!(report.verdicts.iter().all(|v| v.passed == Some(true)), "{:?}", report.verdicts);
    let verdicts = fitted::verdicts(&report, &prediction);
    let [prediction_verdict, rate] = verdicts.as_slice() else { panic!("{verdicts:?}") };
    assert_eq!(prediction_verdict.passed, None);
    assert!(
        prediction_verdict.measured.contains("4000: missed: mean +21.1 %, errors +2.8 points"),
        "{prediction_verdict:?}"
    );
    assert!(prediction_verdict.note.contains("3,218") && !prediction_verdict.undecided, "{prediction_verdict:?}");
    assert_eq!(rate.passed, None, "the article's falls, ours rises");
    assert!(rate.expected.contains("−6.5 %") && rate.measured.contains("missed"), "{rate:?}");
    let section = fitted::prediction(&report, &prediction);
    assert!(section.meaning.contains("differs from the law in force"), "{}", section.meaning);
    assert_eq!(section.tables[2].rows[0][3], "460 · 7.5 % · 3,600");
    let read: Prediction = serde_json::from_value(section.measured).unwrap();
    assert_eq!(read, prediction);
}

#[test]
fn a_met_prediction_passes_and_an_invalid_one_does_not() {
    let (mut report, mut prediction) = predicted([(4000, 390.0, 5.4), (5000, 604.0, 13.6)]);
    assert_eq!(fitted::verdicts(&report, &prediction)[0].passed, Some(true));
    (prediction.fit.base_ms, prediction.fit.slope_ms) = (74.5, 0.199);
    assert!(fitted::prediction(&report, &prediction).meaning.contains("equals the law in force within its noise"));
    report.steps.iter_mut().filter(|s| s.profile == PREDICTION).for_each(|s| s.valid = false);
    assert_eq!(fitted::verdicts(&report, &prediction)[0].passed, None);
    report.steps.retain(|s| s.profile != PREDICTION);
    let verdict = &fitted::verdicts(&report, &prediction)[0];
    assert!(verdict.passed.is_none() && verdict.measured.contains("not measured"), "{verdict:?}");
}

#[test]
fn a_rate_that_falls_passes() {
    let (mut report, prediction) = predicted([(4000, 390.0, 5.4), (5000, 604.0, 13.6)]);
    let last = report.steps.iter_mut().find(|s| s.profile == "baseline" && s.users == 5000).unwrap();
    last.answered_per_s = 3000.0;
    assert_eq!(fitted::verdicts(&report, &prediction)[1].passed, Some(true));
}

#[test]
fn sensitivity_is_shown_by_model_and_measured() {
    let (report, prediction) = predicted([(4000, 460.0, 7.5), (5000, 677.0, 15.8)]);
    let figures: Vec<_> = prediction.rows.iter().map(|row| row.model.clone()).collect();
    let variation = Variation {
        parameter: "pool",
        name: "pool 100 → 80".into(),
        scenario: article(),
        change: Change::default(),
        measurable: true,
    };
    let effect = Effect { variation, figures: figures.clone(), step: 0, mean_pct: 11.0 };
    let sensitivity = Sensitivity {
        users: vec![4000, 5000],
        unchanged: figures.clone(),
        effects: vec![effect.clone()],
        measured: vec![(effect, PREDICTION.into())],
        candidates: vec![("none".into(), figures)],
    };
    let section = fitted::sensitivity::section(&report, &sensitivity);
    let [by_model, measured, falling] = section.tables.as_slice() else { panic!("{section:?}") };
    assert_eq!(by_model.rows[1][..2], ["pool 100 → 80", "397 · 5.4 % · 3,614"]);
    assert_eq!(measured.rows[0][2..], ["397 · 5.4 % · 3,614", "460 · 7.5 % · 3,600", "+15.9 %"]);
    assert_eq!(falling.rows[0][3..], ["+9.5 %", "−0.09 %"]);
    assert!(section.tables.iter().all(|table| table.rows.iter().all(|row| row.len() == table.head.len())));
}
