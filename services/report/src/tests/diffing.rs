//! Conditions and their judgement.

use super::*;
use crate::diff::{Condition, Diff, KEYS, diff, render};

fn conditions(texts: &[&str]) -> Vec<Condition> {
    texts.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))).collect()
}

fn error(text: &str) -> String {
    match text.parse::<Condition>() {
        Ok(_) => panic!("{text} was accepted"),
        Err(error) => error,
    }
}

/// The sample beside itself with `change` made to every baseline step.
fn changed(change: impl Fn(&mut Step), texts: &[&str]) -> Diff {
    let before = sample::report();
    let mut after = before.clone();
    after.steps.iter_mut().filter(|step| step.profile == "baseline").for_each(change);
    diff(&before, &after, &conditions(texts))
}

#[test]
fn bad_expressions_say_what_may_be_said() {
    assert!(error("p98_ms>10%").contains("p99_ms") && error("p98_ms>10%").contains("'p98_ms'"));
    for key in KEYS {
        assert!(error(">1").contains(key.name), "{}", key.name);
    }
    assert!(error("p99_ms").contains("neither > nor <"));
    assert!(error("").contains("neither > nor <"));
    assert!(error("p99_ms>").contains("is no number"));
    assert!(error("p99_ms>ten%").contains("'ten'"));
    assert!(error("p99_ms>=10").contains("is no number"));
    assert!(error("p99_ms>10%%").contains("is no number"));
    assert!(error("p99_ms>-1").contains("from 0 up"));
    assert!(error("p99_ms>nan").contains("from 0 up") && error("p99_ms>inf%").contains("from 0 up"));
    assert!(error("good_per_s<5%").contains("good_per_s>5%"));
    conditions(&[" p99_ms > 10 % ", "error_pct>1", "good_per_s<900", "hit_ratio>0%"]);
}

#[test]
fn the_same_report_twice_has_no_failure() {
    let same = changed(|_| (), &["mean_ms>0%", "p99_ms>0%", "error_pct>0%", "good_per_s>0%", "hit_ratio>0%"]);
    assert_eq!((same.failures.len(), same.remarks.len()), (0, 0), "{same:?}");
    assert_eq!(same.changes.len(), 10 * 6);
    assert!(same.changes.iter().all(|change| change.worse_pct.is_none_or(|pct| pct == 0.0)));
}

#[test]
fn worse_is_higher_for_latencies_and_lower_for_rates() {
    let slower = |step: &mut Step| step.p99_ms *= 1.1;
    assert_eq!(changed(slower, &["p99_ms>10%"]).failures, [""; 0], "a limit that is met exactly is met");
    assert_eq!(changed(slower, &["p99_ms>9.9%"]).failures.len(), 5);
    assert!(changed(|step| step.p99_ms *= 0.5, &["p99_ms>0%"]).failures.is_empty());
    assert_eq!(changed(|step| step.good_per_s *= 0.9, &["good_per_s>5%"]).failures.len(), 5);
    assert!(changed(|step| step.good_per_s *= 1.2, &["good_per_s>5%"]).failures.is_empty());
}

#[test]
fn absolute_limits_look_at_the_second_report_only() {
    let found = changed(|step| step.error_pct = 1.5, &["error_pct>1"]);
    assert_eq!(found.failures.len(), 5);
    assert!(found.failures[0].starts_with("error_pct>1: baseline at 1000 users"), "{found:?}");
    // The protected steps answer more than 990 each.
    assert_eq!(changed(|step| step.good_per_s = 900.0, &["good_per_s<990"]).failures.len(), 5);
    // From nothing to something is worse by any percentage.
    let before = sample::report();
    let mut after = before.clone();
    let step = after.steps.iter_mut().find(|step| step.profile == "protected").expect("a step");
    step.error_pct = 0.001;
    assert_eq!(diff(&before, &after, &conditions(&["error_pct>1000%"])).failures.len(), 1);
}

#[test]
fn repeats_count_by_their_median() {
    let before = sample::repeated();
    let mut after = before.clone();
    after.steps.iter_mut().filter(|step| step.repeat == 1).for_each(|step| step.mean_ms *= 50.0);
    let found = diff(&before, &after, &conditions(&["mean_ms>10%"]));
    assert!(found.failures.is_empty(), "one repeat of three: {found:?}");
}

#[test]
fn what_is_missing_or_invalid_cannot_pass() {
    let before = sample::report();
    let mut after = before.clone();
    after.steps.retain(|step| step.users != 5000);
    let found = diff(&before, &after, &conditions(&["p99_ms>10%"]));
    assert_eq!(found.failures.len(), 2, "{found:?}");
    assert!(found.failures[0].contains("baseline at 5000 users is missing"), "{found:?}");
    assert!(diff(&before, &after, &[]).failures.is_empty(), "nothing was asked");
    assert_eq!(diff(&after, &before, &conditions(&["p99_ms>10%"])).failures, [""; 0], "a new step is no failure");

    let mut invalid = before.clone();
    invalid.steps.iter_mut().for_each(|step| step.valid = false);
    let found = diff(&before, &invalid, &conditions(&["p99_ms>10%"]));
    assert!(found.failures.len() == 1 && found.failures[0].contains("no step could be judged"), "{found:?}");
    assert_eq!(found.remarks.len(), 10);
}

#[test]
fn the_table_says_what_changed_and_what_keeps_them_apart() {
    let before = sample::report();
    let mut after = before.clone();
    after.law = Law::None;
    after.steps[4].p99_ms *= 2.0;
    let text = render(&diff(&before, &after, &conditions(&["p99_ms>10%"])));
    assert!(text.contains("baseline at 5000 users") && text.contains("+100.0 % worse"), "{text}");
    assert!(text.contains("· the law differs"), "{text}");
    assert!(text.contains("✗ p99_ms>10%: baseline at 5000 users, 2,904 → 5,808"), "{text}");
}
