//! What the runs have to show. Pure.

use std::collections::BTreeMap;

use autoscaler::line;
use report::{Validity, Verdict, numbers::pct};

use super::{
    Measured,
    blind_spot::BlindRun,
    run::{FIXED_FEW, FIXED_MANY, RULE, Run},
    servers::{FEW, MANY},
    simulation::beside_live::{Beside, MAX_TICKS, MIN_WITHIN_ONE_PCT},
};

/// The rule must reach this count under the step.
const REACHED: u32 = 12;
/// Of the run under the rule.
const MIN_REQUESTS: u64 = 50_000;
/// Above it, processes wait for a core, and a quota says nothing.
pub const MAX_MACHINE_PCT: f64 = 80.0;
/// CPU that a replica used over its quota.
const MAX_CPU_OVER_QUOTA: f64 = 1.05;
/// Errors that the blind spot's users must see at least, in percent.
const MIN_BLIND_ERRORS_PCT: f64 = 5.0;
/// Above it the rule scales out: target and tolerance.
const SCALES_OUT_ABOVE_PCT: i32 = 77;
const KERNEL: &str = "kernel";

pub fn validity(measured: &Measured) -> BTreeMap<String, Validity> {
    let runs = measured.runs.iter().map(|run| (run.variant.clone(), run.validity()));
    let blind = measured.blind_spot.iter().map(|run| (blind_name(run), run.validity.clone()));
    runs.chain(blind).collect()
}

impl Run {
    /// That of its load, and a machine that is not too busy.
    fn validity(&self) -> Validity {
        let mut validity = self.validity.clone();
        if self.machine_pct > MAX_MACHINE_PCT {
            validity.reasons.push(format!("{} % CPU is above {MAX_MACHINE_PCT} %", pct(self.machine_pct)));
        }
        validity
    }

    /// Fewest and most ready replicas, and those at the end.
    fn counts(&self) -> (u32, u32, u32) {
        let ready = || self.supply.iter().map(|now| now.ready);
        (ready().min().unwrap_or(0), ready().max().unwrap_or(0), ready().next_back().unwrap_or(0))
    }
}

fn blind_name(run: &BlindRun) -> String {
    format!("blind spot, {} replicas", run.replicas)
}

pub fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let of = |name: &str| measured.runs.iter().find(|run| run.variant == name);
    let (Some(few), Some(rule), Some(many)) = (of(FIXED_FEW), of(RULE), of(FIXED_MANY)) else { return Vec::new() };
    let (least, most, last) = rule.counts();
    let mut verdicts = vec![
        verdict(
            &[rule],
            "replicas under the rule",
            format!("{FEW} → at least {REACHED} → {FEW}"),
            format!("{least} → {most} → {last}"),
            least == FEW && most >= REACHED && last == FEW,
        ),
        verdict(
            &[rule],
            "requests lost while replicas come and go",
            format!("0 of at least {MIN_REQUESTS}"),
            format!("{} of {}", rule.requests.lost(), rule.requests.answered),
            rule.requests.lost() == 0 && rule.requests.answered >= MIN_REQUESTS,
        ),
        verdict(
            &[rule, few],
            "requests beyond the SLO",
            format!("fewer than with {FIXED_FEW}"),
            format!("{} %; {FIXED_FEW}: {} %", pct(rule.requests.beyond_slo_pct), pct(few.requests.beyond_slo_pct)),
            rule.requests.beyond_slo_pct < few.requests.beyond_slo_pct,
        ),
        verdict(
            &[rule, many],
            "replica-minutes",
            format!("fewer than with {FIXED_MANY}"),
            format!("{:.1}; {FIXED_MANY}: {:.1}", rule.replica_minutes, many.replica_minutes),
            rule.replica_minutes < many.replica_minutes,
        ),
        machine(&measured.runs),
        replayed(&measured.runs),
    ];
    if measured.quota.starts_with(KERNEL) {
        verdicts.push(quota(&measured.runs));
    }
    verdicts.push(simulated(&measured.simulation, rule));
    verdicts.extend(blind_spot(&measured.blind_spot));
    verdicts
}

