//! Verdicts of experiments and soaks, and their parts of the pages.

use super::*;
use crate::experiments;

/// Sample steps with good answers per second by users, for one profile.
fn overload(good: [(u32, f64); 5], back_after_s: Option<u32>) -> Vec<Verdict> {
    let mut report = sample::with_extras();
    report.steps.retain(|step| step.profile == "protected");
    report.recoveries.retain(|recovery| recovery.profile == "protected");
    report.recoveries[0].back_after_s = back_after_s;
    report.profiles = vec!["protected".into()];
    for (users, good) in good {
        report.steps.iter_mut().filter(|s| s.users == users).for_each(|s| s.good_per_s = good);
    }
    experiments::overload(&report, 2000.0, &[])
}

#[test]
fn goodput_is_taken_at_twice_the_knee() {
    let good = [(1000, 1000.0), (2000, 2000.0), (3000, 1990.0), (4000, 1902.0), (5000, 100.0)];
    let verdicts = overload(good, Some(5));
    assert_eq!((verdicts[0].measured.as_str(), verdicts[0].passed), ("95.1 %", Some(true)), "{verdicts:?}");
    assert_eq!((verdicts[1].measured.as_str(), verdicts[1].passed), ("5 s", Some(true)), "{verdicts:?}");
    let good = [(1000, 1000.0), (2000, 2000.0), (3000, 1990.0), (4000, 1899.0), (5000, 1990.0)];
    let verdicts = overload(good, Some(6));
    assert_eq!((verdicts[0].passed, verdicts[1].passed), (Some(false), Some(false)), "{verdicts:?}");
    let verdicts = overload(good, None);
    assert_eq!((verdicts[1].measured.as_str(), verdicts[1].passed), ("not within the run", Some(false)));
}

#[test]
fn what_is_shown_quick_or_missing_is_not_judged() {
    let mut report = sample::with_extras();
    report.steps.retain(|step| step.users <= 4000);
    let shown = ["baseline".to_owned()];
    let passed = |report: &Report| -> Vec<Option<bool>> {
        experiments::overload(report, 2000.0, &shown).iter().map(|verdict| verdict.passed).collect()
    };
    assert_eq!(passed(&report), [None, Some(true), None, Some(true)]);
    report.steps.retain(|step| step.users < 4000);
    assert_eq!(passed(&report), [None, None, None, Some(true)], "no step at twice the knee");
    report.quick = true;
    assert_eq!(passed(&report), [None; 4]);
}

#[test]
fn a_surge_that_is_not_valid_is_not_judged_unless_a_valid_one_is_there() {
    let mut report = sample::with_extras();
    report.recoveries.retain(|recovery| recovery.profile == "protected");
    let back = |report: &Report| {
        let verdict = experiments::overload(report, 2000.0, &[]).pop().unwrap();
        (verdict.measured, verdict.passed, verdict.note)
    };
    let mut late = report.recoveries[0].clone();
    (late.repeat, late.back_after_s, late.invalid_reasons) = (2, None, vec!["97 % CPU is above 90 %".into()]);
    report.recoveries.push(late);
    let (measured, passed, _) = back(&report);
    assert_eq!((measured.as_str(), passed), ("1 s", Some(true)), "of the valid one");
    report.recoveries.remove(0);
    let (measured, passed, note) = back(&report);
    assert_eq!((measured.as_str(), passed), ("not within the run", None));
    assert!(note.starts_with("invalid, not judged: 97 % CPU"), "{note}");
}

#[test]
fn real_users_are_set_beside_the_clean_run() {
    let mut report = sample::with_extras();
    let mut known = |users: u32, good: f64| {
        let steps = report.steps.iter_mut().filter(|s| s.profile == "protected" && s.users == users);
        steps.for_each(|s| s.known_good_per_s = Some(good));
    };
    for (users, good) in [(1000, 400.0), (2000, 399.0), (3000, 381.0), (4000, 100.0), (5000, 50.0)] {
        known(users, good);
    }
    let verdicts = experiments::penetration(&report, "protected");
    let [baseline, protected] = verdicts.as_slice() else { panic!("{verdicts:?}") };
    assert_eq!(baseline.passed, None, "only protected is promised anything");
    assert_eq!((protected.measured.as_str(), protected.passed), ("95.3 % at 50.0 %", Some(true)));
    assert!(protected.note.contains("75.0 % unknown: 25.0 %"), "{protected:?}");
    report.steps.iter_mut().filter(|s| s.users == 3000).for_each(|s| s.known_good_per_s = Some(379.0));
    assert_eq!(experiments::penetration(&report, "protected")[1].passed, Some(false));
    report.steps.iter_mut().filter(|s| s.users == 1000).for_each(|s| s.valid = false);
    let verdict = experiments::penetration(&report, "protected").pop().unwrap();
    assert_eq!(verdict.passed, None, "all is measured by the clean run");
    assert!(verdict.note.contains("real users (invalid, not judged)"), "{verdict:?}");
    report.steps.retain(|step| step.users != 1000);
    assert!(experiments::penetration(&report, "protected").is_empty(), "there is no clean run");
}

#[test]
fn a_soak_that_grows_fails() {
    let mut report = sample::with_extras();
    let verdicts = experiments::soak(&report);
    assert_eq!((verdicts[0].measured.as_str(), verdicts[0].passed), ("api memory, MiB", Some(false)));
    report.soak.iter_mut().flat_map(|soak| &mut soak.slopes).for_each(|slope| slope.grows = false);
    assert_eq!(experiments::soak(&report)[0].passed, Some(true));
    (report.steps[0].valid, report.steps[0].invalid_reasons) = (false, vec!["97 % CPU is above 90 %".into()]);
    let verdict = experiments::soak(&report).remove(0);
    assert_eq!((verdict.passed, verdict.note.contains("invalid, not judged: 97 % CPU")), (None, true), "{verdict:?}");
    report.soak = None;
    assert!(experiments::soak(&report).is_empty());
}

#[test]
fn every_page_shows_the_extras() {
    let report = sample::with_extras();
    let (page, text, table) = (html::render(&report), markdown::render(&report), terminal::render(&report, false));
    for shown in [&page, &text, &table] {
        for words in ["After a surge", "Soak", "api memory, MiB", "not within the run"] {
            assert!(shown.contains(words), "{words} is missing in\n{shown}");
        }
    }
    assert!(page.contains("protected through the surge") && page.contains("Memory over the soak"));
    assert!(table.contains("2000·20%"), "the heads name the share of unknown ids:\n{table}");
    let plain = sample::report();
    assert!(!html::render(&plain).contains("After a surge") && !terminal::render(&plain, false).contains("Soak"));
}
