//! Netflix's Gradient2: the limit falls when durations are longer than their long-term mean, and grows otherwise. From the crate `tower-acc`, with its
//! defaults apart from the range.

use std::time::Duration;

use tokio::time::Instant;
use tower_acc::{Algorithm, Gradient2 as Rule};

use super::policy::{Ended, Outcome, Policy, PolicyKind, QueueOrder, Settings};

pub const KIND: PolicyKind = PolicyKind {
    name: "gradient2",
    order: QueueOrder::Oldest,
    start: |settings, _now| Box::new(Gradient2::new(*settings)),
};

/// The crate's default.
const INITIAL: usize = 20;
/// That of `adaptive`. The crate's, 20, may be more than a small store can serve.
const MIN: usize = 4;

#[derive(Debug)]
struct Gradient2 {
    rule: Rule,
    settings: Settings,
}

impl Gradient2 {
    fn new(settings: Settings) -> Self {
        let max = settings.max_limit;
        let rule = Rule::builder().initial_limit(INITIAL.min(max)).min_limit(MIN.min(max)).max_limit(max).build();
        Self { rule, settings }
    }
}

impl Policy for Gradient2 {
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

#[cfg(test)]
mod tests {
    use super::{super::policy::tests::SETTINGS, *};

    #[test]
    fn the_limit_grows_while_durations_stay_and_falls_when_they_rise() {
        let mut gradient = Gradient2::new(SETTINGS);
        let mut observe = |ms, times| {
            for _ in 0..times {
                let in_flight = gradient.limit();
                let duration = Duration::from_millis(ms);
                gradient.observe(Instant::now(), Ended { duration, outcome: Outcome::Answered, in_flight });
            }
            gradient.limit()
        };
        let grown = observe(10, 50);
        assert!((35..=45).contains(&grown), "{grown}: by a fifth of two slots each time");
        let fallen = observe(50, 20);
        assert!(fallen < grown / 2, "{fallen}");
        let recovered = observe(10, 50);
        assert!(recovered > fallen, "{recovered}");
    }
}
