//! The article's steps with and without unknown ids, with an empty and with a warm cache: which share of the collapse do unknown ids have?

use api::Profile;
use loadtest::scenario::Scenario;
use report::{
    Report, Section, Step, Table, Verdict,
    analysis::{StepState, over_repeats, step_state},
    numbers::{NO_FIGURE, count, ms, pct},
};

use crate::{evaluation::Variant, experiments::under_load};

/// As in the article's table: half of the ids unknown, nothing cached.
const COLLAPSE: &str = "empty half-unknown";
/// Unknown ids alone: all lists of known users are cached.
const UNKNOWN_ALONE: &str = "warm half-unknown";
/// Neither.
const NEITHER: &str = "warm all-known";

/// Shorter than `evaluate`: differences of several hundred milliseconds are looked for.
const WARM_UP_S: u32 = 5;
const MEASURE_S: u32 = 15;

/// # Errors
/// There is no scenario `article`.
pub fn scenario(quick: bool) -> anyhow::Result<Scenario> {
    let mut scenario = under_load::scenario("article", quick)?;
    scenario.warm_up_s = scenario.warm_up_s.min(WARM_UP_S);
    scenario.measure_s = scenario.measure_s.min(MEASURE_S);
    Ok(scenario)
}

/// Three times the baseline. A warm cache is filled before the load; after that, it is as passive as the baseline's.
///
/// # Errors
/// There is no scenario `article`.
pub fn variants(quick: bool) -> anyhow::Result<Vec<Variant>> {
    let variant = |name: &str, warm: bool, share: Option<f64>| -> anyhow::Result<Variant> {
        let mut scenario = scenario(quick)?;
        if let Some(share) = share {
            scenario.unknown_share.iter_mut().for_each(|of_step| *of_step = share);
        }
        scenario.flush_cache_before_step = !warm;
        let sets = if warm { vec!["guards.warmup=on".to_owned()] } else { Vec::new() };
        let scenario = Some(Box::new(scenario));
        Ok(Variant { name: name.to_owned(), sets, scenario, ..Variant::plain(Profile::Baseline) })
    };
    Ok(vec![variant(COLLAPSE, false, None)?, variant(UNKNOWN_ALONE, true, None)?, variant(NEITHER, true, Some(0.0))?])
}

/// A step's medians.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    mean_ms: f64,
    error_pct: f64,
    answered_per_s: f64,
    queries: f64,
}

fn figures(report: &Report, variant: &str, users: u32) -> Option<Figures> {
    let median = |figure: fn(&Step) -> f64| over_repeats(report, variant, users, |s| Some(figure(s))).map(|s| s.median);
    Some(Figures {
        mean_ms: median(|s| s.mean_ms)?,
        error_pct: median(|s| s.error_pct)?,
        answered_per_s: median(|s| s.answered_per_s)?,
        queries: median(|s| s.store_queries_per_request)?,
    })
}

/// What the collapse adds to a clean step, and what unknown ids add alone.
struct Added {
    users: u32,
    mean_ms: f64,
    mean_ms_unknown: f64,
    error_points: f64,
    error_points_unknown: f64,
}

impl Added {
    fn of(report: &Report, users: u32) -> Option<Self> {
        let [collapse, unknown, neither] = [COLLAPSE, UNKNOWN_ALONE, NEITHER].map(|name| figures(report, name, users));
        let (collapse, unknown, neither) = (collapse?, unknown?, neither?);
        Some(Self {
            users,
            mean_ms: collapse.mean_ms - neither.mean_ms,
            mean_ms_unknown: unknown.mean_ms - neither.mean_ms,
            error_points: collapse.error_pct - neither.error_pct,
            error_points_unknown: unknown.error_pct - neither.error_pct,
        })
    }

    fn mean_share(&self) -> String {
        share(self.mean_ms_unknown, self.mean_ms)
    }

    fn error_share(&self) -> String {
        // Where hardly anything fails, a share would be noise.
        if self.error_points < 1.0 { NO_FIGURE.into() } else { share(self.error_points_unknown, self.error_points) }
    }
}

fn share(part: f64, all: f64) -> String {
    if all <= 0.0 { NO_FIGURE.into() } else { format!("{} %", pct(100.0 * part / all)) }
}

