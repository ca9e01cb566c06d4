//! The scaling policies and the limits: how far one step may go.

use crate::{Behavior, Direction, History, PolicyKind, Rule, Rules, Select, arithmetic::to_i32, rule::RateLimit};

#[derive(Debug, Clone, PartialEq)]
pub struct Rated {
    pub replicas: i32,
    pub reason: &'static str,
    pub rule: Option<Rule>,
}

impl Rated {
    pub(crate) fn within_range(replicas: i32) -> Self {
        Self { replicas, reason: "DesiredWithinRange", rule: None }
    }

    pub(crate) fn too_many(wanted: i32, max: i32) -> Self {
        Self { replicas: max, reason: "TooManyReplicas", rule: Some(Rule::LimitedByMaximum { wanted, max }) }
    }

    pub(crate) fn too_few(wanted: i32, min: i32) -> Self {
        Self { replicas: min, reason: "TooFewReplicas", rule: Some(Rule::LimitedByMinimum { wanted, min }) }
    }
}

/// Policies and limits of the direction in which `wanted` lies (`convertDesiredReplicasWithBehaviorRate`). `limits` are minimum and
/// maximum.
pub fn limit_rate(
    behavior: &Behavior,
    history: &History,
    limits: (i32, i32),
    current: i32,
    wanted: i32,
    now_ms: i64,
) -> Rated {
    let (min, max) = limits;
    if wanted > current {
        let (by_policies, limit) = policy_limit(Direction::Up, &behavior.up, history, current, now_ms);
        let by_policies = by_policies.max(current);
        if max > by_policies && wanted > by_policies {
            let rule = Rule::RateLimited { direction: Direction::Up, wanted, replicas: by_policies, limit };
            return Rated { replicas: by_policies, reason: "ScaleUpLimit", rule: Some(rule) };
        }
        if max <= by_policies && wanted > max {
            return Rated::too_many(wanted, max);
        }
    } else if wanted < current {
        let (by_policies, limit) = policy_limit(Direction::Down, &behavior.down, history, current, now_ms);
        let by_policies = by_policies.min(current);
        if min < by_policies && wanted < by_policies {
            let rule = Rule::RateLimited { direction: Direction::Down, wanted, replicas: by_policies, limit };
            return Rated { replicas: by_policies, reason: "ScaleDownLimit", rule: Some(rule) };
        }
        if min >= by_policies && wanted < min {
            return Rated::too_few(wanted, min);
        }
    }
    Rated::within_range(wanted)
}

/// The count that the policies allow, before it is compared with the current one, and the policy that decided.
fn policy_limit(direction: Direction, rules: &Rules, history: &History, current: i32, now_ms: i64) -> (i32, RateLimit) {
    let limits = rules.policies.iter().map(|policy| {
        let start = history.count_before(current, policy.period_s, now_ms);
        let value = f64::from(policy.value);
        let limit = match (direction, policy.kind) {
            (Direction::Up, PolicyKind::Pods) => start.wrapping_add(policy.value),
            (Direction::Down, PolicyKind::Pods) => start.wrapping_sub(policy.value),
            // Rounded up: 10 % of 1 replica would otherwise never add one.
            (Direction::Up, PolicyKind::Percent) => to_i32((f64::from(start) * (1.0 + value / 100.0)).ceil()),
            (Direction::Down, PolicyKind::Percent) => to_i32(f64::from(start) * (1.0 - value / 100.0)),
        };
        (limit, RateLimit::Policy { policy: *policy, start })
    });
    let decided = match (rules.select, direction) {
        (Select::Disabled, _) => return (current, RateLimit::Disabled),
        (Select::Max, Direction::Up) | (Select::Min, Direction::Down) => limits.max_by_key(|(limit, _)| *limit),
        (Select::Min, Direction::Up) | (Select::Max, Direction::Down) => limits.min_by_key(|(limit, _)| *limit),
    };
    // Without policies nothing changes; the API server refuses such rules.
    decided.unwrap_or((current, RateLimit::Disabled))
}
