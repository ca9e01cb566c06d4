//! The check of the counts, and its tables.

use super::*;
use crate::counts::{Counts, GatewayCounts, ReplicaCounts, RequestCounts};

fn counts() -> Counts {
    let replica = ReplicaCounts { ended: 50, filter: 20, redis: 30, redis_hits: 30, ..ReplicaCounts::default() };
    Counts {
        generator: RequestCounts { requests: 101, unsent: 1, ..RequestCounts::default() },
        gateway: GatewayCounts { generator: 100, attempts: 100, ..GatewayCounts::default() },
        replicas: [("replica-00".to_owned(), replica.clone()), ("replica-01".to_owned(), replica)].into(),
        ..Counts::default()
    }
}

/// The sample with counts in every step; `change` is made to those of the first.
fn counted(change: impl FnOnce(&mut Counts)) -> Report {
    let mut report = sample::report();
    report.steps.iter_mut().for_each(|step| step.counts = Some(counts()));
    change(report.steps[0].counts.as_mut().expect("the sample has counts"));
    report.conclude(Some(&Tolerances::default()));
    report
}

fn check(report: &Report) -> &Verdict {
    report.verdicts.iter().find(|verdict| verdict.name == "Counts add up").expect("a verdict")
}

#[test]
fn counts_that_add_up_pass_the_check_also_in_a_quick_run() {
    let mut report = counted(|_| {});
    assert_eq!((check(&report).passed, check(&report).note.as_str()), (Some(true), ""));
    assert_eq!(check(&report).measured, format!("{0} of {0} steps", report.steps.len()));
    (report.quick, report.steps[0].valid) = (true, false);
    report.conclude(Some(&Tolerances::default()));
    assert_eq!(check(&report).passed, Some(true));
    assert_eq!(report.verdicts.iter().filter(|verdict| verdict.passed.is_some()).count(), 1);
    // As `load` concludes it.
    report.conclude(None);
    assert_eq!(report.verdicts.len(), 1);
}

#[test]
fn a_lost_count_fails_the_check_and_names_the_place() {
    let report = counted(|counts| counts.gateway.generator = 99);
    assert_eq!(check(&report).passed, Some(false));
    let note = &check(&report).note;
    assert!(note.starts_with("baseline 1000, repeat 1: load generator = nginx: +1 unexplained"), "{note}");
    let report = counted(|counts| counts.doubts.push("replica-01 restarted: its counters began anew".into()));
    assert_eq!(check(&report).passed, Some(false));
    assert!(check(&report).note.contains("replica-01 restarted"), "{:?}", check(&report));
}

#[test]
fn each_step_has_a_folded_table() {
    let report = counted(|counts| counts.doubts.push("<replica>".into()));
    let page = html::render(&report);
    assert_eq!(page.matches("<details><summary>").count(), report.steps.len() + 1, "and the list of logs");
    assert!(page.contains("<summary>baseline 1000, repeat 1: counts do not add up</summary>"));
    assert!(page.contains("+1 requests that were not sent (no connection)") && page.contains("&lt;replica&gt;"));
    let text = markdown::render(&report);
    assert!(text.contains("| load generator = nginx | 101 | 100 | +1 | +1 requests that were not sent"), "{text}");
    let plain = sample::report();
    assert!(!html::render(&plain).contains("counts add up"));
}
