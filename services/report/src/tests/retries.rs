//! The figures of retries: shown only where there are any, and counted as tries.

use super::*;
use crate::counts::{Counts, GatewayCounts, RequestCounts, Tries};

fn with_retries() -> Report {
    let mut report = sample::report();
    report.scenario.retries = "at most 4 tries of at most 1000 ms each".into();
    for step in &mut report.steps {
        step.retries = Some(RetryFigures {
            first_tries: 1000,
            retries: 875,
            tries_per_request: Some(1.875),
            budget_spent: 4321,
            throttled: 0,
            zombie_share: Some(0.625),
        });
    }
    report
}

#[test]
fn retries_are_shown_only_if_the_scenario_has_them() {
    let shown = |report: &Report| [html::render(report), markdown::render(report)];
    assert!(shown(&sample::report()).iter().all(|text| !text.contains("etries") && !text.contains("ombie")));
    for text in shown(&with_retries()) {
        for part in ["at most 4 tries", "tries per request", "goodput/s", "1.88", "4,321", "62.5"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn figures_without_retries_are_written_as_before() {
    let text = serde_json::to_string(&sample::report()).unwrap();
    assert!(!text.contains("retr") && !text.contains("crosstalk"), "{text}");
}

#[test]
fn every_try_is_counted() {
    let unexplained = |requests, tries| {
        let generator = RequestCounts { requests, tries, ..RequestCounts::default() };
        let gateway = GatewayCounts { generator: requests, attempts: requests, ..GatewayCounts::default() };
        let counts = Counts { generator, gateway, ..Counts::default() };
        let links = counts.links();
        links.iter().find(|link| link.name == "first tries + retries = load generator").map(|link| link.unexplained())
    };
    assert_eq!(unexplained(187, Some(Tries { first: 100, retries: 87 })), Some(0));
    assert_eq!(unexplained(187, Some(Tries { first: 100, retries: 88 })), Some(1));
    assert_eq!(unexplained(187, None), None, "without retries there is nothing to compare");
}
