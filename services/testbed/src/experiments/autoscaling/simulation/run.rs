//! One policy on one curve. Pure.

use serde::Serialize;

use super::{
    fleet::{Fleet, Second},
    policies::{Policy, Seen, Setup},
};
use crate::experiments::autoscaling::elasticity::{self, Elasticity};

/// What the users noticed and what it cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    pub policy: &'static str,
    pub planned: u64,
    /// Answered after the SLO, or not sent because the user still waited: of all planned requests, in percent.
    pub beyond_slo_pct: f64,
    /// From the start of each replica until it leaves.
    pub replica_minutes: f64,
    /// Decisions that changed the count.
    pub changes: usize,
    pub most_replicas: u32,
    pub elasticity: Elasticity,
}

/// All seconds of the curve.
///
/// # Errors
/// The policy cannot start, or refuses what it saw.
pub fn seconds(policy: &Policy, setup: &Setup<'_>) -> anyhow::Result<Vec<Second>> {
    let mut decide = (policy.start)(setup)?;
    let mut fleet = Fleet::new(setup.model, setup.replicas_at_first());
    let mut past = Vec::with_capacity(setup.curve.today.len());
    for (second, rate) in setup.curve.today.iter().enumerate() {
        if second.is_multiple_of(policy.period_s) {
            let wanted = decide(&Seen { setup, past: &past, fleet: &fleet })?;
            fleet.scale_to(wanted.clamp(setup.limits.min, setup.limits.max));
        }
        past.push(fleet.pass(*rate));
    }
    Ok(past)
}

pub fn outcome(policy: &Policy, setup: &Setup<'_>, seconds: &[Second]) -> Outcome {
    let planned = seconds.iter().map(|second| second.planned).sum();
    let beyond_slo: u64 = seconds.iter().map(|second| second.beyond_slo).sum();
    let instant = |(n, second): (usize, &Second)| elasticity::Instant {
        at_s: n as f64,
        demand: setup.demand(second.rate),
        supply: second.ready,
    };
    let instants: Vec<_> = seconds.iter().enumerate().map(instant).collect();
    let replica_seconds: u64 = seconds.iter().map(|second| u64::from(second.desired)).sum();
    Outcome {
        policy: policy.name,
        planned,
        beyond_slo_pct: 100.0 * beyond_slo as f64 / planned.max(1) as f64,
        replica_minutes: replica_seconds as f64 / 60.0,
        changes: seconds.windows(2).filter(|pair| pair[0].desired != pair[1].desired).count(),
        most_replicas: seconds.iter().map(|second| second.desired).max().unwrap_or_default(),
        elasticity: elasticity::of(&instants, seconds.len() as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::autoscaling::{
        rules::Limits,
        simulation::{
            curves::{Curve, built_in},
            model::tests::MODEL,
            policies::{ALL, FORESIGHT, tests::curve},
        },
    };

    const LIMITS: Limits = Limits { min: 8, max: 20 };
    /// Long enough for every surge, short enough for a debug build.
    const DAY_S: usize = 3_600;

    fn run(policy: &Policy, curve: &Curve, limits: Limits) -> Outcome {
        let setup = Setup { curve, limits, model: MODEL };
        outcome(policy, &setup, &seconds(policy, &setup).unwrap())
    }

    #[test]
    fn foresight_has_the_fewest_missing_replicas_on_every_curve() {
        let own = curve(&[(300, 900.0), (60, 0.0), (300, 2_000.0), (300, 5.0)]);
        for limits in [LIMITS, Limits { min: 1, max: 200 }] {
            for curve in built_in(DAY_S, 3).unwrap().iter().chain([&own]) {
                let under = |policy| run(policy, curve, limits).elasticity.accuracy_under;
                let bound = under(FORESIGHT);
                for policy in ALL {
                    assert!(bound <= under(policy), "{} on {}: {bound} {}", policy.name, curve.name, under(policy));
                }
            }
        }
    }

    /// Only what comes before any replica could have been started.
    #[test]
    fn foresight_misses_nothing_that_the_limits_allow() {
        for curve in built_in(DAY_S, 3).unwrap() {
            let setup = Setup { curve: &curve, limits: Limits { min: 1, max: 200 }, model: MODEL };
            let seconds = seconds(FORESIGHT, &setup).unwrap();
            let covered = |second: &Second| second.ready >= setup.demand(second.rate);
            assert!(seconds[MODEL.useful_after_s()..].iter().all(covered), "{}", curve.name);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let all = |seed: u64| {
            let curves = built_in(600, seed).unwrap();
            let runs = curves.iter().flat_map(|curve| ALL.iter().map(|policy| run(policy, curve, LIMITS)));
            serde_json::to_string(&runs.collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(all(5), all(5));
        assert_ne!(all(5), all(6), "the noise is another one");
    }

    #[test]
    fn a_run_adds_up() {
        let outcome = run(ALL[0], &curve(&[(60, 400.0), (60, 800.0)]), LIMITS);
        assert_eq!((outcome.planned, outcome.changes, outcome.most_replicas), (72_000, 0, 8));
        assert_eq!((outcome.replica_minutes, outcome.elasticity.timeshare_under_pct), (16.0, 50.0));
        assert_eq!(outcome.elasticity.accuracy_under, 4.0, "8 missing for half of the time");
        assert!((60.0..100.0 * 2.0 / 3.0).contains(&outcome.beyond_slo_pct), "{outcome:?}");
    }

    #[test]
    fn as_many_replicas_as_the_limits_allow() {
        let limits = Limits { min: 1, max: 900 };
        let outcome = run(FORESIGHT, &curve(&[(30, 20_000.0), (30, 45_000.0)]), limits);
        assert_eq!((outcome.most_replicas, outcome.beyond_slo_pct), (900, 0.0));
    }
}
