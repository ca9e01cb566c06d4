//! The policies that are compared: settings of the replicas, and what the client does.

use anyhow::ensure;
use api::Profile;
use loadtest::{
    retry::{Budget, DEFAULT_ADAPTIVE_K},
    scenario::Scenario,
};

use crate::evaluation::Variant;

/// A policy under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedPolicy {
    pub name: String,
    sets: Vec<String>,
    /// Whether the client throttles itself.
    throttles: bool,
}

/// The one that is judged: `protected` as shipped.
pub const DEFAULT: &str = "default";
/// No overload control at all: requests wait for the store in the order of their arrival.
const NONE: [&str; 3] = ["http.admission=off", "store.order=oldest", "store.standing_wait_ms=0"];
/// Policies with the shipped admission limit.
pub const SHIPPED_LIMIT: [&str; 2] = [DEFAULT, "full-waits"];
/// `protected` without controlled delay at the store.
const FULL_WAITS: [&str; 1] = ["store.standing_wait_ms=0"];
/// Four times a replica's connections; of `fixed` and `codel` the limit, of the others its highest value.
pub const LIMIT: &str = "http.admission_limit=48";
/// Those of a quick run.
const QUICK: [&str; 5] = ["none", DEFAULT, "adaptive", "gradient2", "codel"];

/// All, each policy of the service included.
pub fn all() -> Vec<ComparedPolicy> {
    let compared = |name: &str, sets: &[&str], throttles| ComparedPolicy {
        name: name.to_owned(),
        sets: sets.iter().map(|&set| set.to_owned()).collect(),
        throttles,
    };
    let own = [
        compared("none", &NONE, false),
        compared("client-throttling", &NONE, true),
        compared(DEFAULT, &[], false),
        compared(SHIPPED_LIMIT[1], &FULL_WAITS, false),
    ];
    let policies = api::admission_policies();
    // Admission alone, without controlled delay at the store.
    let policies =
        policies.map(|name| compared(name, &[&format!("http.admission={name}"), LIMIT, FULL_WAITS[0]], false));
    own.into_iter().chain(policies).collect()
}

/// Those of these names, all without names, in a quick run fewer.
///
/// # Errors
/// There is none of a name; the message lists them.
pub fn chosen(names: &[String], quick: bool) -> anyhow::Result<Vec<ComparedPolicy>> {
    let all = all();
    let known: Vec<&str> = all.iter().map(|policy| policy.name.as_str()).collect();
    for name in names {
        ensure!(
            known.contains(&name.as_str()),
            "--policy {name}: there is no such policy: choose {}",
            known.join(", ")
        );
    }
    let is_chosen = |policy: &ComparedPolicy| match names {
        [] if quick => QUICK.contains(&policy.name.as_str()),
        [] => true,
        names => names.contains(&policy.name),
    };
    Ok(all.iter().filter(|policy| is_chosen(policy)).cloned().collect())
}

impl ComparedPolicy {
    /// As a variant of an evaluation.
    pub fn variant(&self, scenario: &Scenario) -> Variant {
        let throttled = || {
            let mut scenario = scenario.clone();
            let budget = Budget::Adaptive { adaptive_k: DEFAULT_ADAPTIVE_K };
            scenario.retry.iter_mut().for_each(|retry| retry.budget = budget);
            Box::new(scenario)
        };
        Variant {
            name: self.name.clone(),
            profile: Profile::Protected,
            sets: self.sets.clone(),
            scenario: self.throttles.then(throttled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &[ComparedPolicy]) -> Vec<&str> {
        chosen.iter().map(|policy| policy.name.as_str()).collect()
    }

    #[test]
    fn every_policy_of_the_service_is_compared_and_an_unknown_one_is_an_error() {
        let all = chosen(&[], false).unwrap();
        let own = ["none", "client-throttling", DEFAULT, "full-waits"];
        let expected: Vec<&str> = own.into_iter().chain(api::admission_policies()).collect();
        assert_eq!(names(&all), expected);
        assert_eq!(names(&chosen(&[], true).unwrap()), QUICK);
        let two = ["codel".to_owned(), "none".to_owned()];
        assert_eq!(names(&chosen(&two, true).unwrap()), ["none", "codel"]);
        let error = chosen(&["red".to_owned()], false).unwrap_err().to_string();
        assert_eq!(error, format!("--policy red: there is no such policy: choose {}", expected.join(", ")));
    }
}
