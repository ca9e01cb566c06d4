//! A HorizontalPodAutoscaler: the planner of `testbed plan` and of the live autoscaler, with three rules.

use autoscaler::line::StepInput;

use super::{Decide, Policy, Seen, Setup};
use crate::{
    autoscale::{Planner, Rule, SYNC_PERIOD},
    experiments::autoscaling::rules,
};

/// Seconds between two decisions.
pub const PERIOD_S: usize = SYNC_PERIOD.as_secs() as usize;

pub const ARTICLE: Policy = Policy {
    name: "hpa-article",
    about: "a HorizontalPodAutoscaler by the article's rule: 70 % CPU, a window of two minutes for scaling out",
    period_s: PERIOD_S,
    start: article,
};

pub const KUBERNETES_DEFAULT: Policy = Policy {
    name: "hpa-default",
    about: "the same target with Kubernetes' default behaviour: out at once, at most 4 or 100 % in 15 s; in after five minutes",
    period_s: PERIOD_S,
    start: |setup| follow(rules::kubernetes_default(setup.limits, setup.model.hurry)?, setup),
};

pub const IN_FLIGHT: Policy = Policy {
    name: "queue-length",
    about: "target tracking: one request in flight for each replica, as an external metric of a HorizontalPodAutoscaler, mean of 15 s",
    period_s: PERIOD_S,
    start: |setup| follow(rules::in_flight(setup.limits, setup.model.hurry)?, setup),
};

/// # Errors
/// The limits are no rule.
pub fn article(setup: &Setup<'_>) -> anyhow::Result<Decide> {
    follow(rules::article(setup.limits, setup.model.hurry)?, setup)
}

fn follow(rule: Rule, setup: &Setup<'_>) -> anyhow::Result<Decide> {
    let mut planner = Planner::new(rule, setup.replicas_at_first() as usize)?;
    Ok(Box::new(move |seen| {
        let in_flight_milli = (1_000.0 * seen.mean(PERIOD_S, |second| second.in_flight)).round() as i64;
        let given = StepInput {
            // Another policy may have had the last word.
            set_replicas: Some(i32::try_from(seen.fleet.desired())?),
            external_milli: [(rules::IN_FLIGHT.to_owned(), Some(vec![in_flight_milli]))].into(),
            ..StepInput::default()
        };
        decide(&mut planner, seen, given)
    }))
}

/// At the begin there are no samples, and the planner keeps the count.
fn decide(planner: &mut Planner<u64>, seen: &Seen<'_>, given: StepInput) -> anyhow::Result<u32> {
    let step = planner.decide(seen.fleet.now(), &seen.fleet.observed(), given)?;
    Ok(u32::try_from(step.answer.replicas).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{curve, decisions},
        *,
    };

    /// 80 % of the request, then more than two replicas can answer.
    const STEP: [(usize, f64); 2] = [(300, 80.0), (600, 200.0)];

    fn first_above(answers: &[u32], count: u32) -> usize {
        PERIOD_S * answers.iter().position(|answer| *answer > count).unwrap()
    }

    #[test]
    fn the_articles_window_delays_scaling_out_and_the_default_does_not() {
        // From the begin the load is above the target.
        let (article, default) = (decisions(&ARTICLE, &curve(&STEP)), decisions(&KUBERNETES_DEFAULT, &curve(&STEP)));
        assert!((120..=150).contains(&first_above(&article, 2)), "{article:?}");
        assert!(first_above(&default, 2) <= 30, "{default:?}");
        // 200 requests/s at 70 % are 5.7 replicas.
        assert_eq!((article.last(), default.last()), (Some(&6), Some(&6)));
    }

    #[test]
    fn requests_in_flight_grow_only_when_cpu_has_run_out() {
        let answers = decisions(&IN_FLIGHT, &curve(&[(300, 95.0), (600, 200.0)]));
        assert!(answers[..20].iter().all(|count| *count == 2), "{answers:?}");
        assert!((300..=330).contains(&first_above(&answers, 2)), "{answers:?}");
    }
}
