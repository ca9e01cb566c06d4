//! TCP Vegas' rule: the limit grows while few requests queue, by the shortest duration seen, and falls when many do. From the crate `tower-acc`, with
//! its defaults, which are those of Netflix's concurrency-limits. Unlike Netflix's, it ignores an overload while fewer than half of the limit are
//! in flight.

use tower_acc::Vegas;

use super::{
    crate_rule::{CrateRule, INITIAL},
    policy::{PolicyKind, QueueOrder, Settings},
};

pub const KIND: PolicyKind = PolicyKind {
    name: "vegas",
    order: QueueOrder::Oldest,
    start: |settings, _now| Box::new(CrateRule::new(rule(settings), settings)),
};

fn rule(settings: &Settings) -> Vegas {
    Vegas::builder().initial_limit(INITIAL.min(settings.max_limit)).max_limit(settings.max_limit).build()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{
        super::policy::{Ended, Outcome, tests::SETTINGS},
        *,
    };

    /// The sequences of `VegasLimitTest` in Netflix/concurrency-limits, with its own thresholds instead of the test's: at a limit of 20 they are
    /// 3, 6 and 1.
    #[test]
    fn the_limit_follows_the_estimated_queue() {
        let ms = |ms| Ended { duration: Duration::from_millis(ms), outcome: Outcome::Answered, in_flight: 20 };
        let after = |durations: &[u64]| {
            let mut vegas = (KIND.start)(&SETTINGS, Instant::now());
            durations.iter().for_each(|duration| vegas.observe(Instant::now(), ms(*duration)));
            vegas.limit()
        };
        assert_eq!(after(&[10]), 20, "the first duration is the baseline");
        assert_eq!(after(&[10, 10]), 26, "nothing queues");
        assert_eq!(after(&[10, 11]), 21, "2 of 20 queue");
        assert_eq!(after(&[10, 12]), 20, "4 of 20 queue");
        assert_eq!(after(&[10, 50]), 19, "16 of 20 queue");
        assert_eq!(after(&[10, 5, 10]), 19, "a new baseline");
    }

    #[test]
    fn overload_lowers_the_limit_and_other_failures_do_not_count() {
        let mut vegas = (KIND.start)(&SETTINGS, Instant::now());
        let mut end = |outcome| {
            vegas.observe(Instant::now(), Ended { duration: Duration::from_millis(10), outcome, in_flight: 20 });
            vegas.limit()
        };
        assert_eq!([Outcome::Answered, Outcome::Failed, Outcome::Overloaded].map(&mut end), [20, 20, 19]);
    }
}
