//! Perfect foresight: no policy can have fewer missing replicas, because none can know more or start them faster.

use super::{Policy, Seen, stateless};

pub const POLICY: Policy = Policy {
    name: "foresight",
    about: "reads the future: as many replicas as any second needs until one that starts a second later could answer; the bound, \
            which nothing real reaches",
    period_s: 1,
    start: |_| Ok(stateless(decide)),
};

fn decide(seen: &Seen<'_>) -> u32 {
    let today = &seen.setup.curve.today;
    let begin = seen.past.len();
    // The next decision is a second away, and its replicas answer a second later.
    let end = (begin + seen.setup.model.useful_after_s() + 1).min(today.len());
    let most = today[begin.min(end)..end].iter().copied().fold(0.0, f64::max);
    seen.setup.demand(most)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{curve, decisions},
        *,
    };

    #[test]
    fn it_scales_before_a_step_and_at_once_after_it() {
        let answers = decisions(&POLICY, &curve(&[(60, 100.0), (30, 400.0), (60, 100.0)]));
        // A replica takes 10 s to be ready.
        assert_eq!(answers.iter().position(|count| *count == 8), Some(50));
        assert_eq!(answers.iter().rposition(|count| *count == 8), Some(89));
        assert!(answers.iter().all(|count| [2, 8].contains(count)));
    }
}
