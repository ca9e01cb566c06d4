//! Goodput beyond the knee, and the return to normal after a surge. Pure.

use report::{
    Report, Verdict,
    analysis::{StepState, over_repeats, step_state},
    numbers::{NO_FIGURE, count, pct},
    trend::returned_within,
};
use statistics::median;

use super::surge::Recovery;
use crate::experiments::under_load::{QUICK, note};

/// Of the best step's goodput, at twice the knee: refused requests must not cost the others.
const MIN_GOODPUT_PCT: f64 = 95.0;
/// After the load has fallen.
const MAX_BACK_S: f64 = 5.0;

/// Goodput beyond the knee and the return to normal, of every profile. Profiles in `not_judged` are there to compare with.
pub fn verdicts(report: &Report, recoveries: &[Recovery], knee_per_s: f64, not_judged: &[String]) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> =
        report.profiles.iter().map(|profile| goodput_verdict(report, profile, knee_per_s, not_judged)).collect();
    let back = |profile: &String| recovery_verdict(report, recoveries, profile, not_judged);
    verdicts.extend(report.profiles.iter().filter_map(back));
    verdicts
}

fn judged(report: &Report, profile: &String, not_judged: &[String], failed: Option<bool>) -> Option<bool> {
    failed.map(|failed| !failed).filter(|_| !report.quick && !not_judged.contains(profile))
}

fn why_not(report: &Report, profile: &String, not_judged: &[String]) -> &'static str {
    match (report.quick, not_judged.contains(profile)) {
        (true, _) => QUICK,
        (_, true) => "to compare with, not judged",
        _ => "",
    }
}

fn goodput_verdict(report: &Report, profile: &String, knee_per_s: f64, not_judged: &[String]) -> Verdict {
    let goodput = goodput(report, profile, 2.0 * knee_per_s);
    let figures = match &goodput {
        Some(g) => format!(
            "{} good/s at {} requests/s offered, at most {} in any step; the knee by the store's connections is {}",
            count(g.beyond_per_s),
            count(g.offered_per_s),
            count(g.peak_per_s),
            count(knee_per_s),
        ),
        None => "no valid step at twice the knee".into(),
    };
    let share = goodput.map(|g| 100.0 * g.beyond_per_s / g.peak_per_s);
    let missed = share.map(|share| share < MIN_GOODPUT_PCT - 1e-9);
    // A step that is not valid may have been the best one: a lower peak is no reason to pass.
    let any_invalid = report.user_steps().iter().any(|&u| step_state(report, profile, u) == StepState::Invalid);
    let missed = missed.filter(|missed| *missed || !any_invalid);
    Verdict {
        name: format!("{profile}: goodput at 2 × the knee"),
        expected: format!("≥ {MIN_GOODPUT_PCT} % of the peak"),
        measured: share.map_or_else(|| NO_FIGURE.into(), |share| format!("{} %", pct(share))),
        passed: judged(report, profile, not_judged, missed),
        undecided: missed.is_none() && why_not(report, profile, not_judged).is_empty(),
        note: note(&[
            why_not(report, profile, not_judged),
            &figures,
            if any_invalid { "a step is not valid, so the peak may be higher" } else { "" },
        ]),
    }
}

/// `None` for a profile without a surge.
fn recovery_verdict(report: &Report, all: &[Recovery], profile: &String, not_judged: &[String]) -> Option<Verdict> {
    let mut of: Vec<_> = all.iter().filter(|recovery| &recovery.profile == profile).collect();
    let any_valid = of.iter().any(|recovery| recovery.validity.is_valid());
    of.retain(|recovery| recovery.validity.is_valid() || !any_valid);
    let first = of.first()?;
    // A run that never returned is later than any that did.
    let middle = |figure: fn(&Recovery) -> Option<u32>| {
        let seconds = of.iter().map(|recovery| figure(recovery).map_or(f64::INFINITY, f64::from)).collect::<Vec<_>>();
        median(&seconds).unwrap_or(f64::INFINITY)
    };
    let back = middle(|recovery| recovery.back_after_s);
    let within = returned_within(MAX_BACK_S, back, middle(|recovery| recovery.earliest_back_s)).filter(|_| any_valid);
    let figures = format!(
        "{} requests/s, {} for {} s, then {} again; {} good/s in the surge",
        count(first.base_per_s),
        count(first.peak_per_s),
        first.surge_to_s - first.surge_from_s.min(first.surge_to_s),
        count(first.base_per_s),
        count(first.surge_good_per_s),
    );
    Some(Verdict {
        name: format!("{profile}: back to normal after the load falls"),
        expected: format!("≤ {MAX_BACK_S} s"),
        measured: if back.is_finite() { format!("{back} s") } else { "not within the run".into() },
        passed: judged(report, profile, not_judged, within.map(|within| !within)),
        undecided: within.is_none() && why_not(report, profile, not_judged).is_empty(),
        note: note(&[
            why_not(report, profile, not_judged),
            &first.validity.note(),
            &first.validity.seconds_note(),
            &figures,
        ]),
    })
}

struct Goodput {
    beyond_per_s: f64,
    offered_per_s: f64,
    peak_per_s: f64,
}

