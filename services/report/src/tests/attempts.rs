//! Steps that were measured again: every measurement is in the report, folded where people read it.

use super::{html_page::check_nesting, json_schema, *};
use crate::Scheduling;

/// One baseline step was measured three times, and the kernel's accounts of it are known.
fn measured_again() -> Report {
    let mut report = sample::report();
    let last = report.steps.iter_mut().find(|s| s.profile == "baseline" && s.users == 5000).expect("such a step");
    let attempt = |n: u32, reason: &str, mean_ms: f64| Step {
        valid: false,
        invalid_reasons: vec![reason.into()],
        mean_ms,
        hdr_log: Some(format!("baseline-5000-1.attempt{n}.hlog")),
        ..last.clone()
    };
    let (first, second) = (attempt(1, "send lag <10>", 1234.0), attempt(2, "95 % CPU", 2345.0));
    *last = last.clone().after(second.after(first));
    last.scheduling = Some(Scheduling {
        run_queue_ms_per_s: [("load".to_owned(), 12.5)].into(),
        generator_wait_ms: Some(0.05),
        quota_cores: [("load".to_owned(), 2.0)].into(),
        throttled_ms: [("load".to_owned(), 0.0)].into(),
        policy: [("load".to_owned(), "SCHED_BATCH, nice -10".to_owned())].into(),
        nice_granted: Some(false),
    });
    report.conclude(Some(&Tolerances::default()));
    report
}

#[test]
fn a_step_measured_again_says_so_and_why() {
    let report = measured_again();
    let told: Vec<_> = report.remarks.iter().filter(|r| r.starts_with("Measured again")).collect();
    assert_eq!(told.len(), 1, "{:?}", report.remarks);
    assert!(told[0].contains("baseline at 5,000 requests/s (send lag <10>, then 95 % CPU)"), "{told:?}");
    let step = report.steps.iter().find(|s| !s.discarded.is_empty()).expect("one was measured again");
    let means: Vec<f64> = step.discarded.iter().map(|attempt| attempt.mean_ms).collect();
    assert_eq!((means, step.valid), (vec![1234.0, 2345.0], true));
    assert!(step.discarded.iter().all(|attempt| attempt.discarded.is_empty()));
    assert!(report.verdicts.iter().all(|v| v.passed == Some(true)), "only the last measurement is judged");
}

#[test]
fn every_attempt_is_published_and_folded() {
    let report = measured_again();
    let page = html::render(&report);
    check_nesting(&page);
    assert!(page.contains("<details><summary>Attempts</summary>"), "{page}");
    for cell in ["1,234", "2,345", "send lag &lt;10&gt;", "baseline-5000-1.attempt2.hlog", "SCHED_BATCH, nice -10"] {
        assert!(page.contains(cell), "{cell}");
    }
    let text = markdown::render(&report);
    assert!(text.contains("<details><summary>Attempts</summary>\n\n"), "{text}");
    assert!(text.contains("| baseline 5000 (1) | 2 |") && text.contains("| 2,345 |"), "{text}");
    let terminal = terminal::render(&report, false);
    assert!(terminal.contains("2 measurements were not valid"), "{terminal}");
    let plain = [html::render(&sample::report()), markdown::render(&sample::report())];
    assert!(plain.iter().all(|page| !page.contains("Attempts")));
}

#[test]
fn the_schema_knows_the_attempts() {
    let report = serde_json::to_value(measured_again()).expect("JSON");
    assert_eq!(json_schema::problems_of(&report), [""; 0]);
    let mut broken = report;
    let steps = broken["steps"].as_array_mut().expect("steps");
    let step = steps.iter_mut().find(|step| step.get("discarded").is_some()).expect("one was measured again");
    step["discarded"][0] = "95 % CPU".into();
    assert!(!json_schema::problems_of(&broken).is_empty());
}

#[test]
fn reports_of_earlier_versions_keep_the_reasons() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("report.json");
    let mut old = serde_json::to_value(sample::report()).expect("JSON");
    old["schema_version"] = 2.into();
    old["steps"][0]["discarded"] = serde_json::json!(["95 % CPU is above 90 %", "send lag"]);
    std::fs::write(&path, old.to_string()).expect("written");
    let report = Document::load(&path).expect("read").into_steps().expect("steps");
    let reasons: Vec<_> = report.steps[0].discarded.iter().map(|attempt| attempt.invalid_reasons.join("; ")).collect();
    assert_eq!(reasons, ["95 % CPU is above 90 %", "send lag"]);
    let text = markdown::render(&report);
    assert!(text.contains("| 1 | – | – |"), "their figures were not kept: {text}");

    old["schema_version"] = 3.into();
    std::fs::write(&path, old.to_string()).expect("written");
    assert!(format!("{:#}", Document::load(&path).expect_err("a text is no step")).contains("no report"));
    old["schema_version"] = 4.into();
    std::fs::write(&path, old.to_string()).expect("written");
    let error = format!("{:#}", Document::load(&path).expect_err("of a later version"));
    assert!(error.contains("version is 4") && error.contains("up to 3") && error.contains("revision.git"), "{error}");
}
