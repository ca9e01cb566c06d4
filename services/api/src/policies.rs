//! Policies of admission: how many requests are in flight at a time, and how long others wait. Each is a file of this folder and a line in [`ALL`];
//! docs/extending.md says how to add one. Pure.

mod aimd;
mod codel;
mod crate_rule;
mod fixed;
mod gradient2;
mod policy;
mod vegas;

pub use self::policy::{Ended, Outcome, Policy, PolicyKind, QueueOrder, Settings};

/// All policies. Their names are the values of `http.admission`, beside [`OFF`].
pub const ALL: &[&PolicyKind] = &[&fixed::KIND, &aimd::KIND, &vegas::KIND, &gradient2::KIND, &codel::KIND];

/// The policy of writes.
pub const FIXED: &PolicyKind = &fixed::KIND;

/// The value of `http.admission` that limits nothing.
pub const OFF: &str = "off";

/// The policy of this name; `None`: there is none.
pub fn find(name: &str) -> Option<&'static PolicyKind> {
    ALL.iter().copied().find(|kind| kind.name == name)
}

#[cfg(test)]
#[path = "../../../docs/examples/admission_policy.rs"]
mod example;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use tokio::time::Instant;

    use super::*;
    use crate::policies::policy::tests::SETTINGS;

    #[test]
    fn names_are_unique_and_found() {
        let names: BTreeSet<&str> = ALL.iter().map(|kind| kind.name).chain([OFF]).collect();
        assert_eq!(names.len(), ALL.len() + 1);
        for kind in ALL {
            assert_eq!(find(kind.name).map(|found| found.name), Some(kind.name));
        }
        assert!(find(OFF).is_none() && find("no-such").is_none());
    }

    /// Any sequence of ends, with limits from 1 to a few requests: a limit below 1 would admit no request that could raise it again.
    #[test]
    fn every_limit_stays_in_its_range() {
        for kind in ALL.iter().copied().chain([&example::KIND]) {
            for max_limit in [1, 2, 7, 1_500] {
                let mut now = Instant::now();
                let mut policy = (kind.start)(&Settings { max_limit, ..SETTINGS }, now);
                for n in 0..3_000_u64 {
                    let outcome = [Outcome::Answered, Outcome::Overloaded, Outcome::Failed][(n / 500 % 3) as usize];
                    let duration = Duration::from_micros([1, 900, 40_000, 3_000_000][(n / 200 % 4) as usize] + n);
                    now += Duration::from_millis(7);
                    policy.observe(now, Ended { duration, outcome, in_flight: policy.limit() });
                    let limit = policy.limit();
                    assert!((1..=max_limit).contains(&limit), "{}: {limit} of {max_limit}", kind.name);
                }
                assert!(policy.max_wait(Duration::from_secs(1)) <= Duration::from_millis(100), "{}", kind.name);
            }
        }
    }

    /// docs/extending.md promises it.
    #[test]
    fn the_example_is_a_policy_of_at_most_a_hundred_lines() {
        let source = include_str!("../../../docs/examples/admission_policy.rs");
        assert!(source.lines().count() <= 100);
        let mut policy = (example::KIND.start)(&SETTINGS, Instant::now());
        let end = |outcome, in_flight| Ended { duration: Duration::from_millis(10), outcome, in_flight };
        policy.observe(Instant::now(), end(Outcome::Overloaded, 100));
        assert_eq!(policy.limit(), 50);
        (0..51).for_each(|_| policy.observe(Instant::now(), end(Outcome::Answered, 51)));
        assert_eq!(policy.limit(), 51);
        (0..50).for_each(|_| policy.observe(Instant::now(), end(Outcome::Answered, 10)));
        assert_eq!(policy.limit(), 51, "it is not in use");
    }
}
