//! Knative's Pod Autoscaler (`pkg/autoscaler/scaling/autoscaler.go`) with its defaults: mean concurrency of a minute, and of six seconds when the
//! load doubles.

use super::{Policy, Seen};

pub const POLICY: Policy = Policy {
    name: "knative",
    about: "Knative's KPA: every 2 s the mean concurrency of 60 s over a target of 0.7 for each replica; in panic, when that of 6 s needs \
            twice the ready replicas, the larger of both, and no scaling in until 60 s after it",
    period_s: 2,
    start: |setup| {
        let mut panic = Panic::at_first(setup.replicas_at_first());
        Ok(Box::new(move |seen| Ok(decide(seen, &mut panic))))
    },
};

const STABLE_S: usize = 60;
/// `panic-window-percentage-default`: 10 %.
const PANIC_S: usize = STABLE_S / 10;
/// `panic-threshold-percentage`: 200 %.
const PANIC_RATIO: f64 = 2.0;
/// `container-concurrency-target-percentage`, 70 %, of the one request that a replica answers at a time.
const TARGET: f64 = 0.7;
/// Of the ready replicas, in one decision.
const MAX_SCALE_UP_RATE: f64 = 1_000.0;
const MAX_SCALE_DOWN_RATE: f64 = 2.0;

/// The memory of a panic.
struct Panic {
    /// Second at which the panic threshold was last exceeded. `None`: stable.
    since: Option<usize>,
    /// Most replicas since it began.
    most: u32,
}

impl Panic {
    /// An autoscaler with more than one replica begins in panic, so that it does not scale in without knowing the load.
    fn at_first(replicas: u32) -> Self {
        Self { since: (replicas > 1).then_some(0), most: replicas }
    }
}

fn decide(seen: &Seen<'_>, panic: &mut Panic) -> u32 {
    let now = seen.past.len();
    if now == 0 {
        return seen.fleet.desired();
    }
    let ready = f64::from(seen.fleet.ready().max(1));
    let wanted = |seconds| (seen.mean(seconds, |second| second.in_flight) / TARGET).ceil();
    let limited = |wanted: f64| {
        let (least, most) = ((ready / MAX_SCALE_DOWN_RATE).floor(), (MAX_SCALE_UP_RATE * ready).ceil());
        wanted.max(least).min(most) as u32
    };
    let (stable, panicking) = (wanted(STABLE_S), wanted(PANIC_S));
    if panicking / ready >= PANIC_RATIO {
        panic.since = Some(now);
    } else if panic.since.is_some_and(|since| since + STABLE_S < now) {
        *panic = Panic { since: None, most: 0 };
    }
    if panic.since.is_none() {
        return limited(stable);
    }
    panic.most = panic.most.max(limited(stable)).max(limited(panicking));
    panic.most
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{curve, decisions},
        *,
    };

    #[test]
    fn it_panics_within_seconds_and_calms_down_after_a_minute() {
        // 200 requests/s: 4 in flight on 4 replicas, 70 % of which are 6.
        let answers = decisions(&POLICY, &curve(&[(200, 200.0), (30, 800.0), (300, 200.0)]));
        let at = |second: usize| answers[second / POLICY.period_s];
        assert_eq!((at(10), at(190)), (6, 6));
        assert!(at(206) > 12, "{answers:?}");
        let most = answers.iter().copied().max().unwrap();
        assert_eq!(at(260), most, "no scaling in while it panics");
        assert_eq!(at(500), 6, "{answers:?}");
    }

    #[test]
    fn a_slow_rise_is_no_panic() {
        let answers = decisions(&POLICY, &curve(&[(200, 200.0), (200, 240.0), (200, 260.0)]));
        assert!(answers.windows(2).skip(100).all(|pair| pair[1] <= pair[0] + 1), "{answers:?}");
    }
}
