//! One day on one number of replicas, or on the rule's.

use std::collections::{BTreeMap, HashMap};

use autoscaler::line::{Case, StepAnswer, StepInput};
use launcher::ChildId;
use loadtest::plan::StepOutcome;
use report::{Second, Validity};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    calibration::Calibration,
    elasticity::{self, Elasticity},
    load::Load,
    servers::{FEW, MANY, Servers, options},
};
use crate::{
    autoscale::{Autoscaler, Options, Step},
    instruments::{generator, target},
    stack::service::ServiceStack,
};

/// Limits of the rule: with equal ones the count is fixed.
pub struct Variant {
    pub name: &'static str,
    pub min: u32,
    pub max: u32,
}

pub const FIXED_FEW: &str = "fixed 8";
pub const RULE: &str = "the article's rule";
pub const FIXED_MANY: &str = "fixed 20";
pub const VARIANTS: [Variant; 3] = [
    Variant { name: FIXED_FEW, min: FEW, max: FEW },
    Variant { name: RULE, min: FEW, max: MANY },
    Variant { name: FIXED_MANY, min: MANY, max: MANY },
];

#[derive(Debug, Clone, Default, Serialize)]
pub struct Run {
    pub variant: String,
    pub requests: Requests,
    pub elasticity: Elasticity,
    /// Minutes of the machine's clock in which a replica ran, from its start to its end, summed over the replicas.
    pub replica_minutes: f64,
    /// Seconds from the start of each replica to its being ready.
    pub time_to_ready_s: Vec<f64>,
    /// Of each window between two decisions, the replica that used most of its quota: CPU used over quota.
    pub cpu_over_quota_max: f64,
    /// Length of the measured part.
    pub measured_s: f64,
    /// Busy share of the machine, in percent.
    pub machine_pct: f64,
    pub decisions: Vec<Decision>,
    pub supply: Vec<Supply>,
    pub seconds: Vec<Second>,
    /// What the planner was given: a line for `testbed plan`, which answers with the same counts.
    pub plan: Case,
    #[serde(skip)]
    pub validity: Validity,
}

/// Of the measured part.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Requests {
    pub answered: u64,
    /// Without a good answer, by class.
    pub lost: BTreeMap<String, u64>,
    /// Planned instants at which the user still waited for the answer before.
    pub skipped: u64,
    /// Lost, answered after the SLO, or skipped: of all planned requests, in percent.
    pub beyond_slo_pct: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// The replicas from one instant to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Supply {
    /// Seconds since the measured part began.
    pub at_s: f64,
    pub users: u32,
    /// What the load needs, by calibration.
    pub demand: u32,
    pub desired: u32,
    pub ready: u32,
    pub starting: u32,
    pub leaving: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Decision {
    /// Seconds since the measured part began.
    pub at_s: f64,
    pub before: i32,
    pub after: i32,
    /// As the planner saw it.
    pub utilization_pct: Option<i32>,
    pub explain: Vec<String>,
}

impl Requests {
    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    fn of(outcome: &StepOutcome) -> Self {
        let planned = outcome.answered + outcome.skipped;
        let beyond = outcome.beyond_slo.unwrap_or_default() + outcome.skipped;
        Self {
            answered: outcome.answered,
            lost: outcome.errors.clone(),
            skipped: outcome.skipped,
            beyond_slo_pct: 100.0 * beyond as f64 / planned.max(1) as f64,
            p50_ms: outcome.latency.p50_ms,
            p99_ms: outcome.latency.p99_ms,
        }
    }
}

impl Run {
    /// CPU time of a request in milliseconds, by the planner's samples in the measured part. `None` without samples or users.
    pub fn cost_ms(&self) -> Option<f64> {
        let users_at = |at_s: f64| self.supply.iter().rfind(|now| now.at_s <= at_s).map(|now| now.users);
        let steps = self.decisions.iter().zip(&self.plan.steps);
        let seen = steps.filter_map(|(decision, step)| Some((users_at(decision.at_s)?, used_milli(step))));
        let (requests, milli) =
            seen.fold((0.0, 0.0), |sum, (users, milli)| (sum.0 + f64::from(users), sum.1 + milli as f64));
        (requests > 0.0 && milli > 0.0).then(|| milli / requests)
    }
}

/// Thousandths of a core, of all pods.
fn used_milli(step: &StepInput) -> i64 {
    let samples = step.pods.iter().filter_map(|pod| pod.metrics.as_ref());
    samples.flat_map(|sample| &sample.containers).filter_map(|usage| usage.usage_milli).sum()
}

