//! Knees and verdicts.

use super::*;
use crate::analysis::{StepState, over_repeats, step_state};

fn concluded(change: impl FnOnce(&mut Report)) -> Report {
    let mut report = sample::report();
    change(&mut report);
    report.conclude(Some(&Tolerances::default()));
    report
}

fn step<'a>(report: &'a mut Report, profile: &str, users: u32) -> &'a mut Step {
    report.steps.iter_mut().find(|s| s.profile == profile && s.users == users).expect("a step of the sample")
}

fn verdict<'a>(report: &'a Report, name: &str) -> &'a Verdict {
    report.verdicts.iter().find(|v| v.name.contains(name)).unwrap_or_else(|| panic!("no verdict {name}"))
}

/// Names of the verdicts that failed.
fn failed(report: &Report) -> Vec<&str> {
    report.verdicts.iter().filter(|v| v.passed == Some(false)).map(|v| v.name.as_str()).collect()
}

#[test]
fn a_run_like_the_model_passes_every_check() {
    let report = concluded(|_| {});
    assert_eq!(report.verdicts.len(), 13);
    for v in &report.verdicts {
        assert_eq!(v.passed, Some(true), "{v:?}");
    }
}

#[test]
fn knees_say_where_each_profile_breaks() {
    let report = concluded(|_| {});
    let [baseline, protected] = report.knees.as_slice() else { panic!("{:?}", report.knees) };
    assert_eq!((baseline.held_users, baseline.broke_at_users), (Some(3000), Some(4000)));
    assert!(baseline.why.contains("5.6 % errors") && baseline.why.contains("3,600 of 4,000"), "{}", baseline.why);
    assert_eq!(
        (protected.held_users, protected.held_per_s, protected.broke_at_users),
        (Some(5000), Some(5000.0), None)
    );
    assert!(protected.why.is_empty());
    assert!(baseline.peak_good_per_s.is_some_and(|v| (3390.0..3420.0).contains(&v)), "{baseline:?}");
}

#[test]
fn a_step_that_holds_above_one_that_does_not_does_not_count() {
    let report = concluded(|r| step(r, "protected", 2000).error_pct = 1.01);
    assert_eq!((report.knees[1].held_users, report.knees[1].broke_at_users), (Some(1000), Some(2000)));
    let report = concluded(|r| step(r, "protected", 1000).answered_per_s = 989.9);
    assert_eq!((report.knees[1].held_users, report.knees[1].broke_at_users), (None, Some(1000)));
}

#[test]
fn limits_met_exactly_are_met() {
    let report = concluded(|r| {
        let s = step(r, "protected", 5000);
        (s.error_pct, s.answered_per_s, s.p99_ms, s.known_personal_pct) = (0.9, 4950.0, 50.0, Some(99.0));
        let s = step(r, "baseline", 2000);
        (s.answered_per_s, s.good_per_s, s.error_pct, s.mean_ms) = (2100.0, 1900.0, 1.5, 124.0 * 1.1);
    });
    assert_eq!(failed(&report), [""; 0]);
    assert_eq!(step_state(&report, "protected", 5000), StepState::Held);
}

#[test]
fn each_tolerance_fails_on_its_own() {
    type Break = fn(&mut Report);
    let cases: [(&str, Break); 11] = [
        ("answered/s like the model", |r| step(r, "baseline", 4000).answered_per_s = 3614.0 * 0.949),
        ("good/s like the model", |r| step(r, "baseline", 5000).good_per_s = 3415.0 * 1.051),
        ("errors like the model", |r| step(r, "baseline", 3000).error_pct = 1.51),
        ("mean latency like the model", |r| step(r, "baseline", 2000).mean_ms = 124.0 * 0.899),
        ("errors like the article", |r| step(r, "baseline", 1000).article.as_mut().expect("quoted").error_pct = 2.6),
        ("mean latency like the article", |r| {
            step(r, "baseline", 4000).article.as_mut().expect("quoted").mean_ms = Some(300.0)
        }),
        ("connection pools", |r| {
            let s = step(r, "baseline", 5000);
            s.store_timeouts = s.errors.values().sum::<u64>() * 94 / 100;
        }),
        ("few errors", |r| step(r, "protected", 4000).error_pct = 0.91),
        ("offer is answered", |r| step(r, "protected", 5000).answered_per_s = 4949.0),
        ("fast under overload", |r| step(r, "protected", 4000).p99_ms = 50.1),
        ("own list", |r| step(r, "protected", 5000).known_personal_pct = Some(98.9)),
    ];
    for (name, change) in cases {
        let report = concluded(change);
        let failed = failed(&report);
        assert!(failed.len() == 1 && failed[0].contains(name), "{name}: {failed:?}");
        assert_eq!(report.verdicts.iter().filter(|v| v.passed == Some(true)).count(), 12, "{name}");
    }
}

#[test]
fn protected_is_judged_in_the_overload_steps_only() {
    let report = concluded(|r| step(r, "protected", 3000).p99_ms = 400.0);
    assert_eq!(failed(&report), [""; 0]);
}

