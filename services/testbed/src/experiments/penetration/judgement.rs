//! Real users' answers under a flood of unknown ids. Pure.

use report::{
    Report, Verdict,
    analysis::{StepState, over_repeats, step_state},
    numbers::{NO_FIGURE, count, pct, per_request},
};

use crate::experiments::under_load::{QUICK, note};

/// Of the clean run.
const MIN_KNOWN_GOOD_PCT: f64 = 95.0;
/// Steps with a larger share of unknown ids are shown, but not judged.
const JUDGED_UNKNOWN_SHARE: f64 = 0.5;

/// Real users' good answers compared with the profile's own clean run, the step without unknown ids. Only `judged` is judged.
pub fn verdicts(report: &Report, judged: &str) -> Vec<Verdict> {
    report.profiles.iter().filter_map(|profile| verdict(report, profile, profile == judged)).collect()
}

fn verdict(report: &Report, profile: &str, judged: bool) -> Option<Verdict> {
    let shares = report.scenario.steps.iter().copied().zip(report.scenario.unknown_share.iter().copied());
    let mut steps: Vec<(u32, f64)> = shares.collect();
    steps.sort_by(|a, b| a.1.total_cmp(&b.1));
    let known = |users: u32| over_repeats(report, profile, users, |s| s.known_good_per_s).map(|spread| spread.mean);
    let queries = |users: u32| {
        over_repeats(report, profile, users, |s| Some(s.store_queries_per_request)).map(|spread| spread.mean)
    };
    let clean_users = steps.iter().find(|(_, share)| *share == 0.0)?.0;
    let clean = known(clean_users).filter(|known| *known > 0.0)?;
    let invalid = |users: u32| step_state(report, profile, users) == StepState::Invalid;
    let mut worst: Option<(f64, f64)> = None;
    let clean_invalid = invalid(clean_users);
    let mut notes = vec![format!(
        "clean: {} good/s of real users{}",
        count(clean),
        if clean_invalid { " (invalid, not judged)" } else { "" }
    )];
    let mut unjudged = report.quick || !judged || clean_invalid;
    for (users, share) in steps.into_iter().filter(|(_, share)| *share > 0.0) {
        let unknown = format!("{} % unknown", pct(100.0 * share));
        let Some(kept) = known(users).map(|known| 100.0 * known / clean) else {
            notes.push(format!("{unknown}: not run"));
            continue;
        };
        let queries = queries(users).map_or_else(|| NO_FIGURE.into(), per_request);
        let doubt = if invalid(users) { " (invalid, not judged)" } else { "" };
        notes.push(format!("{unknown}: {} %, {queries} store queries/request{doubt}", pct(kept)));
        if share > JUDGED_UNKNOWN_SHARE + 1e-9 {
            continue;
        }
        unjudged |= invalid(users);
        if worst.is_none_or(|(least, _)| kept < least) {
            worst = Some((kept, share));
        }
    }
    let failed = worst.map(|(kept, _)| kept < MIN_KNOWN_GOOD_PCT - 1e-9);
    let passed = failed.filter(|_| !unjudged).map(|failed| !failed);
    Some(Verdict {
        name: format!(
            "{profile}: real users' good answers with up to {} % unknown ids",
            pct(100.0 * JUDGED_UNKNOWN_SHARE)
        ),
        expected: format!("≥ {MIN_KNOWN_GOOD_PCT} % of the clean run"),
        measured: worst
            .map_or_else(|| NO_FIGURE.into(), |(kept, share)| format!("{} % at {} %", pct(kept), pct(100.0 * share))),
        passed,
        undecided: passed.is_none() && judged && !report.quick,
        note: note(&[if report.quick { QUICK } else { "" }, &notes.join(" · ")]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::under_load::sample;

    #[test]
    fn real_users_are_compared_with_the_clean_run() {
        let mut report = sample::report(&["baseline", "protected"]);
        for (users, good) in [(1000, 400.0), (2000, 399.0), (3000, 381.0), (4000, 100.0), (5000, 50.0)] {
            let steps = report.steps.iter_mut().filter(|s| s.profile == "protected" && s.users == users);
            steps.for_each(|s| s.known_good_per_s = Some(good));
        }
        let all = verdicts(&report, "protected");
        let [baseline, protected] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(baseline.passed, None, "only protected is judged");
        assert_eq!((protected.measured.as_str(), protected.passed), ("95.3 % at 50.0 %", Some(true)));
        assert!(protected.note.contains("75.0 % unknown: 25.0 %"), "{protected:?}");
        report.steps.iter_mut().filter(|s| s.users == 3000).for_each(|s| s.known_good_per_s = Some(379.0));
        assert_eq!(verdicts(&report, "protected")[1].passed, Some(false));
        report.steps.iter_mut().filter(|s| s.users == 1000).for_each(|s| s.valid = false);
        let verdict = verdicts(&report, "protected").pop().unwrap();
        assert_eq!(verdict.passed, None, "all is compared with the clean run");
        assert!(verdict.note.contains("real users (invalid, not judged)"), "{verdict:?}");
        report.steps.retain(|step| step.users != 1000);
        assert!(verdicts(&report, "protected").is_empty(), "there is no clean run");
    }
}
