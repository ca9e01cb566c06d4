//! What became of a cell, by its goodput in each second. Pure; the same for the measurement and for the model.

use serde::{Deserialize, Serialize};

/// Seconds in a row that decide.
pub const WINDOW_S: usize = 5;
/// After the trigger, before a cell can count as stuck: queues that the trigger left may drain.
pub const SETTLE_S: u32 = 5;
/// Seconds after `SETTLE_S` for which a cell is held that bisects or has a cure, measured or modelled.
pub const HOLD_S: u32 = 10;
/// Least share of the requests that succeed in a second of a system that has recovered.
const RECOVERED_SHARE: f64 = 0.9;
/// Share of the requests below which the goodput of a stuck system is.
const STUCK_SHARE: f64 = 0.5;

/// A second of the measured part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// First tries; of closed users, those that were planned.
    pub requests: u64,
    /// Requests that succeeded within their deadline.
    pub good: u64,
    pub retries: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Recovered,
    /// Goodput below half of the load until the load was lowered.
    Stuck,
    InBetween,
}

impl State {
    pub fn text(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Stuck => "stuck",
            Self::InBetween => "in between",
        }
    }
}

/// The parts of a cell, in order: normal load, trigger, the same load, lowered load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    pub before_s: u32,
    /// 0: the trigger is an instant.
    pub trigger_ms: u32,
    /// How long a cell must be stuck, after [`SETTLE_S`].
    pub hold_s: u32,
    /// 0: the load is not lowered.
    pub lowered_s: u32,
}

impl Timing {
    pub fn trigger_end_s(self) -> f64 {
        f64::from(self.before_s) + f64::from(self.trigger_ms) / 1000.0
    }

    /// The first whole second after the trigger.
    pub fn after_from(self) -> usize {
        self.trigger_end_s().ceil() as usize
    }

    /// The first second of the lowered load.
    pub fn lowered_from(self) -> usize {
        self.after_from() + (SETTLE_S + self.hold_s) as usize
    }

    pub fn total_s(self) -> usize {
        self.lowered_from() + self.lowered_s as usize
    }
}

/// Figures of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    pub state: State,
    /// From the end of the trigger to the first of five seconds in a row in which 90 % of the requests succeed; null: not before the load was
    /// lowered.
    pub recovery_s: Option<f64>,
    /// From the lowering of the load to the first of five such seconds; null: not within the cell, or the load was not lowered.
    pub back_s: Option<u32>,
    /// Share of the requests that succeeded, from the end of the trigger to the end of the load's normal level, in percent.
    pub goodput_pct: f64,
    /// Tries per request in the same seconds.
    pub tries_per_request: f64,
    /// First tries per second in the same seconds, in percent of those before the trigger.
    pub first_tries_pct: f64,
}

/// Judges the seconds of a cell, which may have ended early.
pub fn judge(seconds: &[Second], timing: Timing) -> Judged {
    let lowered_from = timing.lowered_from().min(seconds.len());
    let after_from = timing.after_from().min(lowered_from);
    let after = &seconds[after_from..lowered_from];
    let recovered = first_normal(after).map(|at| (after_from + at) as f64 - timing.trigger_end_s());
    let settled = after.get(SETTLE_S as usize..).unwrap_or_default();
    let is_complete = seconds.len() >= timing.lowered_from();
    let is_low = |window: &[Second]| share(window) < STUCK_SHARE;
    let is_stuck = is_complete && settled.len() >= WINDOW_S && settled.windows(WINDOW_S).all(is_low);
    let before = &seconds[..(timing.before_s as usize).min(after_from)];
    let retries = sum(after, |second| second.retries);
    let requests = sum(after, |second| second.requests);
    let per_s = |seconds: &[Second]| sum(seconds, |second| second.requests) / seconds.len().max(1) as f64;
    Judged {
        state: match recovered {
            Some(_) => State::Recovered,
            None if is_stuck => State::Stuck,
            None => State::InBetween,
        },
        recovery_s: recovered.map(|after_s| after_s.max(0.0)),
        back_s: first_normal(&seconds[lowered_from..]).map(|at| at as u32),
        goodput_pct: 100.0 * share(after),
        tries_per_request: 1.0 + retries / requests.max(1.0),
        first_tries_pct: 100.0 * per_s(after) / per_s(before).max(1.0),
    }
}

/// Whether the requests before the trigger succeeded. Otherwise the trigger is not the cause of what follows.
pub fn was_normal(seconds: &[Second], timing: Timing) -> bool {
    share(&seconds[..(timing.before_s as usize).min(seconds.len())]) >= RECOVERED_SHARE
}

/// Whether a cell that has come so far need not go on. It has recovered, or, after the load was lowered, it is back. Or its last second is over:
/// answers that are still to come belong to no second of it.
pub fn is_decided(seconds: &[Second], timing: Timing) -> bool {
    if seconds.len() >= timing.total_s() {
        return true;
    }
    let from = if seconds.len() > timing.lowered_from() { timing.lowered_from() } else { timing.after_from() };
    seconds.get(from..).is_some_and(|phase| first_normal(phase).is_some())
}

