//! What the controller remembers of an autoscaler from step to step.

use crate::{Conditions, Direction};

/// The order of the entries is the order of their slots: a new entry takes the last slot whose entry is too old, or a new slot. So the
/// history is bounded by the number of steps in the longest window or period.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    pub recommendations: Vec<Recommendation>,
    pub scale_ups: Vec<ScaleEvent>,
    pub scale_downs: Vec<ScaleEvent>,
    pub conditions: Conditions,
}

/// A recommendation before any window, rate or limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recommendation {
    pub at_ms: i64,
    pub replicas: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleEvent {
    pub at_ms: i64,
    /// How many replicas were added or removed; positive in both directions.
    pub change: i32,
}

impl History {
    /// Takes the last slot whose recommendation `is_old`.
    pub fn recommend(&mut self, recommendation: Recommendation, is_old: impl Fn(&Recommendation) -> bool) {
        store(&mut self.recommendations, recommendation, is_old);
    }

    /// Takes the last slot whose event is older than the longest period of its direction, even if a policy of the other direction still
    /// counts that event.
    pub fn scaled(&mut self, direction: Direction, event: ScaleEvent, longest_period_s: i32) {
        let limit = age_limit(event.at_ms, longest_period_s);
        let events = if direction == Direction::Up { &mut self.scale_ups } else { &mut self.scale_downs };
        store(events, event, |stored| stored.at_ms < limit);
    }

    /// The count before the changes of both directions in the last `period_s` seconds. An event exactly that old does not count.
    pub fn count_before(&self, current: i32, period_s: i32, now_ms: i64) -> i32 {
        let limit = age_limit(now_ms, period_s);
        let changed = |events: &[ScaleEvent]| {
            let recent = events.iter().filter(|event| event.at_ms > limit);
            recent.fold(0_i32, |sum, event| sum.wrapping_add(event.change))
        };
        current.wrapping_sub(changed(&self.scale_ups)).wrapping_add(changed(&self.scale_downs))
    }
}

/// The time `seconds` before `now_ms`.
pub fn age_limit(now_ms: i64, seconds: i32) -> i64 {
    now_ms.saturating_sub(i64::from(seconds) * 1000)
}

fn store<T>(slots: &mut Vec<T>, entry: T, is_old: impl Fn(&T) -> bool) {
    match slots.iter().rposition(is_old) {
        Some(slot) => slots[slot] = entry,
        None => slots.push(entry),
    }
}