#[test]
fn the_verdict_names_the_worst_step() {
    let report = concluded(|r| step(r, "baseline", 2000).mean_ms = 124.0 * 0.8);
    let v = verdict(&report, "mean latency like the model");
    assert_eq!(v.measured, "−20.0 % at 2000");
    assert_eq!(v.note, "1000: +2.0 % · 2000: −20.0 % · 3000: +2.0 % · 4000: +2.0 % · 5000: +2.0 %");
}

#[test]
fn an_invalid_step_is_not_judged_and_forbids_a_pass() {
    let report = concluded(|r| {
        let s = step(r, "baseline", 4000);
        (s.valid, s.invalid_reasons, s.mean_ms) = (false, vec!["send lag p99 14 ms > 10 ms".into()], 9999.0);
    });
    let v = verdict(&report, "mean latency like the model");
    assert_eq!(v.passed, None);
    assert!(v.note.contains("4000: invalid, not judged") && !v.note.contains("9,999"), "{}", v.note);
    assert_eq!(failed(&report), [""; 0]);
    let all = verdict(&report, "Baseline steps are valid");
    assert_eq!((all.passed, all.undecided), (None, true));
    assert!(all.note.contains("baseline 4000 (repeat 1): send lag p99 14 ms"), "{}", all.note);
    assert_eq!(report.knees[0].broke_at_users, Some(4000));
    assert!(report.knees[0].why.contains("send lag p99 14 ms"), "{}", report.knees[0].why);

    // Nor is an invalid step of the protected profile a success, even one that no other check is about.
    let report = concluded(|r| {
        let s = step(r, "protected", 2000);
        (s.valid, s.invalid_reasons) = (false, vec!["97 % CPU is above 90 %".into()]);
    });
    let all = verdict(&report, "Protected steps are valid");
    assert_eq!((all.passed, all.undecided, all.measured.as_str()), (None, true, "4 of 5"));
    assert!(report.verdicts.iter().filter(|v| v.name != all.name).all(|v| v.passed == Some(true)));

    // Another step's failure stays a failure.
    let report = concluded(|r| {
        step(r, "baseline", 4000).valid = false;
        step(r, "baseline", 5000).mean_ms = 1.0;
    });
    assert_eq!(verdict(&report, "mean latency like the model").passed, Some(false));
}

#[test]
fn steps_that_were_not_run_are_not_passed() {
    let report = concluded(|r| r.steps.retain(|s| s.profile == "baseline"));
    assert_eq!(verdict(&report, "few errors").passed, None);
    assert_eq!(report.knees[1].held_users, None);
    let report = concluded(|r| r.steps.retain(|s| s.users < 4000));
    assert_eq!(verdict(&report, "fast under overload").passed, None);
    assert_eq!(verdict(&report, "answered/s like the model").passed, Some(true));
}

#[test]
fn quick_runs_real_stores_real_data_and_changed_conditions_are_not_judged() {
    let changes: [fn(&mut Report); 4] = [
        |r| r.quick = true,
        |r| r.law = Law::None,
        |r| r.data.source = DataSource::File,
        |r| r.changed = vec!["16 MySQL servers".into()],
    ];
    for change in changes {
        let report = concluded(|r| {
            change(r);
            step(r, "protected", 4000).p99_ms = 999.0;
        });
        assert_eq!(report.verdicts.len(), 13);
        assert!(report.verdicts.iter().all(|v| v.passed.is_none() && !v.note.is_empty()), "{:?}", report.verdicts);
    }
}

#[test]
fn a_scenario_without_article_and_model_has_no_verdicts() {
    let report = concluded(|r| r.steps.iter_mut().for_each(|s| (s.article, s.model) = (None, None)));
    assert!(report.verdicts.is_empty());
    assert_eq!(report.knees.len(), 2);
    let mut report = sample::report();
    report.conclude(None);
    assert!(report.verdicts.is_empty() && report.knees.len() == 2);
}

#[test]
fn repeats_are_judged_by_the_interval_of_their_mean() {
    let mut report = sample::repeated();
    let mean = |r: &Report| over_repeats(r, "baseline", 1000, |s| Some(s.mean_ms)).expect("three repeats");
    let spread = mean(&report);
    let interval = spread.interval.expect("three repeats have an interval");
    assert!((spread.mean - 93.0 * 1.02 * (1.0 + 1.008 + 0.994) / 3.0).abs() < 1e-9, "{spread:?}");
    assert!(interval.low < spread.min && interval.high > spread.max, "of three repeats it is wider than their range");

    // One wild repeat widens the interval; an invalid one does not count at all.
    report.steps.iter_mut().find(|s| s.repeat == 2).expect("a second repeat").mean_ms = 5000.0;
    report.conclude(Some(&Tolerances::default()));
    let open = verdict(&report, "mean latency like the model");
    assert!(open.passed.is_none() && open.undecided, "{open:?}");
    assert!(open.note.contains("the limit is within the interval"), "{open:?}");
    report.steps.iter_mut().find(|s| s.repeat == 2).expect("a second repeat").valid = false;
    assert!(mean(&report).max < 100.0);
    report.conclude(Some(&Tolerances::default()));
    assert!(verdict(&report, "Baseline steps are valid").undecided);
    assert!(verdict(&report, "mean latency like the model").passed == Some(true));
}