/// # Errors
/// A replica or the load generator fails.
pub async fn run(
    servers: &mut Servers,
    variant: &Variant,
    load: &Load,
    calibration: &Calibration,
    hurry: u32,
) -> anyhow::Result<Run> {
    servers.scale_to(variant.min).await?;
    let mut plan = servers.plan(load.curve.users_at(0), load.warm_up_ms, load.measure_ms);
    plan.curve = Some(load.curve.clone());
    let options = options(variant.min, variant.max, hurry)?;
    let mut autoscaler = Autoscaler::new(options.clone(), &servers.service)?;
    let mut watched = Watched::default();
    let on_moment = async |service: &mut ServiceStack, _: generator::Moment<'_>| {
        let step = autoscaler.tick(service).await?;
        watched.see(service, &autoscaler, step);
        Ok(Some(Instant::now() + autoscaler.pause()))
    };
    let window = generator::drive(&mut servers.service, &servers.target, &plan, on_moment).await?;
    let outcome = &window.outcome;
    let supply = watched.supply(outcome, |ms| load.curve.users_at(ms), calibration);
    let end_s = outcome.measured_s;
    Ok(Run {
        variant: variant.name.to_owned(),
        requests: Requests::of(outcome),
        elasticity: elasticity::of(&supply.iter().map(Supply::instant).collect::<Vec<_>>(), end_s),
        replica_minutes: replica_minutes(&supply, end_s),
        time_to_ready_s: watched.time_to_ready_s(),
        cpu_over_quota_max: watched.cpu_over_quota_max(),
        measured_s: end_s,
        machine_pct: window.after.cpu_pct_since(&window.before),
        decisions: watched.steps.iter().map(|(at_ms, step)| decision(since(outcome, *at_ms), &step.answer)).collect(),
        plan: watched.case(variant, &options),
        supply,
        seconds: outcome.series.clone(),
        validity: window.validity,
    })
}

fn since(outcome: &StepOutcome, at_ms: u64) -> f64 {
    (at_ms as f64 - outcome.started_ms as f64) / 1000.0
}

fn decision(at_s: f64, answer: &StepAnswer) -> Decision {
    Decision {
        at_s,
        before: answer.replicas_before,
        after: answer.replicas,
        utilization_pct: answer.metrics.first().and_then(|metric| metric.utilization_percent),
        explain: answer.explain.clone(),
    }
}

fn replica_minutes(supply: &[Supply], end_s: f64) -> f64 {
    let ends = supply.iter().skip(1).map(|next| next.at_s).chain([end_s]);
    let seconds: f64 = supply.iter().zip(ends).map(|(now, end_s)| f64::from(now.running()) * (end_s - now.at_s)).sum();
    seconds / 60.0
}

impl Supply {
    fn instant(&self) -> elasticity::Instant {
        elasticity::Instant { at_s: self.at_s, demand: self.demand, supply: self.ready }
    }

    /// All that cost something.
    fn running(&self) -> u32 {
        self.ready + self.starting + self.leaving
    }
}

/// What happened during a run, by the Unix time in milliseconds.
#[derive(Default)]
struct Watched {
    replicas: Vec<(u64, Counts)>,
    steps: Vec<(u64, Step)>,
    ready: HashMap<ChildId, f64>,
}

#[derive(Clone, Copy, PartialEq)]
struct Counts {
    desired: u32,
    ready: u32,
    starting: u32,
    leaving: u32,
}

impl Watched {
    fn see(&mut self, service: &ServiceStack, autoscaler: &Autoscaler, step: Option<Step>) {
        let now_ms = target::unix_ms();
        let ready = service.replicas.iter().filter(|replica| replica.ready.is_some()).count();
        self.replicas.push((
            now_ms,
            Counts {
                desired: autoscaler.desired() as u32,
                ready: ready as u32,
                starting: (service.replicas.len() - ready) as u32,
                leaving: service.leaving() as u32,
            },
        ));
        for replica in &service.replicas {
            if let Some(ready) = replica.ready {
                self.ready.insert(replica.child, (ready - replica.started).as_secs_f64());
            }
        }
        if let Some(step) = step {
            if step.answer.replicas != step.answer.replicas_before {
                let answer = &step.answer;
                eprintln!("  {} → {}: {}", answer.replicas_before, answer.replicas, answer.explain.join(" "));
            }
            self.steps.push((now_ms, step));
        }
    }

