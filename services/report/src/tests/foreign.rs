//! The report of a load on somebody else's endpoint.

use super::*;
use crate::{TargetInfo, diff, to_json};

/// One step of a service that has no store, no cache and no guards that this program knows.
fn report() -> Report {
    let sample = sample::report();
    let step = sample.steps[0].clone();
    let target = TargetInfo {
        url: "http://example.org/items?id={id}".into(),
        addresses: vec!["192.0.2.1:80".into()],
        remote: true,
        ids: "500 of ids.txt, in shuffled order, again from the start when all were used".into(),
    };
    let step = Step {
        profile: "target".into(),
        foreign: true,
        store_timeouts: 0,
        store_queries_per_request: 0.0,
        store_share: 0.0,
        hit_ratio: None,
        bloom_rejections: 0,
        bloom_rejections_per_request: 0.0,
        known_personal_pct: None,
        known_good_per_s: None,
        sources: Sources::default(),
        gateway_mean_ms: None,
        store_upstream_mean_ms: None,
        cpu: [("load".to_owned(), 0.1)].into(),
        rss_mb: [].into(),
        article: None,
        model: None,
        time_spent: None,
        ..step
    };
    let mut report = Report {
        scenario: ScenarioInfo {
            name: "target".into(),
            steps: vec![step.users],
            target: Some(target),
            ..sample.scenario
        },
        law: Law::None,
        versions: [("testbed".to_owned(), "0.1.0".to_owned())].into(),
        profiles: vec!["target".into()],
        steps: vec![step],
        waterfalls: Vec::new(),
        remarks: Vec::new(),
        ..sample
    };
    report.conclude(None);
    report
}

fn rendered(report: &Report) -> [String; 3] {
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    [html::render(report), markdown::render(report), terminal::render(report, false)].map(words)
}

#[test]
fn what_only_our_own_stack_has_is_left_out() {
    for shown in rendered(&report()) {
        let own = [
            "Store",
            "store",
            "Cache hits",
            "Bloom",
            "of recommendations",
            "Known users",
            "Answers by source",
            "Gateway",
        ];
        for word in own {
            // The page's style sheet and the meaning of "good" name none of these.
            assert!(!shown.contains(word), "{word} is in\n{shown}");
        }
        assert!(shown.contains("Mean latency, ms") && shown.contains("holds every step"), "{shown}");
    }
}

#[test]
fn the_conditions_say_what_was_loaded_and_whose_machine_it_is() {
    let mut report = report();
    let [page, text, table] = rendered(&report);
    for shown in [&page, &text, &table] {
        assert!(shown.contains("example.org/items?id=") && shown.contains("on another machine"), "{shown}");
        assert!(shown.contains("500 of ids.txt"), "{shown}");
    }
    assert!(page.contains("192.0.2.1:80") && text.contains("192.0.2.1:80"));
    if let Some(target) = &mut report.scenario.target {
        target.remote = false;
    }
    assert!(rendered(&report).iter().all(|shown| shown.contains("shares the CPU with the load generator")));
}

#[test]
fn json_has_no_zero_for_what_is_not_known_and_can_be_read_again() {
    let (mut report, folder) = (report(), tempfile::tempdir().expect("folder"));
    let attempt = Step { valid: false, ..report.steps[0].clone() };
    report.steps[0].discarded = vec![attempt];
    write_report(&report, folder.path()).expect("written");
    let text = std::fs::read_to_string(folder.path().join("report.json")).expect("report.json");
    for name in ["store_timeouts", "store_queries_per_request", "store_share", "bloom_rejections", "sources"] {
        assert!(!text.contains(&format!("\"{name}")), "{name}");
    }
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(super::json_schema::problems_of(&json), [""; 0]);
    let Document::Evaluation(read) = Document::load(&folder.path().join("report.json")).expect("a report") else {
        panic!("not the report of an experiment")
    };
    assert_eq!((read.steps[0].foreign, read.steps[0].discarded.len()), (true, 1));
    assert_eq!(read.scenario, report.scenario);
    // Our own stack has them, also where they are 0.
    let own = to_json(&sample::report()).expect("JSON");
    assert!(own["steps"][0]["store_timeouts"].is_u64() && own["steps"][0].get("foreign").is_none());
}

#[test]
fn a_diff_has_no_figure_for_what_is_not_known() {
    let found = diff::diff(&report(), &report(), &[]);
    let value = |key: &str| found.changes.iter().find(|change| change.key == key).and_then(|change| change.before);
    assert_eq!((value("store_queries_per_request"), value("mean_ms")), (None, Some(report().steps[0].mean_ms)));
}
