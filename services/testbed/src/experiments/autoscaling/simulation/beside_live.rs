//! The simulation of a live run beside it: the same load, rule, hurry and limits. From the live run it takes what the model cannot know: the CPU
//! time of a request, how long a start takes, and when the first decision was.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    curves::Curve,
    model::Model,
    policies::{self, Setup},
    run,
};
use crate::{
    autoscale::{REQUEST_CORES, SYNC_PERIOD},
    experiments::autoscaling::{
        load::Load,
        rules::Limits,
        servers::{FEW, INTERVAL_MS, MANY, SLO_MS},
    },
};

/// Share of the seconds in which both have the same number of ready replicas, or one more or less, in percent.
pub const MIN_WITHIN_ONE_PCT: f64 = 90.0;
/// A change of one has a change in the same direction of the other within this number of decisions.
pub const MAX_TICKS: f64 = 2.0;
/// The gateway tries an absent replica again 2 to 3 s after the last time, so that a new one gets its first request after 0 to 3 s
/// (`deploy/nginx/slots/upstream.conf`).
const FOUND_AFTER: Duration = Duration::from_millis(1_500);

/// What the simulation takes from the live run. Seconds of the machine's clock; those since the measured part began may be negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    pub hurry: u32,
    /// CPU time of a request.
    pub cost_ms: f64,
    pub ready_after_s: f64,
    /// When the autoscaler began, a period before its first decision.
    pub begin_s: f64,
    /// Of the measured part.
    pub end_s: f64,
}

/// Replicas from one instant on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// Seconds since the measured part began.
    pub at_s: f64,
    pub desired: u32,
    pub ready: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Beside {
    pub inputs: Inputs,
    /// Only changes.
    pub live: Vec<Count>,
    pub simulated: Vec<Count>,
    pub compared_s: u32,
    /// Of them.
    pub within_one_s: u32,
    /// Changes of the desired count in both.
    pub changes: usize,
    /// Those that the other has not, within [`MAX_TICKS`].
    pub unmatched: usize,
}

/// `live` is in order of time.
///
/// # Errors
/// The article's rule does not start.
pub fn compare(inputs: Inputs, load: &Load, live: impl Iterator<Item = Count>) -> anyhow::Result<Beside> {
    let (live, simulated) = (changes(live), changes(simulate(&inputs, load)?.into_iter()));
    let compared_s = inputs.end_s as u32;
    let is_within_one = |second: &u32| {
        let at_s = f64::from(*second);
        ready_at(&live, at_s).zip(ready_at(&simulated, at_s)).is_some_and(|(a, b)| a.abs_diff(b) <= 1)
    };
    let tick_s = SYNC_PERIOD.as_secs_f64() / f64::from(inputs.hurry);
    let (of_live, of_simulated) = (steps(&live), steps(&simulated));
    let unmatched = without_match(&of_live, &of_simulated, MAX_TICKS * tick_s)
        + without_match(&of_simulated, &of_live, MAX_TICKS * tick_s);
    Ok(Beside {
        inputs,
        compared_s,
        within_one_s: (0..compared_s).filter(is_within_one).count() as u32,
        changes: of_live.len() + of_simulated.len(),
        unmatched,
        live,
        simulated,
    })
}

impl Beside {
    pub fn within_one_pct(&self) -> f64 {
        100.0 * f64::from(self.within_one_s) / f64::from(self.compared_s.max(1))
    }

    /// Something was compared, and both agree.
    pub fn agree(&self) -> bool {
        self.compared_s > 0 && self.changes > 0 && self.within_one_pct() >= MIN_WITHIN_ONE_PCT && self.unmatched == 0
    }
}

