use super::*;
use crate::{
    arrivals::{Arrivals, Open, Spacing},
    curve::{Curve, Point},
};

/// Summaries of k6 1.8.1 as the script wrote them: four users, five requests a second each, three seconds. The server behind it
/// answered one id 503, one 502, and one too late.
const CLOSED: &str = include_str!("../../k6/recorded-closed.json");
const OPEN: &str = include_str!("../../k6/recorded-open.json");

fn plan() -> StepPlan {
    StepPlan {
        name: "recorded".into(),
        users: 4,
        interval_ms: 200,
        timeout_ms: 300,
        warm_up_ms: 1000,
        measure_ms: 3000,
        unknown_share: 0.3,
        ..crate::plan::tests::plan()
    }
}

#[test]
fn a_closed_run_is_read() {
    let K6Outcome { step, dropped_iterations } = outcome(&plan(), CLOSED).unwrap();
    // Four users × fifteen instants, none missed.
    assert_eq!((step.sent, step.answered, step.good, step.skipped, dropped_iterations), (60, 60, 58, 0, 0));
    assert_eq!((step.offered_per_s, step.answered_per_s), (20.0, 20.0));
    let errors: Vec<(&str, u64)> = step.errors.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(errors, [("bad_status", 1), ("store-checkout-timeout", 1)]);
    assert!((step.error_pct - 100.0 * 2.0 / 60.0).abs() < 1e-9);
    assert_eq!((step.known_answered, step.known_sources.cache, step.unknown_sources.popular), (45, 43, 15));
    assert!((step.known_personal_pct.unwrap() - 100.0 * 43.0 / 45.0).abs() < 1e-9);
    assert!((step.latency.mean_ms - 1.5346787).abs() < 1e-6 && (step.latency.max_ms - 2.72176).abs() < 1e-6);
    assert!(step.latency.p50_ms < step.latency.p99_ms && step.send_lag.p99_ms == 1.0);
    assert_eq!((step.started_ms, step.ended_ms), (1_795_575_015_773, 1_795_575_018_773));
}

#[test]
fn an_open_run_is_read_and_drops_are_told() {
    let K6Outcome { step, dropped_iterations } = outcome(&plan(), OPEN).unwrap();
    assert_eq!((step.sent, step.answered, step.good, dropped_iterations), (60, 60, 56, 0));
    assert_eq!(step.errors["client_timeout"], 4);
    assert!((step.latency.p99_ms - 300.7).abs() < 0.1, "a timeout's latency is the timeout's");
    let mut dropped: serde_json::Value = serde_json::from_str(OPEN).unwrap();
    dropped["metrics"]["dropped_iterations"]["values"]["count"] = 7.into();
    assert_eq!(outcome(&plan(), &dropped.to_string()).unwrap().dropped_iterations, 7);
}

#[test]
fn nothing_measured_is_nothing_and_anything_else_is_refused() {
    let empty = outcome(&plan(), r#"{"metrics": {}, "setup_data": {"start": 5000}}"#).unwrap().step;
    assert_eq!((empty.answered, empty.error_pct, empty.known_personal_pct, empty.started_ms), (0, 0.0, None, 6000));
    assert!(empty.latency_curve.is_empty());
    for bad in ["", "{}", "[]", r#"{"metrics": {"sent": 3}, "setup_data": {"start": 1}}"#, r#"{"metrics": {}}"#] {
        assert!(outcome(&plan(), bad).unwrap_err().to_string().contains("summary cannot be parsed"), "{bad}");
    }
}

#[test]
fn the_start_is_found_in_what_k6_prints() {
    let line = "time=\"2026-11-25T02:50:13Z\" level=info msg=\"testbed start_ms=1795575014773\" source=console\n";
    assert_eq!(start_ms(&format!("something\n{line}")), Some(1_795_575_014_773));
    assert_eq!(start_ms("msg=\"testbed start_ms=17955"), None, "not all of it may have been written");
    assert_eq!(start_ms("testbed start_ms=x"), None);
    assert_eq!(start_ms(""), None);
}

/// The script is JavaScript: that both sides mean the same names can only be looked up.
#[test]
fn the_script_knows_what_it_is_told() {
    let order = K6Plan::new(plan(), Pacing::Closed, Path::new("/tmp/summary.json")).unwrap();
    let json = serde_json::to_value(&order).unwrap();
    assert_eq!(json["pacing"], "closed");
    for key in json.as_object().unwrap().keys() {
        assert!(SCRIPT.contains(&format!("order.{key}")), "{key}");
    }
    let unused = ["name", "worker_threads"];
    for key in json["step"].as_object().unwrap().keys().filter(|key| !unused.contains(&key.as_str())) {
        assert!(SCRIPT.contains(&format!("plan.{key}")), "{key}");
    }
    for class in ["client_timeout", "connect", "connection_reset", "bad_body", "bad_status"] {
        assert!(SCRIPT.contains(&format!("'{class}'")) && order.classes.iter().any(|c| c == class), "{class}");
    }
    assert!(SCRIPT.contains("dropped_iterations: ['count==0']"));
    let curve = Curve::new(vec![Point { at_ms: 0, users: 4 }]).unwrap();
    let cannot = [StepPlan { curve: Some(curve), ..plan() }, StepPlan { slo_ms: Some(100), ..plan() }];
    let open = Open { spacing: Spacing::Poisson, max_in_flight: 10, curve: None };
    let cannot = cannot.into_iter().chain([StepPlan { arrivals: Arrivals::Open(open), ..plan() }]);
    for (step, word) in cannot.into_iter().zip(["a curve", "slo_ms"]) {
        let error = K6Plan::new(step, Pacing::Closed, Path::new("x")).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("use the engine goose"), "{error}");
    }
}