/// At the lowest step of at least this offer (a scenario may round it by 2 %), and at the best.
fn goodput(report: &Report, profile: &str, beyond_per_s: f64) -> Option<Goodput> {
    let good = |users: u32| over_repeats(report, profile, users, |s| Some(s.good_per_s)).map(|spread| spread.mean);
    let offered = |users: u32| f64::from(users) * 1000.0 / report.scenario.interval_ms.max(1) as f64;
    let valid = |users: &u32| matches!(step_state(report, profile, *users), StepState::Held | StepState::NotHeld);
    let users: Vec<u32> = report.user_steps().into_iter().filter(valid).collect();
    let beyond = users.iter().copied().find(|&users| offered(users) >= 0.98 * beyond_per_s)?;
    let peak_per_s = users.iter().filter_map(|&users| good(users)).max_by(f64::total_cmp).filter(|peak| *peak > 0.0)?;
    Some(Goodput { beyond_per_s: good(beyond)?, offered_per_s: offered(beyond), peak_per_s })
}

#[cfg(test)]
mod tests {
    use report::Validity;

    use super::*;
    use crate::experiments::under_load::sample;

    fn recovery(profile: &str, back_after_s: Option<u32>) -> Recovery {
        let earliest_back_s = back_after_s;
        Recovery { profile: profile.into(), repeat: 1, back_after_s, earliest_back_s, ..Recovery::default() }
    }

    /// Good answers per second by users.
    fn judge(good: [(u32, f64); 5], back_after_s: Option<u32>) -> Vec<Verdict> {
        let mut report = sample::report(&["protected"]);
        for (users, good) in good {
            report.steps.iter_mut().filter(|s| s.users == users).for_each(|s| s.good_per_s = good);
        }
        verdicts(&report, &[recovery("protected", back_after_s)], 2000.0, &[])
    }

    #[test]
    fn goodput_is_measured_at_twice_the_knee() {
        let good = [(1000, 1000.0), (2000, 2000.0), (3000, 1990.0), (4000, 1902.0), (5000, 100.0)];
        let verdicts = judge(good, Some(5));
        assert_eq!((verdicts[0].measured.as_str(), verdicts[0].passed), ("95.1 %", Some(true)), "{verdicts:?}");
        assert_eq!((verdicts[1].measured.as_str(), verdicts[1].passed), ("5 s", Some(true)), "{verdicts:?}");
        let good = [(1000, 1000.0), (2000, 2000.0), (3000, 1990.0), (4000, 1899.0), (5000, 1990.0)];
        let verdicts = judge(good, Some(6));
        assert_eq!((verdicts[0].passed, verdicts[1].passed), (Some(false), Some(false)), "{verdicts:?}");
        let verdicts = judge(good, None);
        assert_eq!((verdicts[1].measured.as_str(), verdicts[1].passed), ("not within the run", Some(false)));
    }

    #[test]
    fn a_profile_to_compare_with_a_quick_run_and_a_missing_step_are_not_judged() {
        let mut report = sample::report(&["baseline", "protected"]);
        report.steps.retain(|step| step.users <= 4000);
        let recoveries = [recovery("baseline", None), recovery("protected", Some(1))];
        let not_judged = ["baseline".to_owned()];
        let passed = |report: &Report| -> Vec<Option<bool>> {
            verdicts(report, &recoveries, 2000.0, &not_judged).iter().map(|verdict| verdict.passed).collect()
        };
        assert_eq!(passed(&report), [None, Some(true), None, Some(true)]);
        report.steps.retain(|step| step.users < 4000);
        assert_eq!(passed(&report), [None, None, None, Some(true)], "no step at twice the knee");
        report.quick = true;
        assert_eq!(passed(&report), [None; 4]);
    }

    #[test]
    fn an_invalid_surge_is_not_judged_unless_another_one_is_valid() {
        let report = sample::report(&["protected"]);
        let back = |recoveries: &[Recovery]| {
            let verdict = verdicts(&report, recoveries, 2000.0, &[]).pop().unwrap();
            (verdict.measured, verdict.passed, verdict.note)
        };
        let late = Recovery { repeat: 2, validity: Validity::of(1.0, 97.0), ..recovery("protected", None) };
        let (measured, passed, _) = back(&[recovery("protected", Some(1)), late.clone()]);
        assert_eq!((measured.as_str(), passed), ("1 s", Some(true)), "of the valid one");
        let (measured, passed, note) = back(&[late]);
        assert_eq!((measured.as_str(), passed), ("not within the run", None));
        assert!(note.starts_with("invalid, not judged: 97 % CPU"), "{note}");
    }

    #[test]
    fn an_invalid_step_may_have_been_the_peak_and_an_invalid_second_the_return() {
        let mut report = sample::report(&["protected"]);
        report.steps.iter_mut().for_each(|s| s.good_per_s = 2000.0);
        let judge = |report: &Report, back_after_s, earliest_back_s| -> Vec<_> {
            let back = Recovery { earliest_back_s, ..recovery("protected", back_after_s) };
            verdicts(report, &[back], 2000.0, &[]).iter().map(|verdict| (verdict.passed, verdict.undecided)).collect()
        };
        let (passed, missed, open) = ((Some(true), false), (Some(false), false), (None, true));
        assert_eq!(judge(&report, Some(5), Some(2)), [passed, passed]);
        assert_eq!(judge(&report, Some(9), Some(6)), [passed, missed]);
        assert_eq!(judge(&report, Some(9), Some(5)), [passed, open]);
        report.steps.iter_mut().filter(|s| s.users == 3000).for_each(|s| s.valid = false);
        assert_eq!(judge(&report, None, None), [open, missed]);
        report.steps.iter_mut().filter(|s| s.users == 4000).for_each(|s| s.good_per_s = 1000.0);
        assert_eq!(judge(&report, None, Some(0)), [missed, open], "a higher peak would change nothing");
    }
}
