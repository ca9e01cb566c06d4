use super::*;

/// The Python model's conditions: 15 s discarded of 60, users who never give up on a query, waiters after 3 s.
fn python() -> Scenario {
    let mut scenario = Scenario::load("article").unwrap();
    scenario.measure_s = 45;
    scenario.timeout_ms = 60_000;
    scenario.store.checkout_timeout_ms = 3000;
    scenario
}

fn near(name: &str, measured: f64, expected: f64, tolerance: f64) {
    assert!((measured - expected).abs() <= tolerance, "{name}: {measured}, not {expected} ± {tolerance}");
}

#[test]
fn agrees_with_the_python_model() {
    // From `article_model.py`: users, mean ms, error %, answered and good per second.
    let rows =
        [(1000, 93.0, 0.0, 1000.0, 1000.0), (4000, 397.0, 5.42, 3614.0, 3418.0), (5000, 624.0, 13.74, 3958.0, 3415.0)];
    for (users, mean_ms, error_pct, answered, good) in rows {
        let ours = step(&python(), users, 1).unwrap();
        near("mean", ours.mean_ms, mean_ms, 0.04 * mean_ms);
        near("error", ours.error_pct, error_pct, 0.6);
        near("answered", ours.answered_per_s, answered, 0.015 * answered);
        near("good", ours.good_per_s, good, 0.015 * good);
    }
}

/// Figures of the article's scenario from before there was crosstalk (docs/results/article/report.json of commit 1b638dd).
#[test]
fn without_crosstalk_the_figures_are_those_of_the_linear_law() {
    for (users, answered, good, mean_ms) in [(3000, 180_012, 180_012, 185.648747), (4000, 216_780, 205_063, 389.974862)]
    {
        let ours = step(&Scenario::load("article").unwrap(), users, 1).unwrap();
        let counts = [ours.answered_per_s, ours.good_per_s].map(|per_s| (60.0 * per_s).round() as u64);
        assert_eq!(counts, [answered, good]);
        near("mean", ours.mean_ms, mean_ms, 5e-7);
    }
}

#[test]
fn crosstalk_lowers_the_rate_of_a_full_store() {
    let mut scenario = Scenario { warm_up_s: 5, measure_s: 15, ..python() };
    let linear = step(&scenario, 5000, 1).unwrap().good_per_s;
    // With 800 queries in flight 234 ms become 298 ms.
    scenario.law = Law::Modelled { base_ms: 74.0, slope_ms: 0.2, crosstalk_ms: 0.000_1, spread: 0.3 };
    let ratio = step(&scenario, 5000, 1).unwrap().good_per_s / linear;
    near("ratio", ratio, 234.0 / 297.92, 0.02);
}

#[test]
fn the_same_arguments_give_the_same_figures() {
    let scenario = python();
    assert_eq!(step(&scenario, 4000, 7), step(&scenario, 4000, 7));
    assert_ne!(step(&scenario, 4000, 7), step(&scenario, 4000, 8));
}

#[test]
fn served_oldest_first_an_overload_makes_everyone_wait() {
    let mut scenario = python();
    let newest = step(&scenario, 5000, 1).unwrap();
    scenario.store.order = Order::Oldest;
    let oldest = step(&scenario, 5000, 1).unwrap();
    assert!(oldest.mean_ms > newest.mean_ms, "{} <= {}", oldest.mean_ms, newest.mean_ms);
}

#[test]
fn a_full_line_turns_the_rest_away_at_once() {
    let mut scenario = python();
    scenario.store.max_waiting = 0;
    let ours = step(&scenario, 5000, 1).unwrap();
    near("offer", ours.answered_per_s, 5000.0, 50.0);
    assert!(ours.error_pct > 20.0, "{}", ours.error_pct);
    assert!(ours.mean_ms < 240.0, "{}", ours.mean_ms);
}

#[test]
fn a_user_gives_up_before_the_query_does() {
    let mut scenario = python();
    scenario.law = Law::Modelled { base_ms: 500.0, slope_ms: 0.0, crosstalk_ms: 0.0, spread: 0.0 };
    scenario.timeout_ms = 200;
    let ours = step(&scenario, 10, 1).unwrap();
    near("error", ours.error_pct, 100.0, 0.0);
    near("mean", ours.mean_ms, 200.0, 0.0);
}

#[test]
fn a_change_has_its_effect_and_the_default_has_none() {
    let scenario = Scenario { warm_up_s: 5, measure_s: 15, ..python() };
    let changed = |change| changed_step(&scenario, 5000, 1, change).unwrap();
    let plain = changed(Change::default());
    assert_eq!(step(&scenario, 5000, 1), Some(plain.clone()));
    let retried = changed(Change { retries: 2, ..Change::default() });
    assert!(retried.error_pct < 0.2 * plain.error_pct && retried.mean_ms > plain.mean_ms, "{retried:?}");
    near("good", retried.good_per_s, plain.good_per_s, 0.02 * plain.good_per_s);
    let burdened = changed(Change { waiting_weight: 0.1, ..Change::default() });
    assert!(burdened.good_per_s < 0.9 * plain.good_per_s, "{burdened:?}");
    let steep = changed(Change { power: 1.5, ..Change::default() });
    assert!(steep.good_per_s < 0.9 * plain.good_per_s, "800 queries in flight are more than the reference: {steep:?}");
    let half = changed(Change { store_share: 0.5, ..Change::default() });
    assert_eq!(half.error_pct, 0.0);
    near("offer", half.answered_per_s, 5000.0, 50.0);
}

#[test]
fn without_a_law_there_is_no_model() {
    let mut scenario = python();
    scenario.law = Law::None;
    assert_eq!(step(&scenario, 1000, 1), None);
}
