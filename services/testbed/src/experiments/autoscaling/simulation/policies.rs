//! The policies that are compared: each is a file and one line in [`ALL`]. docs/extending.md adds one.

mod fixed;
mod foresight;
mod hpa;
mod knative;
mod predictive;
mod step_rule;

use anyhow::bail;

use super::{
    curves::Curve,
    fleet::{Fleet, Second},
    model::Model,
};
use crate::experiments::autoscaling::rules::Limits;

/// In the order of the tables.
pub const ALL: &[&Policy] = &[
    &fixed::POLICY,
    &hpa::ARTICLE,
    &hpa::KUBERNETES_DEFAULT,
    &knative::POLICY,
    &step_rule::POLICY,
    &hpa::IN_FLIGHT,
    &predictive::POLICY,
    &foresight::POLICY,
];
/// Of the live experiment.
pub const ARTICLE: &Policy = &hpa::ARTICLE;
/// The bound.
pub const FORESIGHT: &Policy = &foresight::POLICY;

/// From what was seen to a count of replicas. No clock, no I/O and no chance: the same sight gives the same count.
pub struct Policy {
    pub name: &'static str,
    /// A sentence with its figures.
    pub about: &'static str,
    /// Seconds between two decisions.
    pub period_s: usize,
    /// Begins a run.
    pub start: fn(&Setup<'_>) -> anyhow::Result<Decide>,
}

/// A decision, with the memory of those before. The simulation keeps the answer within the limits.
pub type Decide = Box<dyn FnMut(&Seen<'_>) -> anyhow::Result<u32>>;

/// What does not change during a run.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    pub curve: &'a Curve,
    pub limits: Limits,
    pub model: Model,
}

/// What is known at a decision.
pub struct Seen<'a> {
    /// A policy of the real world reads `curve.yesterday` at most, and not the rates of today, which are the future.
    pub setup: &'a Setup<'a>,
    /// All seconds so far.
    pub past: &'a [Second],
    pub fleet: &'a Fleet,
}

impl Setup<'_> {
    pub fn demand(&self, rate: f64) -> u32 {
        self.model.demand(rate)
    }

    /// Replicas at the begin: what the first second needs, within the limits.
    pub fn replicas_at_first(&self) -> u32 {
        let first = self.curve.today.first().copied().unwrap_or_default();
        self.demand(first).clamp(self.limits.min, self.limits.max)
    }
}

impl Seen<'_> {
    /// The last `seconds`, or fewer at the begin.
    pub fn last(&self, seconds: usize) -> &[Second] {
        &self.past[self.past.len().saturating_sub(seconds)..]
    }

    /// Mean over the last `seconds`; 0 at the begin.
    pub fn mean(&self, seconds: usize, of: fn(&Second) -> f64) -> f64 {
        let last = self.last(seconds);
        last.iter().map(of).sum::<f64>() / last.len().max(1) as f64
    }
}

/// For a policy without a memory.
pub fn stateless(decide: fn(&Seen<'_>) -> u32) -> Decide {
    Box::new(move |seen| Ok(decide(seen)))
}

/// Those of these names, in their order in `all`; all without names.
///
/// # Errors
/// A name is unknown.
pub fn chosen(all: &'static [&'static Policy], names: &[String]) -> anyhow::Result<Vec<&'static Policy>> {
    let known = || all.iter().map(|policy| policy.name).collect::<Vec<_>>().join(", ");
    if let Some(name) = names.iter().find(|name| all.iter().all(|policy| policy.name != name.as_str())) {
        bail!("there is no policy {name:?}: choose from {}", known());
    }
    let is_chosen = |policy: &&&Policy| names.is_empty() || names.iter().any(|name| name == policy.name);
    Ok(all.iter().filter(is_chosen).copied().collect())
}

#[cfg(test)]
#[path = "../../../../../../docs/examples/policy.rs"]
pub mod example;

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::experiments::autoscaling::simulation::model::tests::MODEL;

    /// What a policy of that name decides after these seconds: its answers, one for each decision.
    pub fn decisions(policy: &Policy, curve: &Curve) -> Vec<u32> {
        let setup = Setup { curve, limits: Limits { min: 2, max: 20 }, model: MODEL };
        let mut decide = (policy.start)(&setup).unwrap();
        let mut fleet = Fleet::new(setup.model, setup.replicas_at_first());
        let (mut past, mut answers) = (Vec::new(), Vec::new());
        for (second, rate) in curve.today.iter().enumerate() {
            if second.is_multiple_of(policy.period_s) {
                let answer = decide(&Seen { setup: &setup, past: &past, fleet: &fleet }).unwrap();
                fleet.scale_to(answer.clamp(setup.limits.min, setup.limits.max));
                answers.push(answer);
            }
            past.push(fleet.pass(*rate));
        }
        answers
    }

    /// Each rate for so many seconds.
    pub fn curve(parts: &[(usize, f64)]) -> Curve {
        let today = parts.iter().flat_map(|&(seconds, rate)| std::iter::repeat_n(rate, seconds)).collect();
        Curve { name: "test".into(), about: String::new(), yesterday: Vec::new(), today }
    }

    #[test]
    fn policies_are_chosen_by_name() {
        let names = |chosen: &[&str]| {
            let chosen: Vec<String> = chosen.iter().map(|name| (*name).to_owned()).collect();
            super::chosen(ALL, &chosen).map(|found| found.iter().map(|policy| policy.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), ALL.len());
        assert_eq!(names(&["foresight", "fixed"]).unwrap(), ["fixed", "foresight"]);
        let error = names(&["fixed", "best"]).unwrap_err().to_string();
        assert!(error.contains("no policy \"best\": choose from fixed, hpa-article"), "{error}");
        let unique: std::collections::BTreeSet<_> = names(&[]).unwrap().into_iter().collect();
        assert_eq!(unique.len(), ALL.len());
    }
}
