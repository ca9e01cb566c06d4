//! Windows, rates and limits together: from what the metrics ask for to the new count.

use crate::{
    ConditionType, Conditions, Direction, History, Rule, Spec,
    arithmetic::to_i32,
    rate::{Rated, limit_rate},
    rule::RateLimit,
    stabilize::{stabilize, stabilize_scale_down},
};

/// A count that is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub current: i32,
    pub wanted: i32,
    pub now_ms: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Normalized {
    pub replicas: i32,
    /// After the windows, before rates and limits.
    pub stabilized: i32,
    pub rules: Vec<Rule>,
}

/// Remembers the wish, and sets `AbleToScale` and `ScalingLimited` (`normalizeDesiredReplicasWithBehaviors`, `normalizeDesiredReplicas`).
pub fn normalize(spec: &Spec, history: &mut History, request: Request) -> Normalized {
    let Request { current, wanted, now_ms } = request;
    let limits = (spec.min_replicas, spec.max_replicas);
    let (stable, rated) = match &spec.behavior {
        Some(behavior) => {
            let stable = stabilize(behavior, history, current, wanted, now_ms);
            let rated = limit_rate(behavior, history, limits, current, stable.replicas, now_ms);
            (stable, rated)
        }
        None => {
            let stable = stabilize_scale_down(spec.flags.downscale_stabilization_ms, history, wanted, now_ms);
            let rated = limit_doubling(limits, current, stable.replicas);
            (stable, rated)
        }
    };
    let held = stable.replicas != wanted;
    set_conditions(
        &mut history.conditions,
        held.then_some(stable.reason),
        rated.replicas != stable.replicas,
        rated.reason,
    );
    let rules = stable.rule.into_iter().chain(rated.rule).collect();
    Normalized { replicas: rated.replicas, stabilized: stable.replicas, rules }
}

fn set_conditions(conditions: &mut Conditions, held_by: Option<&'static str>, limited: bool, reason: &'static str) {
    conditions.set(ConditionType::AbleToScale, true, held_by.unwrap_or("ReadyForNewScale"));
    conditions.set(ConditionType::ScalingLimited, limited, reason);
}

/// Without behaviour, one step at most doubles the count, or reaches 4 (`convertDesiredReplicasWithRules`).
fn limit_doubling((min, max): (i32, i32), current: i32, wanted: i32) -> Rated {
    let doubled = to_i32((2.0 * f64::from(current)).max(4.0));
    if wanted < min {
        return Rated::too_few(wanted, min);
    }
    if max > doubled && wanted > doubled {
        let rule =
            Rule::RateLimited { direction: Direction::Up, wanted, replicas: doubled, limit: RateLimit::Doubling };
        return Rated { replicas: doubled, reason: "ScaleUpLimit", rule: Some(rule) };
    }
    if max <= doubled && wanted > max {
        return Rated::too_many(wanted, max);
    }
    Rated::within_range(wanted)
}
