//! How requests arrived, what was dropped, and the skip-corrected latency.

use super::*;

fn rendered(report: &Report) -> [String; 3] {
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    [html::render(report), markdown::render(report), terminal::render(report, false)].map(words)
}

#[test]
fn each_report_says_how_requests_arrived() {
    let mut report = sample::report();
    let closed = "Arrivals are closed: each of the users waits for its answer before it sends again.";
    assert!(rendered(&report).iter().all(|text| text.contains(closed)));
    // From before open arrivals.
    report.scenario.arrivals = String::new();
    assert!(rendered(&report).iter().all(|text| text.contains(closed)));
    report.scenario.arrivals = "open, Poisson: at most 10 in flight".into();
    assert!(rendered(&report).iter().all(|text| text.contains("Arrivals are open, Poisson: at most 10 in flight.")));
}

#[test]
fn good_answers_are_compared_with_the_plan() {
    let mut report = sample::report();
    for step in &mut report.steps {
        (step.good_per_s, step.dropped) = (step.offered_per_s * 0.375, 1234);
    }
    let [page, text, table] = rendered(&report);
    for shown in [&page, &text, &table] {
        assert!(shown.contains("Good of offered, %") && shown.contains("37.5"), "{shown}");
    }
    assert!([page, text].iter().all(|shown| shown.contains("Dropped arrivals") && shown.contains("1,234")));
}

#[test]
fn skip_corrected_latency_stands_beside_the_measured_one() {
    assert!(rendered(&sample::report()).iter().all(|text| !text.contains("Skip-corrected")));
    let [page, text, _] = rendered(&sample::with_extras());
    for shown in [page, text] {
        assert!(shown.contains("Skip-corrected latency, ms") && shown.contains("mean corrected"), "{shown}");
    }
}
