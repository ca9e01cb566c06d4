use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};
use serde_json::json;

use super::*;
use crate::{
    Manifest, Tolerances, sample,
    schema::{ModelFigures, RetryFigures, Second, Sources},
};

const FILE: &str = "baseline-100-1.hlog";

/// 100 requests in two seconds: 1 to 100 ms, of which the slowest ten failed.
fn log() -> String {
    let histogram = |up_to: u64| {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
        (1..=up_to).for_each(|ms| histogram.record(ms * 1000).unwrap());
        histogram
    };
    let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder.with_start_time(UNIX_EPOCH).with_max_value_divisor(1000.0);
    let mut writer = builder.begin_log_with(&mut text, &mut serializer).unwrap();
    for (tag, up_to) in [("all", 100), ("good", 90), ("corrected", 100)] {
        let second = Duration::from_secs(1);
        writer.write_histogram(&histogram(up_to), second, 2 * second, Tag::new(tag)).unwrap();
    }
    drop(writer);
    String::from_utf8(text).unwrap()
}

/// The step of this log, with figures as the load generator computes them.
fn step() -> Step {
    let log = HistogramLog::parse(&log()).unwrap();
    let latency = log.all.latency;
    let second =
        |second, good, errors| Second { second, sent: 50, good, errors, retries: Some(10), ..Second::default() };
    Step {
        profile: "baseline".into(),
        users: 50,
        repeat: 1,
        valid: true,
        seed: Some(statistics::seed::of_step(7, 1, 0)),
        offered_per_s: 50.0,
        sent_per_s: 50.0,
        answered_per_s: 50.0,
        good_per_s: 45.0,
        mean_ms: latency.mean_ms,
        p50_ms: latency.p50_ms,
        p90_ms: latency.p90_ms,
        p99_ms: latency.p99_ms,
        p999_ms: latency.p999_ms,
        max_ms: latency.max_ms,
        corrected: Some(log.corrected.unwrap().latency),
        samples: Some(100),
        error_pct: 10.0,
        errors: [("store-checkout-timeout".to_owned(), 8), ("client-timeout".to_owned(), 2)].into(),
        store_timeouts: 8,
        sources: Sources { cache: 40, store: 30, popular: 20, stale: 0 },
        scheduling: Some(crate::Scheduling::default()),
        // Without figures of the article or the model nothing is judged.
        model: Some(ModelFigures { mean_ms: 50.0, error_pct: 10.0, answered_per_s: 50.0, good_per_s: 45.0 }),
        retries: Some(RetryFigures {
            first_tries: 100,
            retries: 20,
            tries_per_request: Some(1.2),
            ..RetryFigures::default()
        }),
        series: vec![second(0, 50, 0), second(1, 40, 10)],
        latency_curve: log.all.curve,
        hdr_log: Some(FILE.into()),
        ..Step::default()
    }
}

fn report() -> Report {
    let manifest = Manifest { tolerances: Some(Tolerances::default()), ..Manifest::default() };
    let mut report = Report { steps: vec![step()], seed: Some(7), manifest: Some(manifest), ..sample::report() };
    report.conclude(Some(&Tolerances::default()));
    report
}

fn checked(report: Report, recorded: Option<&[Step]>) -> Checked {
    let document = Document::Evaluation(Box::new(report));
    check(&document, |name| (name == FILE).then(log).context("no such file"), recorded).unwrap()
}

