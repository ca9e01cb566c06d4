//! What an experiment was made to find out, as verdicts beside its figures. Pure.

use super::analysis::{Standing, over_repeats, standing};
use super::numbers::{NO_FIGURE, count, pct};
use super::schema::{Report, Verdict};
use super::trend::median;

pub use super::outage::verdicts as outage;

/// At twice the knee, of the most that any step gets: what is refused must not cost what is served.
const MIN_GOODPUT_PCT: f64 = 95.0;
/// After the load has fallen.
const MAX_BACK_S: f64 = 5.0;
/// Real users' good answers under a flood of unknown ids, of those in the clean run.
const MIN_KNOWN_GOOD_PCT: f64 = 95.0;
/// The flood up to which that is promised.
const JUDGED_UNKNOWN_SHARE: f64 = 0.5;

/// For `experiment overload`: goodput beyond the knee and the return to normal, of every profile. Profiles in `shown` are there
/// to compare with, and are not judged.
pub fn overload(report: &Report, knee_per_s: f64, shown: &[String]) -> Vec<Verdict> {
    let judged = |profile: &String, failed: Option<bool>| match failed {
        Some(failed) if !report.quick && !shown.contains(profile) => Some(!failed),
        _ => None,
    };
    let why_not = |profile: &String| match (report.quick, shown.contains(profile)) {
        (true, _) => "quick run, not judged",
        (_, true) => "to compare with, not judged",
        _ => "",
    };
    let mut verdicts = Vec::new();
    for profile in &report.profiles {
        let goodput = goodput(report, profile, 2.0 * knee_per_s);
        let note = match &goodput {
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
        verdicts.push(Verdict {
            name: format!("{profile}: goodput at 2 × the knee"),
            expected: format!("≥ {MIN_GOODPUT_PCT} % of the peak"),
            measured: share.map_or_else(|| NO_FIGURE.into(), |share| format!("{} %", pct(share))),
            passed: judged(profile, share.map(|share| share < MIN_GOODPUT_PCT - 1e-9)),
            undecided: share.is_none() && why_not(profile).is_empty(),
            note: join([why_not(profile), &note]),
        });
    }
    for profile in &report.profiles {
        let mut of: Vec<_> = report.recoveries.iter().filter(|recovery| &recovery.profile == profile).collect();
        let any_valid = of.iter().any(|recovery| recovery.invalid_reasons.is_empty());
        of.retain(|recovery| recovery.invalid_reasons.is_empty() || !any_valid);
        let Some(first) = of.first() else { continue };
        // A run that never returned is later than any that did.
        let seconds: Vec<f64> = of.iter().map(|r| r.back_after_s.map_or(f64::INFINITY, f64::from)).collect();
        let back = median(seconds).unwrap_or(f64::INFINITY);
        let note = format!(
            "{} requests/s, {} for {} s, then {} again; {} good/s in the surge",
            count(first.base_per_s),
            count(first.peak_per_s),
            first.surge_to_s - first.surge_from_s.min(first.surge_to_s),
            count(first.base_per_s),
            count(first.surge_good_per_s),
        );
        verdicts.push(Verdict {
            name: format!("{profile}: back to normal after the load falls"),
            expected: format!("≤ {MAX_BACK_S} s"),
            measured: if back.is_finite() { format!("{back} s") } else { "not within the run".into() },
            passed: judged(profile, any_valid.then_some(back > MAX_BACK_S)),
            undecided: !any_valid && why_not(profile).is_empty(),
            note: join([why_not(profile), &join([&not_valid(&first.invalid_reasons), &note])]),
        });
    }
    verdicts
}

struct Goodput {
    beyond_per_s: f64,
    offered_per_s: f64,
    peak_per_s: f64,
}

/// At the lowest step of at least this offer (a scenario may round it by 2 %), and at the best.
fn goodput(report: &Report, profile: &str, beyond_per_s: f64) -> Option<Goodput> {
    let good = |users: u32| over_repeats(report, profile, users, |s| Some(s.good_per_s)).map(|spread| spread.median);
    let offered = |users: u32| f64::from(users) * 1000.0 / report.scenario.interval_ms.max(1) as f64;
    let valid = |users: &u32| matches!(standing(report, profile, *users), Standing::Held | Standing::NotHeld);
    let users: Vec<u32> = report.user_steps().into_iter().filter(valid).collect();
    let beyond = users.iter().copied().find(|&users| offered(users) >= 0.98 * beyond_per_s)?;
    let peak_per_s = users.iter().filter_map(|&users| good(users)).max_by(f64::total_cmp).filter(|peak| *peak > 0.0)?;
    Some(Goodput { beyond_per_s: good(beyond)?, offered_per_s: offered(beyond), peak_per_s })
}

/// For `experiment penetration`: real users' good answers beside the profile's own clean run, the step without unknown ids.
/// Only `judged` has to hold.
pub fn penetration(report: &Report, judged: &str) -> Vec<Verdict> {
    report.profiles.iter().filter_map(|profile| penetration_of(report, profile, profile == judged)).collect()
}

fn penetration_of(report: &Report, profile: &str, judged: bool) -> Option<Verdict> {
    let shares = report.scenario.steps.iter().copied().zip(report.scenario.unknown_share.iter().copied());
    let mut steps: Vec<(u32, f64)> = shares.collect();
    steps.sort_by(|a, b| a.1.total_cmp(&b.1));
    let known = |users: u32| over_repeats(report, profile, users, |s| s.known_good_per_s).map(|spread| spread.median);
    let queries = |users: u32| {
        over_repeats(report, profile, users, |s| Some(s.store_queries_per_request)).map(|spread| spread.median)
    };
    let clean_users = steps.iter().find(|(_, share)| *share == 0.0)?.0;
    let clean = known(clean_users).filter(|known| *known > 0.0)?;
    let invalid = |users: u32| standing(report, profile, users) == Standing::Invalid;
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
        let queries = queries(users).map_or_else(|| NO_FIGURE.into(), super::numbers::per_request);
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
        note: join([if report.quick { "quick run, not judged" } else { "" }, &notes.join(" · ")]),
    })
}

/// For a soak: whether anything grows.
pub fn soak(report: &Report) -> Vec<Verdict> {
    let Some(soak) = &report.soak else { return Vec::new() };
    let invalid: Vec<String> = report.steps.iter().flat_map(|step| step.invalid_reasons.clone()).collect();
    let valid = !soak.slopes.is_empty() && report.steps.iter().all(|step| step.valid);
    let growing: Vec<&str> = soak.slopes.iter().filter(|slope| slope.grows).map(|s| s.figure.as_str()).collect();
    vec![Verdict {
        name: "Soak: nothing grows beyond noise".into(),
        expected: "no slope above two standard errors and 1 % of the mean".into(),
        measured: if growing.is_empty() { "none".into() } else { growing.join(", ") },
        passed: valid.then_some(growing.is_empty()),
        undecided: !valid,
        note: join([&not_valid(&invalid), &format!("{} minutes", soak.minutes.len())]),
    }]
}

/// Nothing of what is valid.
pub(super) fn not_valid(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!("invalid, not judged: {}", reasons.join("; ")) }
}

pub(super) fn join(parts: [&str; 2]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}
