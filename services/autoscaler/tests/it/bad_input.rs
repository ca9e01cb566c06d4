//! What is refused, with the field named; and that no input panics.

use autoscaler::line::{self, Answer};
use proptest::prelude::*;
use serde_json::{Value, json};

fn answer(text: &[u8]) -> Result<Answer, String> {
    let case = line::parse(text).map_err(|error| error.to_string())?;
    line::answer(&case).map_err(|error| error.to_string())
}

#[test]
fn bad_lines_name_their_field() {
    for (line, expected) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("{nonsense", "key must be a string (column 2)"),
        ("[]", "expected struct Case"),
        ("{}", "missing field `id`"),
        (r#"{"id":"a","kind":"rate"} x"#, "trailing characters"),
        (r#"{"id":"a","kind":"chaos"}"#, "kind: unknown variant `chaos`"),
        (r#"{"id":"a","kind":"rate","replica":1}"#, "unknown field `replica`"),
        (r#"{"id":"a","kind":"rate","id":"b"}"#, "duplicate field `id`"),
        (r#"{"id":"a","kind":"rate","current_replicas":1.5}"#, "current_replicas: invalid type: floating point"),
        (r#"{"id":"a","kind":"rate","current_replicas":2147483648}"#, "current_replicas: invalid value"),
        (r#"{"id":"a","kind":"external","values_milli":[1,9223372036854775808]}"#, "values_milli[1]: invalid value"),
        (r#"{"id":"a","kind":"resource","tolerance_up":NaN}"#, "tolerance_up: expected value"),
        (r#"{"id":"a","kind":"resource","tolerance_up":1e999}"#, "tolerance_up: number out of range"),
        (r#"{"id":"a","kind":"rate","behavior":{"scale_up":{"window":1}}}"#, "behavior.scale_up.window: unknown field"),
        (
            r#"{"id":"a","kind":"resource","pods":[{"name":"p","phase":"Running","containers":[{"name":"c","request_milli":"2"}]}]}"#,
            "pods[0].containers[0].request_milli: invalid type: string",
        ),
    ] {
        let error = answer(line.as_bytes()).unwrap_err();
        assert!(error.contains(expected) && !error.starts_with('?'), "{line}: {error}");
    }
}

/// Sets one field of a valid case.
fn with(kind: &str, pointer: &str, value: Value) -> String {
    let mut case = match kind {
        "resource" => json!({"resource": "cpu", "current_replicas": 1, "target_utilization_percent": 70, "pods": [
            {"name": "p", "phase": "Running", "containers": [{"name": "c", "request_milli": 1}],
             "metrics": {"sampled_ms_ago": 0, "window_ms": 1, "containers": [{"name": "c", "usage_milli": 1}]}}]}),
        "external" => json!({"current_replicas": 1, "values_milli": [1], "target_value_milli": 1}),
        "rate" => {
            json!({"current_replicas": 1, "desired_replicas": 2, "max_replicas": 3, "scale_up_events": [{"ms_ago": 1, "change": 1}],
            "recommendations": [{"ms_ago": 1, "replicas": 1}],
            "behavior": {"scale_up": {"policies": [{"type": "Pods", "value": 1, "period_s": 1}]}}})
        }
        _ => {
            json!({"current_replicas": 1, "max_replicas": 3, "metrics": [{"type": "External", "name": "q", "target_value_milli": 1}],
            "steps": [{"after_ms": 1, "load": {"total_milli": 1, "request_milli": 1}}]})
        }
    };
    case["id"] = json!("x");
    case["kind"] = json!(kind);
    assert!(answer(case.to_string().as_bytes()).is_ok(), "{case}: {:?}", answer(case.to_string().as_bytes()));
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    case.pointer_mut(parent).unwrap()[field] = value;
    answer(case.to_string().as_bytes()).unwrap_err()
}

#[test]
fn values_that_cannot_be_are_refused() {
    for (kind, pointer, value, expected) in [
        ("rate", "/min_replicas", json!(4), "min_replicas: 4 is above max_replicas, which is 3"),
        ("rate", "/min_replicas", json!(-1), "min_replicas: -1 is negative"),
        ("rate", "/max_replicas", json!(0), "max_replicas: must be at least 1"),
        ("rate", "/max_replicas", json!(null), "max_replicas: is missing"),
        ("rate", "/current_replicas", json!(-1), "current_replicas: -1 is negative"),
        ("rate", "/desired_replicas", json!(-1), "desired_replicas: -1 is negative"),
        ("rate", "/behavior", json!(null), "behavior: is missing"),
        ("rate", "/behavior/scale_up/policies", json!([]), "behavior.scale_up.policies: must have at least one policy"),
        ("rate", "/behavior/scale_up/tolerance", json!(-0.1), "behavior.scale_up.tolerance: -0.1 is negative"),
        ("rate", "/behavior/scale_up/tolerance", json!(1e300), "too large"),
        ("rate", "/downscale_stabilization_ms", json!(-1), "downscale_stabilization_ms: -1 is negative"),
        ("resource", "/target_utilization_percent", json!(0), "target_utilization_percent: 0 is not positive"),
        ("resource", "/target_utilization_percent", json!(null), "target_utilization_percent: is missing"),
        ("resource", "/target_average_milli", json!(1), "target_average_milli: stands beside"),
        ("resource", "/resource", json!(null), "resource: is missing"),
        ("resource", "/tolerance_down", json!(-1), "tolerance_down: -1 is negative"),
        ("resource", "/cpu_initialization_period_ms", json!(-1), "cpu_initialization_period_ms: -1 is negative"),
        ("resource", "/pods/0/metrics/window_ms", json!(-1), "pods[0].metrics.window_ms: -1 is negative"),
        (
            "resource",
            "/pods/0/containers/0/request_milli",
            json!(-1),
            "pods[0].containers[0].request_milli: -1 is negative",
        ),
        ("external", "/status_replicas", json!(-1), "status_replicas: -1 is negative"),
        ("external", "/target_value_milli", json!(-5), "target_value_milli: -5 is not positive"),
        ("reconcile", "/metrics/0/name", json!(null), "metrics[0].name: is missing"),
        ("reconcile", "/metrics/0/type", json!("ContainerResource"), "metrics[0].container: is missing"),
        ("reconcile", "/metrics/0/type", json!("Pods"), "metrics[0].type: unknown variant `Pods`"),
        ("reconcile", "/steps/0/after_ms", json!(-1), "steps[0].after_ms: -1 is negative"),
        ("reconcile", "/steps/0/set_replicas", json!(-1), "steps[0].set_replicas: -1 is negative"),
        ("reconcile", "/steps/0/set_min_replicas", json!(4), "steps[0].set_min_replicas: 4 is above"),
        ("reconcile", "/steps/0/load/total_milli", json!(-1), "steps[0].load.total_milli: -1 is negative"),
        ("reconcile", "/steps/0/set_replicas", json!(2_000_000_000), "steps[0].load.total_milli: would be spread over"),
    ] {
        let error = with(kind, pointer, value.clone());
        assert!(error.contains(expected), "{kind} {pointer} {value}: {error}");
    }
    let rate = |field: &str, value| with("rate", &format!("/behavior/scale_up/policies/0/{field}"), value);
    assert!(rate("period_s", json!(-1)).contains("policies[0].period_s: -1 is negative"));
    assert!(rate("value", json!(-1)).contains("policies[0].value: -1 is negative"));
    assert!(with("rate", "/scale_up_events/0/change", json!(-1)).contains("scale_up_events[0].change: -1 is negative"));
    assert!(with("rate", "/recommendations/0/replicas", json!(-1)).contains("recommendations[0].replicas"));
    let twice = json!([{"name": "p", "phase": "Running"}, {"name": "p", "phase": "Running"}]);
    assert!(with("resource", "/pods", twice).contains(r#"pods[1].name: "p" is there twice"#));
}

/// Numbers where arithmetic breaks.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(i64::MAX),
        Just(i64::MIN),
        Just(i64::from(i32::MAX)),
        Just(i64::from(i32::MIN)),
        -2_i64..200,
        any::<i64>(),
    ]
}

fn pod() -> impl Strategy<Value = Value> {
    let phase = prop::sample::select(vec!["Running", "Pending", "Failed", "Succeeded", "Unknown"]);
    let ready = prop::sample::select(vec![json!("True"), json!("False"), json!("Unknown"), json!(null)]);
    (phase, ready, prop::collection::vec(number(), 7), any::<[bool; 3]>()).prop_map(|(phase, ready, numbers, flags)| {
        json!({"name": numbers[0].to_string(), "phase": phase, "deleted": flags[0], "ready": ready,
            "started_ms_ago": numbers[1], "ready_changed_ms_ago": numbers[2],
            "containers": [{"name": "app", "request_milli": numbers[3].max(0), "sidecar": flags[1]}],
            "metrics": if flags[2] { json!(null) } else { json!({"sampled_ms_ago": numbers[4], "window_ms": numbers[5].max(0),
                "containers": [{"name": "app", "usage_milli": numbers[6]}]}) }})
    })
}

fn rules() -> impl Strategy<Value = Value> {
    let select = prop::sample::select(vec![json!("Max"), json!("Min"), json!("Disabled"), json!(null)]);
    let kind = prop::sample::select(vec!["Pods", "Percent"]);
    (select, kind, 0..=i32::MAX, 0..=i32::MAX, 0..=i32::MAX).prop_map(|(select, kind, value, period, window)| {
        json!({"select_policy": select, "stabilization_window_s": window,
            "policies": [{"type": kind, "value": value, "period_s": period}]})
    })
}

fn counts() -> impl Strategy<Value = Vec<i32>> {
    prop::collection::vec(prop_oneof![0..30, Just(i32::MAX), 0..=i32::MAX], 10)
}

fn case() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec!["resource", "external", "stabilize", "rate", "normalize", "reconcile"]);
    let pods = prop::collection::vec(pod(), 0..4);
    let behavior = prop_oneof![
        Just(json!(null)),
        (rules(), rules()).prop_map(|(up, down)| json!({"scale_up": up, "scale_down": down}))
    ];
    let numbers = prop::collection::vec(number(), 12);
    (kind, pods, behavior, numbers, counts()).prop_map(|(kind, pods, behavior, numbers, counts)| {
        let (small, large) = (counts[2].min(counts[3]), counts[2].max(counts[3]).max(1));
        let target = numbers[0].max(1);
        let mut case = json!({"id": "x", "kind": kind, "resource": if counts[0] % 2 == 0 { "cpu" } else { "memory" },
            "current_replicas": counts[0], "desired_replicas": counts[1], "status_replicas": counts[4],
            "min_replicas": small, "max_replicas": large, "behavior": behavior, "values_milli": numbers[5..8],
            "downscale_stabilization_ms": numbers[8].max(0), "cpu_initialization_period_ms": numbers[9].max(0),
            "initial_readiness_delay_ms": numbers[10].max(0),
            "recommendations": [{"ms_ago": numbers[1], "replicas": counts[5]}],
            "scale_up_events": [{"ms_ago": numbers[2], "change": counts[6]}, {"ms_ago": numbers[3], "change": counts[7]}],
            "scale_down_events": [{"ms_ago": numbers[4], "change": counts[8]}],
            "metrics": [{"type": "Resource", "target_average_milli": target}, {"type": "External", "name": "q", "target_value_milli": target}],
            "steps": [{"after_ms": numbers[11].max(0), "pods": pods, "external_milli": {"q": numbers[5..8]}},
                      {"after_ms": numbers[11].max(0), "set_replicas": counts[9], "pods": pods}],
            "pods": pods});
        match (kind, counts[0] % 3) {
            ("resource", 0) => case["target_average_milli"] = json!(target),
            ("resource", _) => case["target_utilization_percent"] = json!(counts[9].max(1)),
            ("external", 0) => case["target_average_milli"] = json!(target),
            _ => case["target_value_milli"] = json!(target),
        }
        case
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = answer(&bytes);
    }

    #[test]
    fn no_damaged_case_panics(case in case(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = case.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = answer(&bytes);
    }

    #[test]
    fn no_numbers_panic_and_each_valid_case_is_answered(case in case()) {
        match answer(case.to_string().as_bytes()) {
            Ok(answer) => prop_assert!(serde_json::to_string(&answer).is_ok()),
            Err(error) => prop_assert!(error.contains("twice") || error.contains("behavior: is missing"), "{error}"),
        }
    }

    /// Also in the controller, twice a count above 2^30 does not fit: it is left out.
    #[test]
    fn a_step_stays_within_the_limits(case in case()) {
        let mut case = case;
        case["kind"] = json!("reconcile");
        let Ok(answer) = answer(case.to_string().as_bytes()) else { return Ok(()) };
        let (min, max) = (case["min_replicas"].as_i64().unwrap(), case["max_replicas"].as_i64().unwrap());
        for step in answer.steps.unwrap() {
            let moved = step.replicas != step.replicas_before && step.replicas_before < 1 << 30;
            prop_assert!(!moved || (min..=max).contains(&i64::from(step.replicas)), "{step:?}");
        }
    }
}