fn simulated(beside: &Beside, rule: &Run) -> Verdict {
    verdict(
        &[rule],
        "the simulation beside the run under the rule",
        format!(
            "ready replicas within 1 in ≥ {MIN_WITHIN_ONE_PCT} % of the seconds, each change within {MAX_TICKS} decisions of one in the other"
        ),
        format!(
            "within 1 in {} % of {} seconds; {} of {} changes without a match",
            pct(beside.within_one_pct()),
            beside.compared_s,
            beside.unmatched,
            beside.changes
        ),
        beside.agree(),
    )
}

/// A run on a machine that is too busy, or whose load came late, decides nothing.
fn verdict(runs: &[&Run], name: &str, expected: String, measured: String, passed: bool) -> Verdict {
    let reasons: Vec<String> = runs
        .iter()
        .flat_map(|run| run.validity().reasons.into_iter().map(|reason| format!("{}: {reason}", run.variant)))
        .collect();
    let verdict = Verdict::new(name, expected, measured, passed, &report::not_judged(&reasons));
    if reasons.is_empty() { verdict } else { Verdict { passed: None, undecided: true, ..verdict } }
}

fn machine(runs: &[Run]) -> Verdict {
    let most = runs.iter().map(|run| run.machine_pct).fold(0.0, f64::max);
    let expected = format!("≤ {MAX_MACHINE_PCT} % of the machine");
    Verdict::new("CPU", expected, format!("{} %", pct(most)), most <= MAX_MACHINE_PCT, "")
}

/// `testbed plan` answers the lines of the report with the counts that the replicas had.
fn replayed(runs: &[Run]) -> Verdict {
    let differs = |run: &Run| -> Result<usize, String> {
        let answer = line::answer(&run.plan).map_err(|error| error.to_string())?;
        let steps = answer.steps.unwrap_or_default();
        let counts = steps.iter().map(|step| (step.replicas_before, step.replicas));
        let lived = run.decisions.iter().map(|decision| (decision.before, decision.after));
        Ok(counts.zip(lived).filter(|(counts, lived)| counts != lived).count()
            + steps.len().abs_diff(run.decisions.len()))
    };
    let (mut all, mut different, mut note) = (0, 0, String::new());
    for run in runs {
        all += run.decisions.len();
        match differs(run) {
            Ok(count) => different += count,
            Err(error) => {
                different += run.decisions.len();
                note = error;
            }
        }
    }
    let measured = format!("{different} of {all} differ");
    Verdict::new(
        "decisions, replayed by testbed plan",
        "none differs".into(),
        measured,
        all > 0 && different == 0,
        &note,
    )
}

fn quota(runs: &[Run]) -> Verdict {
    let most = runs.iter().map(|run| run.cpu_over_quota_max).fold(0.0, f64::max);
    Verdict::new(
        "CPU of a replica between two decisions",
        format!("≤ {MAX_CPU_OVER_QUOTA} × its quota"),
        format!("{most:.3} × at most"),
        most > 0.0 && most <= MAX_CPU_OVER_QUOTA,
        "",
    )
}

fn blind_spot(runs: &[BlindRun]) -> Option<Verdict> {
    let [few, many] = runs else { return None };
    let utilization = few.utilization_pct.unwrap_or(-1);
    let valid = few.validity.is_valid() && many.validity.is_valid();
    let passed = few.replicas_after == FEW
        && (0..SCALES_OUT_ABOVE_PCT).contains(&utilization)
        && few.error_pct >= MIN_BLIND_ERRORS_PCT
        && many.store_ms > few.store_ms;
    let verdict = Verdict::new(
        "an overload that CPU does not show",
        format!(
            "{FEW} replicas stay, CPU below {SCALES_OUT_ABOVE_PCT} %, at least {MIN_BLIND_ERRORS_PCT} % errors; with {MANY} the store is slower"
        ),
        format!(
            "{} replicas, CPU {utilization} %, {} % errors; the store took {:.0} ms, with {MANY} replicas {:.0} ms",
            few.replicas_after,
            pct(few.error_pct),
            few.store_ms,
            many.store_ms
        ),
        passed,
        &[few, many].map(|run| run.validity.note()).concat(),
    );
    Some(if valid { verdict } else { Verdict { passed: None, undecided: true, ..verdict } })
}

#[cfg(test)]
pub mod tests {
    use autoscaler::line::{LoadInput, StepInput};

    use super::*;
    use crate::experiments::autoscaling::{
        calibration::tests::calibration,
        run::{Decision, Requests, Supply},
        servers::options,
    };

