//! A rule of the crate `tower-acc` as a policy.

use std::{fmt::Debug, time::Duration};

use tokio::time::Instant;
use tower_acc::Algorithm;

use super::policy::{Ended, Outcome, Policy, Settings};

/// The first limit of the crate's rules, by default.
pub const INITIAL: usize = 20;

#[derive(Debug)]
pub struct CrateRule<A> {
    rule: A,
    settings: Settings,
}

impl<A> CrateRule<A> {
    pub fn new(rule: A, settings: &Settings) -> Self {
        Self { rule, settings: *settings }
    }
}

impl<A: Algorithm + Debug + Send> Policy for CrateRule<A> {
    fn limit(&self) -> usize {
        self.rule.max_concurrency()
    }

    fn observe(&mut self, _now: Instant, ended: Ended) {
        let Ended { duration, outcome, in_flight } = ended;
        // A refusal is fast, and a client may leave early: neither is the duration of an idle service.
        let duration = if outcome == Outcome::Overloaded { duration.max(self.settings.target) } else { duration };
        self.rule.update(duration, in_flight, outcome == Outcome::Overloaded, outcome == Outcome::Failed);
    }

    fn max_wait(&self, _standing: Duration) -> Duration {
        self.settings.wait
    }
}
