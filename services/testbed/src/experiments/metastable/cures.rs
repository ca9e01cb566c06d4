//! What lets the system recover: each cure is a switch of the client or of the replicas. Pure.

use loadtest::{
    retry::{Backoff, Budget},
    scenario::{Order, Scenario},
};

use super::classes::Class;

pub struct Cure {
    /// As in the journal and in reports.
    pub name: &'static str,
    /// Of the client, and of the store as the model sees it.
    change: fn(&mut Scenario),
    /// Settings of the replicas.
    sets: &'static [&'static str],
    /// Expired lists are answers: they must exist before the load.
    pub needs_lists: bool,
    /// Whether the model has it.
    pub is_modelled: bool,
}

/// Without a cure.
pub static NONE: Cure = OFF;

const OFF: Cure = Cure { name: "none", change: |_| (), sets: &[], needs_lists: false, is_modelled: true };

/// Each cure alone.
pub static ALL: [Cure; 9] = [
    Cure { name: "no retries", change: |scenario| attempts(scenario, 1), ..OFF },
    Cure { name: "retry budget 20 %", change: |scenario| budget(scenario, 20.0), ..OFF },
    Cure { name: "pauses with jitter", change: jitter, ..OFF },
    Cure { name: "deadline honoured", sets: &["http.honour_deadline=on"], is_modelled: false, ..OFF },
    Cure {
        name: "newest first",
        change: |scenario| scenario.store.order = Order::Newest,
        sets: &["store.order=newest"],
        ..OFF
    },
    Cure { name: "admission", sets: ADMISSION, is_modelled: false, ..OFF },
    Cure { name: "coalescing", sets: &["guards.coalesce=on"], is_modelled: false, ..OFF },
    Cure { name: "stale answers", sets: STALE, needs_lists: true, is_modelled: false, ..OFF },
    Cure { name: "warm-up", sets: WARM_UP, is_modelled: false, ..OFF },
];

/// All of them at once; retries have a budget of 10 % and pauses instead of being off.
pub static ALL_ON: Cure = Cure {
    name: "all",
    change: |scenario| {
        budget(scenario, 10.0);
        jitter(scenario);
        scenario.store.order = Order::Newest;
    },
    sets: &[
        "http.honour_deadline=on",
        "store.order=newest",
        "http.admission=fixed",
        "http.admission_limit=100",
        "guards.coalesce=on",
        "cache.stale_ms=86400000",
        "guards.warmup=on",
        "guards.warmup_again_pct=50",
    ],
    needs_lists: true,
    is_modelled: false,
};

/// Admitted requests of a replica wait for a connection for less than the timeout of a try.
const ADMISSION: &[&str] = &["http.admission=fixed", "http.admission_limit=100"];
const WARM_UP_AGAIN: &str = "guards.warmup_again_pct=";
/// Before the replicas are ready, and again when half of the lookups find no list.
const WARM_UP: &[&str] = &["guards.warmup=on", "guards.warmup_again_pct=50"];
/// An expired list is the answer if the store fails before the client's deadline, so the replica must know it.
const STALE: &[&str] = &["cache.stale_ms=86400000", "http.honour_deadline=on"];

/// `None`: there is no such cure.
pub fn of(name: &str) -> Option<&'static Cure> {
    ALL.iter().chain([&NONE, &ALL_ON]).find(|cure| cure.name == name)
}

fn attempts(scenario: &mut Scenario, attempts: u32) {
    if let Some(retry) = &mut scenario.retry {
        retry.attempts = attempts;
    }
}

fn budget(scenario: &mut Scenario, budget_pct: f64) {
    if let Some(retry) = &mut scenario.retry {
        retry.budget = Budget::Tokens { budget_pct, budget_min_per_s: 10.0 };
    }
}

fn jitter(scenario: &mut Scenario) {
    if let Some(retry) = &mut scenario.retry {
        retry.backoff = Backoff::Exponential { backoff_ms: 200, jitter: 1.0 };
    }
}

impl Cure {
    pub fn scenario(&self, mut scenario: Scenario) -> Scenario {
        (self.change)(&mut scenario);
        scenario
    }

    /// Settings of the replicas of this class: those of the class first.
    pub fn sets(&self, class: &Class) -> Vec<String> {
        // Without a cache every lookup misses, and no warm-up helps.
        let applies = |set: &&&str| class.has_cache() || !set.starts_with(WARM_UP_AGAIN);
        class.sets().iter().chain(self.sets.iter().filter(applies)).map(|set| (*set).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use api::Profile;

    use super::*;
    use crate::{experiments::metastable::classes, stack::service};

    #[test]
    fn every_cure_is_valid_in_every_class() {
        for class in &classes::ALL {
            let scenario = class.scenario(1).unwrap();
            let plan = service::Plan::new("test", &scenario);
            for cure in ALL.iter().chain([&NONE, &ALL_ON]) {
                plan.check(Profile::Baseline, &cure.sets(class)).unwrap();
                let cured = cure.scenario(scenario.clone());
                cured.retry.as_ref().unwrap().check(cured.timeout_ms).unwrap();
                let changes = cured != scenario || cure.sets(class).len() > class.sets().len();
                assert_eq!(changes, cure.name != NONE.name, "{}", cure.name);
                assert_eq!(of(cure.name).map(|found| found.name), Some(cure.name));
            }
        }
        assert!(of("luck").is_none());
        let names: BTreeSet<&str> = ALL.iter().map(|cure| cure.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