    fn run(variant: &str, ready: &[u32], beyond_slo_pct: f64, replica_minutes: f64) -> Run {
        let supply = |(n, ready): (usize, &u32)| Supply {
            at_s: n as f64,
            users: 200,
            demand: 6,
            desired: *ready,
            ready: *ready,
            starting: 0,
            leaving: 0,
        };
        let step = StepInput {
            after_ms: 15_000,
            load: Some(LoadInput { request_milli: Some(50), total_milli: 400, limit_milli: Some(50) }),
            ..StepInput::default()
        };
        let plan = autoscaler::line::Case { steps: vec![step], ..options(8, 20, 10).unwrap().rule.case(variant, 8) };
        Run {
            variant: variant.to_owned(),
            requests: Requests { answered: 60_000, beyond_slo_pct, p99_ms: 90.0, ..Requests::default() },
            replica_minutes,
            cpu_over_quota_max: 1.01,
            machine_pct: 60.0,
            decisions: vec![Decision { before: 8, after: 8, ..Decision::default() }],
            supply: ready.iter().enumerate().map(supply).collect(),
            plan,
            ..Run::default()
        }
    }

    pub fn measured() -> Measured {
        let blind = |replicas, store_ms| BlindRun {
            replicas,
            replicas_after: replicas,
            error_pct: 12.0,
            store_ms,
            utilization_pct: Some(40),
            ..BlindRun::default()
        };
        Measured {
            hurry: 10,
            quota: "kernel (cgroup v1)".into(),
            calibration: calibration(),
            runs: vec![
                run(FIXED_FEW, &[8, 8], 40.0, 24.0),
                run(RULE, &[8, 12, 16, 8], 10.0, 40.0),
                run(FIXED_MANY, &[20, 20], 0.0, 60.0),
            ],
            simulation: Beside { compared_s: 170, within_one_s: 160, changes: 8, ..Beside::default() },
            blind_spot: vec![blind(8, 84.0), blind(20, 180.0)],
        }
    }

    fn passed(change: impl Fn(&mut Measured)) -> Vec<Option<bool>> {
        let mut measured = measured();
        change(&mut measured);
        verdicts(&measured).iter().map(|verdict| verdict.passed).collect()
    }

    #[test]
    fn all_pass_and_each_fails_for_its_own_reason() {
        assert_eq!(passed(|_| ()), [Some(true); 9]);
        type Change = fn(&mut Measured);
        let changes: [(usize, Change); 15] = [
            (0, |all| all.runs[1].supply[3].ready = 9),
            (0, |all| all.runs[1].supply.iter_mut().for_each(|now| now.ready = now.ready.min(11))),
            (1, |all| all.runs[1].requests.lost = [("status-502".to_owned(), 1)].into()),
            (1, |all| all.runs[1].requests.answered = 49_999),
            (2, |all| all.runs[1].requests.beyond_slo_pct = 40.0),
            (3, |all| all.runs[1].replica_minutes = 60.0),
            (5, |all| all.runs[0].decisions[0].after = 9),
            (5, |all| all.runs[0].decisions.push(Decision::default())),
            (6, |all| all.runs[2].cpu_over_quota_max = 1.06),
            (7, |all| all.simulation.within_one_s = 152),
            (7, |all| all.simulation.unmatched = 1),
            (7, |all| all.simulation = Beside::default()),
            (8, |all| all.blind_spot[0].replicas_after = 9),
            (8, |all| all.blind_spot[0].error_pct = 1.0),
            (8, |all| all.blind_spot[1].store_ms = 80.0),
        ];
        for (at, change) in changes {
            let found = passed(change);
            let failed: Vec<usize> = (0..found.len()).filter(|n| found[*n] == Some(false)).collect();
            assert_eq!(failed, [at]);
        }
    }

    #[test]
    fn a_busy_machine_decides_nothing() {
        let found = passed(|all| all.runs[1].machine_pct = 81.0);
        assert_eq!(found, [None, None, None, None, Some(false), Some(true), Some(true), None, Some(true)]);
        assert_eq!(validity(&measured()).len(), 5);
    }

    #[test]
    fn a_modelled_quota_is_not_judged_by_the_kernels_figures() {
        assert_eq!(passed(|all| all.quota = "modelled (chosen)".into()).len(), 8);
    }
}