/// The tables of all variants, and the difference.
pub fn section(report: &Report) -> Section {
    let users = report.user_steps();
    let mut head = vec!["variant".to_owned()];
    head.extend(users.iter().map(|&users| count(f64::from(users))));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let row = |name: &str| -> Vec<String> {
        let cells = users.iter().map(|&users| {
            let Some(f) = figures(report, name, users) else { return NO_FIGURE.to_owned() };
            let sign = if step_state(report, name, users) == StepState::Invalid { " !" } else { "" };
            format!("{} · {} % · {} · {:.2}{sign}", ms(f.mean_ms), pct(f.error_pct), count(f.answered_per_s), f.queries)
        });
        std::iter::once(name.to_owned()).chain(cells).collect()
    };
    let added = users.iter().filter_map(|&users| Added::of(report, users));
    let shares = added.map(|added| {
        vec![
            count(f64::from(added.users)),
            ms(added.mean_ms),
            ms(added.mean_ms_unknown),
            added.mean_share(),
            pct(added.error_points),
            pct(added.error_points_unknown),
            added.error_share(),
        ]
    });
    let meaning = "The article's steps with the baseline. In the article's table half of the ids are unknown, and nothing is cached: known ids need the \
                   store as well. With a warm cache only unknown ids do. So this measures what cache penetration does by itself.";
    let measured = serde_json::json!({
        "steps": report.steps.iter().map(|s| serde_json::json!({
            "variant": s.profile, "users": s.users, "repeat": s.repeat, "valid": s.valid, "invalid_reasons": s.invalid_reasons,
            "mean_ms": s.mean_ms, "p99_ms": s.p99_ms, "error_pct": s.error_pct, "answered_per_s": s.answered_per_s,
            "good_per_s": s.good_per_s, "store_queries_per_request": s.store_queries_per_request,
        })).collect::<Vec<_>>(),
    });
    Section::new("Unknown ids in the article's collapse", meaning, measured).with_tables(vec![
        Table::new(
            "Steps",
            "Mean ms · errors · answered/s · store queries per request. ! the step is invalid.",
            &head,
            [COLLAPSE, UNKNOWN_ALONE, NEITHER].map(row).into(),
        ),
        Table::new(
            "Added to the step with neither",
            "By both, and by unknown ids alone. Errors in points.",
            &["users", "mean, ms", "of unknown ids", "share", "errors", "of unknown ids", "share"],
            shares.collect(),
        ),
    ])
}

/// The shares at the last step. Stated: no share fails the run. `None` if the step was not run.
pub fn verdict(report: &Report) -> Option<Verdict> {
    let users = report.user_steps().pop()?;
    let added = Added::of(report, users)?;
    let invalid =
        [COLLAPSE, UNKNOWN_ALONE, NEITHER].map(|name| step_state(report, name, users)).contains(&StepState::Invalid);
    let most = added.error_points >= 1.0 && added.error_points_unknown > 0.5 * added.error_points;
    let reading = if most {
        "unknown ids alone cause most of the errors, as the article says"
    } else {
        "unknown ids alone do not cause most of the errors: the empty cache, in which known ids miss as well, is needed for the collapse"
    };
    Some(Verdict {
        name: format!("Share of unknown ids in the collapse at {users} users"),
        expected: "the article: cache penetration is the main cause".into(),
        measured: format!("{} of the added latency, {} of the added errors", added.mean_share(), added.error_share()),
        passed: (most && !invalid && !report.quick).then_some(true),
        note: if invalid {
            format!("a step is not valid; {reading}")
        } else {
            format!("stated, not judged: {reading}")
        },
        undecided: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::under_load::sample;

    /// Mean and errors of each variant at the last step.
    fn report(figures: [(f64, f64); 3]) -> Report {
        let names = [COLLAPSE, UNKNOWN_ALONE, NEITHER];
        let mut report = sample::report(&names);
        for (name, (mean_ms, error_pct)) in names.into_iter().zip(figures) {
            let step = report.steps.iter_mut().find(|s| s.profile == name && s.users == 5000).unwrap();
            (step.mean_ms, step.error_pct) = (mean_ms, error_pct);
        }
        report
    }

    #[test]
    fn unknown_ids_have_the_share_that_a_warm_cache_leaves() {
        let found = report([(602.0, 13.0), (72.0, 0.0), (2.0, 0.0)]);
        let small = verdict(&found).unwrap();
        assert_eq!(small.measured, "11.7 % of the added latency, 0.0 % of the added errors");
        assert!(small.passed.is_none() && small.note.contains("empty cache"), "{small:?}");
        let most = verdict(&report([(602.0, 13.0), (502.0, 11.0), (2.0, 0.0)])).unwrap();
        assert_eq!((most.passed, most.measured.contains("84.6 % of the added errors")), (Some(true), true), "{most:?}");
        let mut invalid = report([(602.0, 13.0), (502.0, 11.0), (2.0, 0.0)]);
        invalid.steps.iter_mut().for_each(|s| s.valid = false);
        assert_eq!(verdict(&invalid).unwrap().passed, None);
        let section = section(&found);
        assert_eq!(section.tables[0].rows.len(), 3);
        assert_eq!(section.tables[1].rows[4], ["5,000", "600", "70", "11.7 %", "13.0", "0.0", "0.0 %"]);
        assert_eq!(section.tables[1].rows[0][6], NO_FIGURE, "nothing fails at 1000");
    }

    #[test]
    fn the_variants_differ_in_cache_and_ids_alone() {
        let variants = variants(true).unwrap();
        let of = |n: usize| variants[n].scenario.as_ref().unwrap();
        assert_eq!((of(0).flush_cache_before_step, of(0).unknown_share[4]), (true, 0.5));
        assert_eq!((of(1).flush_cache_before_step, of(1).unknown_share[4]), (false, 0.5));
        assert_eq!((of(2).flush_cache_before_step, of(2).unknown_share[4]), (false, 0.0));
        assert!(variants[0].sets.is_empty() && variants[1].sets == variants[2].sets);
        assert!(variants.iter().all(|one| one.scenario.as_ref().unwrap().steps == [1000, 2000, 3000, 4000, 5000]));
    }
}
