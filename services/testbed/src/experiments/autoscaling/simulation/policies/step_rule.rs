//! The article's sentence read literally: "CPU above 70 % for two minutes scales out".

use super::{Policy, Seen, hpa::PERIOD_S, stateless};
use crate::experiments::autoscaling::simulation::fleet::Second;

pub const POLICY: Policy = Policy {
    name: "step-rule",
    about: "the article's sentence read literally: CPU above 70 % in each 15 s of two minutes adds one replica, and the two minutes begin \
            anew; one leaves when the others would have stayed below 70 % for as long, which the sentence leaves open",
    period_s: PERIOD_S,
    start: |_| Ok(stateless(decide)),
};

const WINDOW_S: usize = 120;
const TARGET_PCT: f64 = 70.0;

fn decide(seen: &Seen<'_>) -> u32 {
    let (last, desired) = (seen.last(WINDOW_S), seen.fleet.desired());
    if last.len() < WINDOW_S || last.iter().any(|second| second.desired != desired) {
        return desired;
    }
    let cpu = |second: &Second| second.utilization_pct * f64::from(second.ready);
    let of_one_less = f64::from(desired.saturating_sub(1));
    let samples = || last.chunks(PERIOD_S);
    let mean = |part: &[Second], of: &dyn Fn(&Second) -> f64| part.iter().map(of).sum::<f64>() / part.len() as f64;
    if samples().all(|part| mean(part, &|second| second.utilization_pct) > TARGET_PCT) {
        desired + 1
    } else if samples().all(|part| mean(part, &cpu) < TARGET_PCT * of_one_less) {
        desired - 1
    } else {
        desired
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{curve, decisions},
        *,
    };

    #[test]
    fn one_replica_every_two_minutes_until_cpu_is_below_the_target() {
        // 280 requests/s need 8 replicas at 70 %; the first has 6.
        let answers = decisions(&POLICY, &curve(&[(900, 290.0), (900, 100.0)]));
        let changes: Vec<(usize, u32)> =
            (1..answers.len()).filter(|n| answers[*n] != answers[n - 1]).map(|n| (PERIOD_S * n, answers[n])).collect();
        let out = [(120, 7), (240, 8), (360, 9)];
        assert_eq!(changes[..3], out, "{changes:?}");
        assert_eq!(changes[3], (1_020, 8), "{changes:?}");
        assert!(changes[3..].windows(2).all(|pair| pair[1] == (pair[0].0 + 120, pair[0].1 - 1)), "{changes:?}");
    }

    #[test]
    fn a_short_dip_begins_the_two_minutes_anew() {
        let answers = decisions(&POLICY, &curve(&[(105, 100.0), (15, 40.0), (110, 100.0)]));
        assert!(answers.iter().all(|count| *count == 2), "{answers:?}");
    }
}