fn simulate(inputs: &Inputs, load: &Load) -> anyhow::Result<Vec<Count>> {
    let Inputs { hurry, cost_ms, ready_after_s, begin_s, end_s } = *inputs;
    let at_s = |second: usize| begin_s + second as f64 / f64::from(hurry);
    let warm_up_s = load.warm_up_ms as f64 / 1_000.0;
    let rate = |second: usize| {
        let at_s = at_s(second);
        if at_s < -warm_up_s { 0.0 } else { f64::from(load.curve.users_at((1_000.0 * at_s.max(0.0)) as u64)) }
    };
    let seconds = ((end_s - begin_s) * f64::from(hurry)).max(0.0) as usize;
    let today = (0..seconds).map(rate).collect();
    let curve = Curve { name: "live run".into(), about: String::new(), yesterday: Vec::new(), today };
    let model = Model {
        quota: REQUEST_CORES,
        cost: Duration::from_secs_f64(cost_ms / 1_000.0),
        slo: Duration::from_millis(SLO_MS),
        patience: Duration::from_millis(INTERVAL_MS),
        ready_after: Duration::from_secs_f64(ready_after_s),
        found_after: FOUND_AFTER,
        hurry,
    };
    let setup = Setup { curve: &curve, limits: Limits { min: FEW, max: MANY }, model };
    let passed = run::seconds(policies::ARTICLE, &setup)?;
    let count = |(n, second): (usize, &super::fleet::Second)| Count {
        at_s: at_s(n),
        desired: second.desired,
        ready: second.ready,
    };
    Ok(passed.iter().enumerate().map(count).collect())
}

/// Without those that repeat the one before.
fn changes(counts: impl Iterator<Item = Count>) -> Vec<Count> {
    let mut kept: Vec<Count> = Vec::new();
    for count in counts {
        if kept.last().is_none_or(|last| (last.desired, last.ready) != (count.desired, count.ready)) {
            kept.push(count);
        }
    }
    kept
}

fn ready_at(counts: &[Count], at_s: f64) -> Option<u32> {
    let after = counts.partition_point(|count| count.at_s <= at_s);
    after.checked_sub(1).map(|last| counts[last].ready)
}

/// When the desired count changed in the measured part, and whether it rose.
fn steps(counts: &[Count]) -> Vec<(f64, bool)> {
    let changed = counts.windows(2).filter(|pair| pair[0].desired != pair[1].desired && pair[1].at_s >= 0.0);
    changed.map(|pair| (pair[1].at_s, pair[1].desired > pair[0].desired)).collect()
}

/// How many of `some` have no step in the same direction among `others` within this time.
fn without_match(some: &[(f64, bool)], others: &[(f64, bool)], within_s: f64) -> usize {
    let is_near = |a: &(f64, bool), b: &(f64, bool)| a.1 == b.1 && (a.0 - b.0).abs() <= within_s;
    some.iter().filter(|step| !others.iter().any(|other| is_near(step, other))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Recorded {
        inputs: Inputs,
        live: Vec<Count>,
    }

    /// Of a live run: `./testbed experiment autoscaling --quota modelled --json | jq -c '.sections[1].measured | {inputs, live}'`.
    fn recorded() -> Recorded {
        serde_json::from_str(include_str!("live_run.json")).unwrap()
    }

    fn beside(live: impl Fn(Count) -> Count) -> Beside {
        let recorded = recorded();
        let load = Load::new(recorded.inputs.hurry).unwrap();
        compare(recorded.inputs, &load, recorded.live.into_iter().map(live)).unwrap()
    }

    #[test]
    fn the_simulation_follows_a_live_run() {
        let beside = beside(|count| count);
        assert!(beside.live.iter().any(|count| count.ready >= 12), "the live run scaled out");
        assert!(beside.agree(), "{} % {beside:#?}", beside.within_one_pct());
    }

    #[test]
    fn another_run_is_not_taken_for_it() {
        let later = beside(|count| Count { at_s: count.at_s + 4.0, ..count });
        assert!(later.unmatched > 0, "{later:#?}");
        let more = beside(|count| Count { ready: count.ready + 3, ..count });
        assert!(more.within_one_pct() < MIN_WITHIN_ONE_PCT && !more.agree());
        let still = beside(|count| Count { desired: 8, ready: 8, ..count });
        assert!(!still.agree() && still.unmatched > 0);
    }
}
