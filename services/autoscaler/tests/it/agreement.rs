//! Cases with the answers of Kubernetes v1.37.2's own code (`pkg/controller/podautoscaler`) on a frozen clock.
//!
//! `upstream/` restates the cases of its `replica_calculator_test.go` and `horizontal_test.go`, named as there; object metrics became
//! external ones with the same arithmetic, and an earlier step stands for a condition that a test sets. `traps` has the traps that
//! people report. `random` is a sample of the random cases that both were asked.

use std::collections::BTreeSet;

use autoscaler::{ConditionType, line};
use serde_json::Value;

const UPSTREAM: [&str; 2] =
    [include_str!("../data/upstream/replica_calculator.ndjson"), include_str!("../data/upstream/horizontal.ndjson")];
const TRAPS: &str = include_str!("../data/traps.ndjson");
const RANDOM: &str = include_str!("../data/random.ndjson");

/// Words are ours.
fn without_words(mut answer: Value) -> Value {
    if let Some(fields) = answer.as_object_mut() {
        fields.remove("explain");
        fields.remove("error_text");
    }
    for step in answer.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
        step.as_object_mut().unwrap().remove("error_text");
    }
    answer
}

/// How many cases there are; all agree.
fn agree(lines: &str) -> usize {
    let mut different = Vec::new();
    for text in lines.lines() {
        let row: Value = serde_json::from_str(text).unwrap();
        let case = line::parse(row["case"].to_string().as_bytes()).unwrap();
        let ours = without_words(serde_json::to_value(line::answer(&case).unwrap()).unwrap());
        if ours != row["answer"] {
            different.push(format!("{}\n  ours {ours}\n  real {}", case.id, row["answer"]));
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
    lines.lines().count()
}

#[test]
fn the_cases_of_upstreams_tests_have_upstreams_answers() {
    assert_eq!(UPSTREAM.map(agree), [79, 128]);
}

#[test]
fn each_trap_is_answered_as_upstream_does() {
    let count = agree(TRAPS);
    for trap in 1..=14 {
        assert!(TRAPS.contains(&format!("\"trap {trap}: ")), "trap {trap}; 15 is in article.rs");
    }
    assert!(count > 40, "{count}");
}

#[test]
fn random_cases_have_upstreams_answers() {
    assert!(agree(RANDOM) >= 300);
}

/// Real answers name no reason that `ConditionType::reasons` lacks: who shows reasons as series has all of them from the start.
#[test]
fn the_reasons_of_conditions_are_known() {
    let mut seen = BTreeSet::new();
    for text in UPSTREAM.into_iter().chain([TRAPS, RANDOM]).flat_map(str::lines) {
        let row: Value = serde_json::from_str(text).unwrap();
        let steps = row["answer"]["steps"].as_array().into_iter().flatten();
        for (kind, shown) in steps.chain([&row["answer"]]).filter_map(|of| of["conditions"].as_object()).flatten() {
            let reason = shown.as_str().unwrap().split_once('/').unwrap().1;
            let condition = ConditionType::ALL.into_iter().find(|condition| condition.name() == kind).unwrap();
            assert!(condition.reasons().contains(&reason), "{kind}: {reason}");
            seen.insert(reason.to_owned());
        }
    }
    let all: BTreeSet<String> =
        ConditionType::ALL.iter().flat_map(|kind| kind.reasons()).map(|&reason| reason.into()).collect();
    // Each step has another reason by its end.
    let expected = all.into_iter().filter(|reason| *reason != "SucceededGetScale" || seen.contains(reason));
    assert_eq!(expected.collect::<BTreeSet<_>>(), seen);
}

/// A case that was read and written again is the same: reports can be replayed.
#[test]
fn cases_can_be_written_again() {
    for text in UPSTREAM.into_iter().chain([TRAPS, RANDOM]).flat_map(str::lines) {
        let row: Value = serde_json::from_str(text).unwrap();
        let case = line::parse(row["case"].to_string().as_bytes()).unwrap();
        let again = serde_json::to_vec(&case).unwrap();
        assert_eq!(line::parse(&again).unwrap(), case);
    }
}
