//! Positive controls: reports of stacks that are broken on purpose. Each fails the checks that it must, by their names.

use super::*;

fn failed(change: impl Fn(&mut Step)) -> Vec<String> {
    let mut report = sample::report();
    report.steps.iter_mut().for_each(change);
    report.conclude(Some(&Tolerances::default()));
    report.verdicts.into_iter().filter(|verdict| verdict.passed == Some(false)).map(|verdict| verdict.name).collect()
}

#[test]
fn a_protected_stack_without_its_guards_fails() {
    let plain = sample::report();
    let of_baseline = |users: u32| {
        plain.steps.iter().find(|step| step.profile == "baseline" && step.users == users).expect("a step of the sample")
    };
    let names = failed(|step| {
        if step.profile == "protected" {
            *step = Step { profile: "protected".into(), article: None, model: None, ..of_baseline(step.users).clone() };
        }
    });
    for name in ["few errors", "the offer is answered", "fast under overload", "known users get their own list"] {
        assert!(
            names.iter().any(|failed| failed.starts_with("Protected") && failed.contains(name)),
            "{name}: {names:?}"
        );
    }
    assert!(!names.iter().any(|name| name.starts_with("Baseline")), "{names:?}");
}

#[test]
fn a_store_with_another_law_fails() {
    // Three tenths slower than the law says: longer waits, and fewer answers at the same pools.
    let names = failed(|step| {
        if step.profile == "baseline" {
            step.mean_ms *= 1.3;
            step.good_per_s /= 1.3;
        }
    });
    for name in ["good/s like the model", "mean latency like the model", "mean latency like the article"] {
        assert!(names.iter().any(|failed| failed.contains(name)), "{name}: {names:?}");
    }
}

#[test]
fn a_load_generator_that_is_too_slow_leaves_everything_open() {
    let mut report = sample::report();
    for step in &mut report.steps {
        let late = Validity::of(10.5, 50.0);
        (step.send_lag_p99_ms, step.valid, step.invalid_reasons) = (10.5, late.is_valid(), late.reasons);
        step.mean_ms = 9_999.0;
    }
    report.conclude(Some(&Tolerances::default()));
    let open = |verdict: &Verdict| verdict.passed.is_none() && verdict.undecided;
    assert!(!report.verdicts.is_empty() && report.verdicts.iter().all(open), "{:?}", report.verdicts);
}