/// The report after it was written, with one value changed, and read again.
fn changed(pointer: &str, value: Value) -> Report {
    let mut json = serde_json::to_value(report()).unwrap();
    *json.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_report_that_follows_from_its_logs_passes() {
    let steps = [step()];
    let checked = checked(report(), Some(&steps));
    assert_eq!(checked.differences, []);
    assert_eq!(checked.compared.len(), 5, "{:?}", checked.compared);
    assert!(
        checked.render().contains("✓ no figure differs") && checked.render().contains("not computed again: send_lag")
    );
}

#[test]
fn each_changed_figure_is_found() {
    let cases = [
        ("mean_ms", json!(40.0)),
        ("p50_ms", json!(49.0)),
        ("p90_ms", json!(89.0)),
        ("p99_ms", json!(98.0)),
        ("p999_ms", json!(99.0)),
        ("max_ms", json!(101.0)),
        ("corrected/p99_ms", json!(98.0)),
        ("samples", json!(101)),
        ("answered_per_s", json!(51.0)),
        ("good_per_s", json!(45.1)),
        ("offered_per_s", json!(49.0)),
        ("sent_per_s", json!(49.0)),
        ("error_pct", json!(9.0)),
        ("errors/client-timeout", json!(3)),
        ("store_timeouts", json!(9)),
        ("sources/store", json!(31)),
        ("retries/first_tries", json!(99)),
        ("retries/retries", json!(21)),
        ("retries/tries_per_request", json!(1.1)),
        ("series/1/retries", json!(11)),
        ("series/0/good", json!(51)),
        ("latency_curve/2/1", json!(1.0)),
        ("valid", json!(false)),
        ("seed", json!(8)),
    ];
    for (figure, value) in cases {
        let found = checked(changed(&format!("/steps/0/{figure}"), value), None).differences;
        assert!(found.iter().any(|one| one.place.starts_with("baseline 50, repeat 1")), "{figure}: {found:?}");
    }
    for (pointer, value, place) in [
        ("/knees/0/why", json!("no reason"), "knees"),
        ("/verdicts/0/passed", json!(false), "verdict \"Baseline steps are valid\""),
        ("/law/base_ms", json!(60.0), "law"),
    ] {
        let found = checked(changed(pointer, value), None).differences;
        assert_eq!(found.len(), 1, "{pointer}: {found:?}");
        assert_eq!(found[0].place, place);
    }
}

#[test]
fn figures_without_a_log_are_compared_with_the_recorded_steps() {
    let steps = [step()];
    let found = checked(changed("/steps/0/send_lag_p99_ms", json!(1.5)), Some(&steps)).differences;
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (one.figure.as_str(), one.reported.as_str(), one.recomputed.as_str()),
        ("send_lag_p99_ms", "1.5", "0.0")
    );
    let missing = checked(report(), Some(&[])).differences;
    assert_eq!((missing.len(), missing[0].place.as_str()), (1, "steps"));
}

#[test]
fn a_missing_verdict_is_found() {
    let mut report = report();
    report.verdicts.remove(0);
    let found = checked(report, None).differences;
    assert_eq!((found.len(), found[0].figure.as_str()), (1, "Baseline steps are valid"));
}

#[test]
fn a_missing_or_damaged_log_is_an_error_that_names_it() {
    let document = Document::Evaluation(Box::new(report()));
    let error = |text: Result<String>| {
        let text = std::cell::RefCell::new(Some(text));
        format!("{:#}", check(&document, |_| text.take().unwrap(), None).unwrap_err())
    };
    let missing = error(Err(anyhow::anyhow!("no such file")));
    assert!(missing.contains(FILE) && missing.contains("baseline 50, repeat 1: no such file"), "{missing}");
    let text = log();
    let half: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    for damaged in
        [String::new(), "not a log".into(), half, text.replace("HIST", "HiST"), text[..text.len() - 20].into()]
    {
        let error = error(Ok(damaged.clone()));
        assert!(error.contains(FILE), "{damaged:?}: {error}");
    }
}

#[test]
fn steps_without_a_log_are_listed() {
    let mut report = report();
    report.steps[0].hdr_log = None;
    let found = checked(report, None);
    assert!(found.not_recomputed.contains(&"baseline 50, repeat 1: it has no histogram log".to_owned()));
    let findings = Document::Experiment(Box::new(sample::plain_findings()));
    assert!(check(&findings, |_| Ok(log()), None).is_err());
}