fn first_normal(seconds: &[Second]) -> Option<usize> {
    let is_normal =
        |second: &Second| second.requests > 0 && second.good as f64 >= RECOVERED_SHARE * second.requests as f64;
    seconds.windows(WINDOW_S).position(|window| window.iter().all(is_normal))
}

fn share(seconds: &[Second]) -> f64 {
    sum(seconds, |second| second.good) / sum(seconds, |second| second.requests).max(1.0)
}

fn sum(seconds: &[Second], figure: fn(&Second) -> u64) -> f64 {
    seconds.iter().map(figure).sum::<u64>() as f64
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const TIMING: Timing = Timing { before_s: 3, trigger_ms: 1_500, hold_s: 15, lowered_s: 15 };

    /// Seconds of 100 requests, each with one of these shares of good ones, in percent.
    pub fn seconds(parts: &[(usize, u64)]) -> Vec<Second> {
        let part = |&(count, good): &(usize, u64)| {
            let retries = if good < 90 { 300 } else { 0 };
            std::iter::repeat_n(Second { requests: 100, good, retries }, count)
        };
        parts.iter().flat_map(part).collect()
    }

    #[test]
    fn the_parts_of_a_cell_follow_each_other_in_whole_seconds() {
        assert_eq!((TIMING.after_from(), TIMING.lowered_from(), TIMING.total_s()), (5, 25, 40));
        let instant = Timing { trigger_ms: 0, ..TIMING };
        assert_eq!((instant.after_from(), instant.lowered_from()), (3, 23));
    }

    #[test]
    fn a_cell_recovers_in_the_first_of_five_normal_seconds() {
        let judged = judge(&seconds(&[(3, 100), (4, 0), (4, 95), (1, 89), (5, 90)]), TIMING);
        assert_eq!((judged.state, judged.recovery_s), (State::Recovered, Some(12.0 - 4.5)));
        let at_once = judge(&seconds(&[(10, 100)]), TIMING);
        assert_eq!((at_once.recovery_s, at_once.tries_per_request, at_once.first_tries_pct), (Some(0.5), 1.0, 100.0));
    }

    #[test]
    fn a_cell_is_stuck_if_the_goodput_is_low_until_the_load_is_lowered() {
        let stuck = judge(&seconds(&[(3, 100), (22, 10), (2, 60), (6, 100)]), TIMING);
        assert_eq!((stuck.state, stuck.recovery_s, stuck.back_s), (State::Stuck, None, Some(2)));
        assert_eq!((stuck.goodput_pct, stuck.tries_per_request), (10.0, 4.0));
        let never_back = judge(&seconds(&[(3, 100), (37, 10)]), TIMING);
        assert_eq!((never_back.state, never_back.back_s), (State::Stuck, None));
        let half = judge(&seconds(&[(3, 100), (22, 60), (15, 100)]), TIMING);
        assert_eq!(half.state, State::InBetween);
        let better_at_the_end = judge(&seconds(&[(3, 100), (17, 10), (5, 70)]), TIMING);
        assert_eq!(better_at_the_end.state, State::InBetween);
        let cut_short = judge(&seconds(&[(3, 100), (20, 10)]), TIMING);
        assert_eq!(cut_short.state, State::InBetween, "nothing says that it would have stayed so");
    }

    #[test]
    fn a_cell_is_decided_after_five_normal_seconds_of_a_part() {
        assert!(!is_decided(&seconds(&[(5, 100)]), TIMING), "the trigger is not over");
        assert!(!is_decided(&seconds(&[(5, 100), (4, 95)]), TIMING));
        assert!(is_decided(&seconds(&[(5, 100), (5, 95)]), TIMING));
        assert!(!is_decided(&seconds(&[(3, 100), (22, 10), (4, 100)]), TIMING));
        assert!(is_decided(&seconds(&[(3, 100), (22, 10), (5, 100)]), TIMING));
        assert!(!is_decided(&seconds(&[(3, 100), (36, 10)]), TIMING));
        assert!(is_decided(&seconds(&[(3, 100), (37, 10)]), TIMING), "the last second is over");
    }

    #[test]
    fn a_system_that_was_overloaded_before_the_trigger_is_noticed() {
        assert!(was_normal(&seconds(&[(3, 90), (22, 10)]), TIMING));
        assert!(!was_normal(&seconds(&[(1, 100), (2, 80), (22, 10)]), TIMING));
        assert!(!was_normal(&[], TIMING));
    }

    #[test]
    fn no_seconds_are_no_verdict() {
        let none = judge(&[], TIMING);
        assert_eq!((none.state, none.goodput_pct), (State::InBetween, 0.0));
    }
}
