//! Netflix's Gradient2: the limit falls when durations are longer than their long-term mean, and grows otherwise. From the crate `tower-acc`, with its
//! defaults apart from the range.

use tower_acc::Gradient2;

use super::{
    crate_rule::{CrateRule, INITIAL},
    policy::{PolicyKind, QueueOrder, Settings},
};

pub const KIND: PolicyKind = PolicyKind {
    name: "gradient2",
    order: QueueOrder::Oldest,
    start: |settings, _now| Box::new(CrateRule::new(rule(settings), settings)),
};

/// That of `adaptive`. The crate's, 20, may be more than a small store can serve.
const MIN: usize = 4;

fn rule(settings: &Settings) -> Gradient2 {
    let max = settings.max_limit;
    Gradient2::builder().initial_limit(INITIAL.min(max)).min_limit(MIN.min(max)).max_limit(max).build()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{
        super::policy::{Ended, Outcome, tests::SETTINGS},
        *,
    };

    #[test]
    fn the_limit_grows_while_durations_stay_and_falls_when_they_rise() {
        let mut gradient = (KIND.start)(&SETTINGS, Instant::now());
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
