//! The planned instants of all users of a step with closed arrivals. Pure; times in µs since the common start.

use std::ops::Range;

use statistics::seed::mixed;

use crate::{
    curve::Curve,
    plan::{StepPlan, stream},
    schedule,
};

/// When each user of a step sends.
pub(crate) struct Timetable {
    curve: Curve,
    warm_up_ms: u64,
    measure_ms: u64,
    interval_us: u64,
    /// Of each user, within the interval.
    phases_us: Vec<u64>,
}

/// Planned instants of one user, ascending: those of its phase within its parts of the step. A user that comes again has the phase that it
/// had before, so that the arrivals of those who are there stay evenly spread.
pub(crate) struct Instants {
    phase_us: u64,
    interval_us: u64,
    /// What is left of the current part; its start is an instant of the phase.
    part: Range<u64>,
    parts: std::vec::IntoIter<Range<u64>>,
}

impl Timetable {
    pub(crate) fn of(plan: &StepPlan) -> Self {
        let curve = plan.curve.clone().unwrap_or_else(|| Curve::constant(plan.users));
        let interval_us = plan.interval_ms * 1000;
        Self {
            phases_us: schedule::group_phases(
                &curve.levels(),
                interval_us,
                plan.arrival_grid_ms * 1000,
                mixed(plan.seed, &stream::PHASES),
            ),
            curve,
            warm_up_ms: plan.warm_up_ms,
            measure_ms: plan.measure_ms,
            interval_us,
        }
    }

    /// A user that comes and goes several times is one user with several parts, not a new user for each part: it then has one request
    /// in flight at a time even if the last request of a part outlives the pause, and goose starts no more users than the curve's peak.
    /// A request that is in flight at the end of a part is completed and counted.
    pub(crate) fn user(&self, number: usize) -> Instants {
        let parts = self.curve.parts_us(number as u32, self.warm_up_ms, self.measure_ms);
        let phase_us = self.phases_us.get(number).copied().unwrap_or_default();
        Instants { phase_us, interval_us: self.interval_us, part: 0..0, parts: parts.into_iter() }
    }
}

impl Iterator for Instants {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        while self.part.is_empty() {
            let Range { start, end } = self.parts.next()?;
            let intervals = start.saturating_sub(self.phase_us).div_ceil(self.interval_us);
            self.part = self.phase_us + intervals * self.interval_us..end;
        }
        let instant = self.part.start;
        self.part.start += self.interval_us;
        Some(instant)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{curve::Point, plan, schedule::next_planned};

    fn plan(users: u32, curve: &[(u64, u32)]) -> StepPlan {
        let points = curve.iter().map(|&(at_ms, users)| Point { at_ms, users }).collect();
        StepPlan { users, curve: Curve::new(points).ok(), warm_up_ms: 3000, measure_ms: 9000, ..plan::tests::plan() }
    }

    fn instants(plan: &StepPlan) -> Vec<Vec<u64>> {
        let timetable = Timetable::of(plan);
        (0..plan.all_users() as usize).map(|number| timetable.user(number).collect()).collect()
    }

    #[test]
    fn users_of_a_surge_come_and_go() {
        let plan = plan(2, &[(2000, 2), (2000, 6), (5000, 6), (5000, 2)]);
        let mut all = instants(&plan);
        assert!(all[..2].iter().all(|of_user| of_user[0] < 1_000_000 && of_user.len() == 12));
        all.drain(..2);
        all.sort_unstable();
        let quarter = |n: u64| vec![5_000_000 + n * 250_000, 6_000_000 + n * 250_000, 7_000_000 + n * 250_000];
        assert_eq!(all, [0, 1, 2, 3].map(quarter));
    }

    /// The users above the steady load are spread on their own, each with its phase after the step.
    #[test]
    fn a_surge_is_an_even_load_on_top_of_another() {
        let plan = plan(600, &[(2000, 600), (2000, 2130), (5000, 2130), (5000, 600)]);
        let phases = |users: u32| schedule::group_phases(&[users], 1_000_000, 0, mixed(plan.seed, &stream::PHASES));
        let seconds = |phase: u64, seconds: Range<u64>| seconds.map(|second| second * 1_000_000 + phase).collect();
        let steady = phases(600).into_iter().map(|phase| seconds(phase, 0..12));
        let surge = phases(1530).into_iter().map(|phase| seconds(phase, 5..8));
        let expected: Vec<Vec<u64>> = steady.chain(surge).collect();
        assert_eq!(instants(&plan), expected);
    }

    #[test]
    fn without_a_curve_all_users_send_until_the_end() {
        let plan = StepPlan { curve: None, ..plan(7, &[]) };
        for of_user in instants(&plan) {
            let alone = std::iter::successors(Some(of_user[0]), |at| Some(next_planned(*at, *at, 1_000_000).0));
            assert!(of_user.iter().copied().eq(alone.take_while(|at| *at < 12_000_000)));
            assert!(of_user[0] < 1_000_000);
        }
    }

    #[test]
    fn a_user_that_comes_again_keeps_its_phase() {
        let plan = plan(3, &[(0, 3), (0, 1), (1234, 1), (1234, 3), (4321, 3), (4321, 1), (7777, 1), (7777, 3)]);
        for of_user in &instants(&plan)[1..] {
            let phase = of_user[0];
            assert!(of_user.iter().all(|at| at % 1_000_000 == phase), "{of_user:?}");
            let within =
                |at: &u64| [0..3000, 4234..7321, 10_777..12_000].iter().any(|part| part.contains(&(at / 1000)));
            assert!(of_user.iter().all(within), "{of_user:?}");
            // Each part has an instant in each of its whole seconds: 3, 3 and 1.
            assert!(of_user.len() >= 7, "{of_user:?}");
        }
    }

    proptest! {
        /// A user sends once in each interval, so that the requests of any whole interval are as many as its users.
        #[test]
        fn requests_follow_the_curve(levels in proptest::collection::vec(1..300_u32, 4), at_ms in 0..3000_u64) {
            let [a, b, c, d] = levels[..] else { return Ok(()) };
            // Plateaus, each longer than an interval, with a step and a ramp between them.
            let points = [(at_ms, a), (at_ms, b), (at_ms + 1500, b), (at_ms + 2500, c), (at_ms + 4000, c), (at_ms + 4500, d)];
            let plan = plan(a, &points);
            let all: Vec<u64> = instants(&plan).concat();
            let sent = |from_ms: u64| {
                let from_us = (plan.warm_up_ms + from_ms) * 1000;
                all.iter().filter(|at| (from_us..from_us + 1_000_000).contains(at)).count() as u32
            };
            prop_assert_eq!(all.iter().filter(|at| **at < 3_000_000).count() as u32, 3 * a);
            prop_assert_eq!(sent(at_ms), b);
            prop_assert_eq!(sent(at_ms + 499), b);
            prop_assert_eq!(sent(at_ms + 2500), c);
            prop_assert_eq!(sent(at_ms + 3000), c);
            prop_assert_eq!(sent(at_ms + 4500), d);
            prop_assert_eq!(sent(8000), d);
        }
    }
}
