//! A scaling policy: as many replicas as the mean rate of the last minute needs at 70 % CPU.

use super::{Policy, Seen, stateless};

pub const POLICY: Policy = Policy {
    name: "rate",
    about: "as many replicas as the mean rate of the last minute needs at 70 % CPU",
    period_s: 15,
    start: |_| Ok(stateless(decide)),
};

const WINDOW_S: usize = 60;
const TARGET: f64 = 0.7;

fn decide(seen: &Seen<'_>) -> u32 {
    if seen.past.is_empty() {
        return seen.fleet.desired();
    }
    seen.setup.demand(seen.mean(WINDOW_S, |second| second.rate) / TARGET)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{curve, decisions},
        *,
    };

    #[test]
    fn it_follows_the_rate_within_a_minute() {
        // A replica answers 50 requests/s: 210 need 6 at 70 %, and 420 need 12.
        let answers = decisions(&POLICY, &curve(&[(300, 210.0), (120, 420.0)]));
        assert_eq!((answers[10], *answers.last().unwrap()), (6, 12));
        assert!(answers[21] > 6 && answers[21] < 12, "{answers:?}");
    }
}