#[test]
fn concluding_twice_changes_nothing() {
    let once = sample::report();
    let mut twice = once.clone();
    twice.conclude(Some(&Tolerances::default()));
    assert_eq!(once, twice);
}

#[test]
fn remarks_explain_the_excess_and_the_lowered_base() {
    let report = sample::report();
    assert!(
        report.remarks.iter().any(|r| r.contains("4100 QPS at 4000") && r.contains("more than is offered")),
        "{:?}",
        report.remarks
    );
    assert!(report.remarks.iter().any(|r| r.contains("3.2 ms") && r.contains("70.8 ms")), "{:?}", report.remarks);
    let plain = concluded(|r| {
        r.remarks.clear();
        step(r, "protected", 4000).article = None;
        r.law = Law::None;
    });
    assert!(plain.remarks.is_empty(), "{:?}", plain.remarks);
}

/// Three repeats of one figure of the protected profile at 4000 users, and the verdict on it.
fn of_three(name: &str, set: fn(&mut Step, f64), values: [f64; 3]) -> (Option<bool>, bool) {
    let mut report = sample::repeated();
    for (repeat, value) in (1..).zip(values) {
        let of = |s: &&mut Step| s.profile == "protected" && s.users == 4000 && s.repeat == repeat;
        set(report.steps.iter_mut().find(of).expect("a step of the sample"), value);
    }
    report.conclude(Some(&Tolerances::default()));
    let found = verdict(&report, name);
    (found.passed, found.undecided)
}

#[test]
fn a_verdict_needs_the_whole_interval() {
    // At most 0.9 %.
    let errors = |values| of_three("few errors under overload", |s, value| s.error_pct = value, values);
    assert_eq!(errors([0.5, 0.5, 0.6]), (Some(true), false));
    assert_eq!(errors([0.6, 0.7, 0.8]), (None, true));
    assert_eq!(errors([0.8, 1.0, 1.1]), (None, true));
    assert_eq!(errors([1.2, 1.3, 1.4]), (Some(false), false));
    // At least 99 % of 4000 requests/s.
    let answered = |values| of_three("the offer is answered", |s, value| s.answered_per_s = value, values);
    assert_eq!(answered([3985.0, 3990.0, 3995.0]), (Some(true), false));
    assert_eq!(answered([3965.0, 3990.0, 4000.0]), (None, true));
    assert_eq!(answered([3900.0, 3910.0, 3920.0]), (Some(false), false));
}

#[test]
fn a_limit_on_both_sides_is_missed_only_beyond_one_of_them() {
    let deviating = |factors: [f64; 3]| {
        let mut report = sample::repeated();
        for (repeat, factor) in (1..).zip(factors) {
            let of = |s: &&mut Step| s.profile == "baseline" && s.users == 2000 && s.repeat == repeat;
            let step = report.steps.iter_mut().find(of).expect("a step of the sample");
            step.mean_ms = factor * step.model.as_ref().expect("the model's figures").mean_ms;
        }
        report.conclude(Some(&Tolerances::default()));
        verdict(&report, "mean latency like the model").passed
    };
    // Within 10 %.
    assert_eq!(deviating([0.98, 1.0, 1.02]), Some(true));
    assert_eq!(deviating([0.9, 1.0, 1.1]), None, "both limits are within the interval");
    assert_eq!(deviating([1.05, 1.1, 1.15]), None);
    assert_eq!(deviating([1.2, 1.21, 1.22]), Some(false));
    assert_eq!(deviating([0.7, 0.71, 0.72]), Some(false));
}

#[test]
fn two_repeats_have_no_interval_and_their_mean_decides() {
    let mut report = sample::repeated();
    report.steps.retain(|s| s.repeat < 3);
    report.repeats = 2;
    for step in report.steps.iter_mut().filter(|s| s.profile == "protected" && s.users == 4000) {
        step.error_pct = if step.repeat == 1 { 0.5 } else { 1.2 };
    }
    report.conclude(Some(&Tolerances::default()));
    assert_eq!(verdict(&report, "few errors under overload").passed, Some(true));
    assert!(over_repeats(&report, "protected", 4000, |s| Some(s.error_pct)).is_some_and(|s| s.interval.is_none()));
}

#[test]
fn too_few_requests_have_no_p99_to_be_judged() {
    let report = concluded(|r| step(r, "protected", 4000).samples = Some(999));
    let fast = verdict(&report, "fast under overload");
    assert!(fast.passed.is_none() && fast.note.contains("4000: no such figure"), "{fast:?}");
}