    /// Of the measured part: from its first millisecond on.
    fn supply(&self, outcome: &StepOutcome, users_at: impl Fn(u64) -> u32, calibration: &Calibration) -> Vec<Supply> {
        let before = self.replicas.iter().rposition(|(at_ms, _)| *at_ms <= outcome.started_ms).unwrap_or_default();
        let seen = self.replicas[before.min(self.replicas.len())..].iter();
        seen.take_while(|(at_ms, _)| *at_ms < outcome.ended_ms)
            .map(|(at_ms, counts)| {
                let since_ms = at_ms.saturating_sub(outcome.started_ms);
                let users = users_at(since_ms);
                let Counts { desired, ready, starting, leaving } = *counts;
                let demand = calibration.demand(users);
                Supply { at_s: since_ms as f64 / 1000.0, users, demand, desired, ready, starting, leaving }
            })
            .collect()
    }

    fn time_to_ready_s(&self) -> Vec<f64> {
        let mut times: Vec<f64> = self.ready.values().copied().collect();
        times.sort_by(f64::total_cmp);
        times
    }

    fn cpu_over_quota_max(&self) -> f64 {
        let of_steps = self.steps.iter().flat_map(|(_, step)| step.utilization_pct.values());
        of_steps.fold(0.0_f64, |most, pct| most.max(pct / 100.0))
    }

    fn case(&self, variant: &Variant, options: &Options) -> Case {
        let steps = self.steps.iter().map(|(_, step)| step.input.clone()).collect();
        Case { steps, ..options.rule.case(variant.name, variant.min as usize) }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::experiments::autoscaling::calibration::tests::calibration;

    fn supply(at_s: f64, ready: u32, starting: u32, leaving: u32) -> Supply {
        Supply { at_s, users: 0, demand: 0, desired: 0, ready, starting, leaving }
    }

    #[test]
    fn a_replica_costs_from_its_start_to_its_end() {
        let seen = [supply(0.0, 8, 0, 0), supply(30.0, 8, 4, 0), supply(60.0, 12, 0, 0), supply(90.0, 8, 0, 4)];
        assert_eq!(replica_minutes(&seen, 120.0), (8.0 + 12.0 + 12.0 + 12.0) / 2.0);
    }

    #[test]
    fn the_first_instant_is_what_was_there_when_the_measured_part_began() {
        let counts = |ready| Counts { desired: 8, ready, starting: 0, leaving: 0 };
        let replicas = vec![(900, counts(7)), (990, counts(8)), (1_250, counts(9)), (2_000, counts(10))];
        let watched = Watched { replicas, ..Watched::default() };
        let outcome = StepOutcome { started_ms: 1_000, ended_ms: 2_000, ..outcome() };
        let supply = watched.supply(&outcome, |ms| if ms < 250 { 200 } else { 400 }, &calibration());
        let seen: Vec<_> = supply.iter().map(|now| (now.at_s, now.users, now.demand, now.ready)).collect();
        assert_eq!(seen, [(0.0, 200, 6, 8), (0.25, 400, 10, 9)]);
    }

    #[test]
    fn skipped_and_lost_requests_are_beyond_the_slo() {
        let outcome = StepOutcome { answered: 90, skipped: 10, beyond_slo: Some(15), ..outcome() };
        assert_eq!(Requests::of(&outcome).beyond_slo_pct, 25.0);
    }

    fn outcome() -> StepOutcome {
        StepOutcome {
            name: String::new(),
            users: 0,
            started_ms: 0,
            ended_ms: 0,
            measured_s: 1.0,
            offered_per_s: 0.0,
            sent: 0,
            answered: 0,
            good: 0,
            skipped: 0,
            beyond_slo: None,
            errors: BTreeMap::new(),
            error_pct: 0.0,
            sent_per_s: 0.0,
            answered_per_s: 0.0,
            good_per_s: 0.0,
            latency: loadtest::plan::Latency::default(),
            good_latency: loadtest::plan::Latency::default(),
            send_lag: loadtest::plan::SendLag::default(),
            known_sources: loadtest::figures::Sources::default(),
            unknown_sources: loadtest::figures::Sources::default(),
            known_answered: 0,
            known_personal_pct: None,
            repeated_ids: 0,
            series: Vec::new(),
            latency_curve: Vec::new(),
            hdr_log: String::new(),
            arrivals: String::new(),
            dropped: 0,
            corrected: None,
            requests: None,
            retries: None,
            criticalities: Vec::new(),
        }
    }
}
