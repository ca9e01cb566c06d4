//! The stabilisation windows: a recent recommendation may hold the number.

use crate::{Behavior, Direction, History, Recommendation, Rule, history::age_limit};

#[derive(Debug, Clone, PartialEq)]
pub struct Stabilized {
    pub replicas: i32,
    /// The direction of the wish, as the controller names it, also where nothing was held.
    pub reason: &'static str,
    pub rule: Option<Rule>,
}

/// Brings `current` between the lowest recommendation of the window for scaling out and the highest of the window for scaling in, and
/// remembers `wanted` (`stabilizeRecommendationWithBehaviors`). A recommendation exactly as old as its window does not count.
pub fn stabilize(behavior: &Behavior, history: &mut History, current: i32, wanted: i32, now_ms: i64) -> Stabilized {
    let up_limit = age_limit(now_ms, behavior.up.window_s);
    let down_limit = age_limit(now_ms, behavior.down.window_s);
    let newer = |limit: i64| {
        history.recommendations.iter().filter(move |known| known.at_ms > limit).map(|known| known.replicas)
    };
    let lowest = newer(up_limit).fold(wanted, i32::min);
    let highest = newer(down_limit).fold(wanted, i32::max);
    let replicas = current.max(lowest).min(highest);
    history.recommend(Recommendation { at_ms: now_ms, replicas: wanted }, |known| {
        known.at_ms < up_limit && known.at_ms < down_limit
    });

    let (reason, direction, window_s) = if wanted >= current {
        ("ScaleUpStabilized", Direction::Up, behavior.up.window_s)
    } else {
        ("ScaleDownStabilized", Direction::Down, behavior.down.window_s)
    };
    let rule = Rule::Stabilized { direction, wanted, replicas, window_ms: i64::from(window_s) * 1000 };
    Stabilized { replicas, reason, rule: (replicas != wanted).then_some(rule) }
}

/// Without behaviour (`stabilizeRecommendation`): the highest recommendation of the window. One exactly as old as the window still counts.
pub fn stabilize_scale_down(window_ms: i64, history: &mut History, wanted: i32, now_ms: i64) -> Stabilized {
    let limit = now_ms.saturating_sub(window_ms);
    let recent = history.recommendations.iter().filter(|known| known.at_ms >= limit);
    let replicas = recent.map(|known| known.replicas).fold(wanted, i32::max);
    history.recommend(Recommendation { at_ms: now_ms, replicas: wanted }, |known| known.at_ms < limit);

    let rule = Rule::Stabilized { direction: Direction::Down, wanted, replicas, window_ms };
    Stabilized { replicas, reason: "ScaleDownStabilized", rule: (replicas != wanted).then_some(rule) }
}
