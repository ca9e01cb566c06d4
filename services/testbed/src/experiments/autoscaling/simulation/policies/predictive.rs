//! The larger of the article's rule and a seasonal-naive forecast: at this time of the day it will be as yesterday.

use super::{Policy, Seen, hpa};

pub const POLICY: Policy = Policy {
    name: "predictive",
    about: "the larger of hpa-article and a seasonal-naive forecast: 70 % CPU at yesterday's highest rate until replicas of the next \
            decision could answer; without a yesterday it is hpa-article",
    period_s: hpa::PERIOD_S,
    start: |setup| {
        let mut reactive = hpa::article(setup)?;
        Ok(Box::new(move |seen| Ok(reactive(seen)?.max(forecast(seen)))))
    },
};

const TARGET: f64 = 0.7;

/// Replicas for the highest rate that yesterday had from this second on, until a replica of the next decision could answer.
fn forecast(seen: &Seen<'_>) -> u32 {
    let yesterday = &seen.setup.curve.yesterday;
    let begin = seen.past.len().min(yesterday.len());
    let end = (begin + POLICY.period_s + seen.setup.model.useful_after_s()).min(yesterday.len());
    let most = yesterday[begin..end].iter().copied().fold(0.0, f64::max);
    seen.setup.demand(most / TARGET)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            ARTICLE,
            tests::{curve, decisions},
        },
        *,
    };

    #[test]
    fn it_scales_before_what_yesterday_had_and_reacts_to_what_it_had_not() {
        let mut known = curve(&[(600, 100.0), (600, 400.0)]);
        let without = decisions(&POLICY, &known);
        assert_eq!(without, decisions(ARTICLE, &known), "without a yesterday");
        known.yesterday.clone_from(&known.today);
        let with = decisions(&POLICY, &known);
        let first = with.iter().position(|count| *count == 12).unwrap();
        assert!((570..600).contains(&(POLICY.period_s * first)), "12 replicas are 400/s at 70 %: {with:?}");
        known.yesterday.fill(100.0);
        let surprised = decisions(&POLICY, &known);
        assert!(surprised[..40].iter().all(|count| *count < 12) && *surprised.last().unwrap() >= 12, "{surprised:?}");
    }
}
