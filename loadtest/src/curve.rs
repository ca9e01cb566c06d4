//! Number of users over the measured part of a step. Pure.

use std::ops::Range;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Most users of a step.
pub const MAX_USERS: u32 = 20_000;
/// Bounds the memory: a user has at most one part for two points, and each part takes 16 bytes.
const MAX_POINTS: usize = 1000;
/// One day. The products of users and microseconds fit into 64 bits.
const MAX_AT_MS: u64 = 86_400_000;

/// Number of users over the measured part of a step: straight lines between the points, constant before the first point and after the
/// last one. Two points at the same instant are a step: from that instant on, the second one holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Point>")]
pub struct Curve(Vec<Point>);

/// Number of users at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Milliseconds after the start of the measured part.
    pub at_ms: u64,
    /// Users at this instant (0 to 20,000).
    pub users: u32,
}

impl Curve {
    /// # Errors
    /// There is no point or more than 1,000, a point is before the one in front of it, three points share an instant, a value is out of
    /// range, or all points have 0 users.
    pub fn new(points: Vec<Point>) -> Result<Self> {
        ensure!(
            (1..=MAX_POINTS).contains(&points.len()),
            "a curve must have 1..={MAX_POINTS} points, has {}",
            points.len()
        );
        for point in &points {
            let Point { at_ms, users } = point;
            ensure!(*at_ms <= MAX_AT_MS, "at_ms of a curve must be 0..={MAX_AT_MS}, is {at_ms}");
            ensure!(*users <= MAX_USERS, "users of a curve must be 0..={MAX_USERS}, is {users} at {at_ms} ms");
        }
        for pair in points.windows(2) {
            let (before, after) = (pair[0].at_ms, pair[1].at_ms);
            ensure!(before <= after, "the points of a curve must be in order, but {after} ms follows {before} ms");
        }
        if let Some(three) = points.windows(3).find(|three| three[0].at_ms == three[2].at_ms) {
            anyhow::bail!("a curve must have at most two points at an instant, has more at {} ms", three[0].at_ms);
        }
        ensure!(points.iter().any(|point| point.users > 0), "a curve must have at least 1 user at one of its points");
        Ok(Self(points))
    }

    /// The same number during the whole step. Not checked: it is the `users` of a plan without a curve.
    pub(crate) fn constant(users: u32) -> Self {
        Self(vec![Point { at_ms: 0, users }])
    }

    /// Users at an instant, in milliseconds after the start of the measured part. On a line, the nearest whole number; halves are rounded
    /// up.
    pub fn users_at(&self, ms: u64) -> u32 {
        let next = self.0.partition_point(|point| point.at_ms <= ms);
        let before = next.checked_sub(1).and_then(|last| self.0.get(last));
        match (before, self.0.get(next)) {
            (Some(before), Some(after)) => on_line(*before, *after, ms),
            (Some(point), None) | (None, Some(point)) => point.users,
            (None, None) => 0,
        }
    }

    /// Users before the first point, and during the warm-up.
    pub fn first_users(&self) -> u32 {
        self.0.first().map_or(0, |point| point.users)
    }

    /// Largest number of users.
    pub fn peak(&self) -> u32 {
        self.0.iter().map(|point| point.users).max().unwrap_or(0)
    }

    /// Instant of the last point, in milliseconds after the start of the measured part.
    pub fn end_ms(&self) -> u64 {
        self.0.last().map_or(0, |point| point.at_ms)
    }

    /// Mean number of users over a measured part of this length.
    pub fn mean_users(&self, measure_ms: u64) -> f64 {
        let twice_the_area: u64 = self
            .lines(measure_ms)
            .map(|(from, to)| (u64::from(from.users) + u64::from(to.users)) * to.at_ms.saturating_sub(from.at_ms))
            .sum();
        twice_the_area as f64 / (2 * measure_ms.max(1)) as f64
    }

    /// The different values of the points above 0, ascending.
    pub(crate) fn levels(&self) -> Vec<u32> {
        let mut levels: Vec<u32> = self.0.iter().map(|point| point.users).filter(|users| *users > 0).collect();
        levels.sort_unstable();
        levels.dedup();
        levels
    }

    /// The parts of the step in which the curve is above the number of this user (from 0), in µs since the start of the warm-up,
    /// ascending and with gaps between them. The user with the highest number leaves first. At each instant, as many users are within
    /// a part as `users_at` says.
    pub(crate) fn parts_us(&self, user: u32, warm_up_ms: u64, measure_ms: u64) -> Vec<Range<u64>> {
        let in_us = |point: Point| ((warm_up_ms + point.at_ms) * 1000, point.users);
        let lines = self.lines(measure_ms).map(|(from, to)| part_above(user, in_us(from), in_us(to)));
        let warm_up = if self.first_users() > user { 0..warm_up_ms * 1000 } else { 0..0 };
        let mut parts: Vec<Range<u64>> = Vec::new();
        for part in std::iter::once(warm_up).chain(lines).filter(|part| !part.is_empty()) {
            match parts.last_mut() {
                Some(last) if last.end == part.start => last.end = part.end,
                _ => parts.push(part),
            }
        }
        parts
    }

    /// The lines from the start of the measured part to its end, those before the first point and after the last one included.
    fn lines(&self, measure_ms: u64) -> impl Iterator<Item = (Point, Point)> {
        let first = self.0.first().map(|point| Point { at_ms: 0, ..*point });
        let last = self.0.last().map(|point| Point { at_ms: measure_ms, ..*point });
        let points = move || first.into_iter().chain(self.0.iter().copied()).chain(last);
        points().zip(points().skip(1))
    }
}

impl TryFrom<Vec<Point>> for Curve {
    type Error = anyhow::Error;

    fn try_from(points: Vec<Point>) -> Result<Self> {
        Self::new(points)
    }
}

/// `from.at_ms` ≤ `ms` < `to.at_ms`.
fn on_line(from: Point, to: Point, ms: u64) -> u32 {
    let (length, passed) = (to.at_ms - from.at_ms, ms - from.at_ms);
    let twice = 2 * (u64::from(from.users) * (length - passed) + u64::from(to.users) * passed);
    ((twice + length) / (2 * length)) as u32
}

/// The part of a line between two points (µs, users) on which it is at least `user` + 1/2, where its rounded value is above `user`.
fn part_above(user: u32, (from_us, before): (u64, u32), (to_us, after): (u64, u32)) -> Range<u64> {
    let length = to_us.saturating_sub(from_us);
    let (user, before, after) = (u64::from(user), u64::from(before), u64::from(after));
    match (before > user, after > user) {
        (true, true) => from_us..to_us,
        (false, true) => {
            let comes = ((2 * (user - before) + 1) * length).div_ceil(2 * (after - before));
            from_us + comes..to_us
        }
        // The line is at the half in the last instant of the part, and the end of a range is outside it.
        (true, false) if length > 0 => {
            let last = (2 * (before - user) - 1) * length / (2 * (before - after));
            from_us..from_us + last + 1
        }
        (true, false) | (false, false) => from_us..from_us,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn curve(points: &[(u64, u32)]) -> Curve {
        Curve::new(points.iter().map(|&(at_ms, users)| Point { at_ms, users }).collect()).unwrap()
    }

    /// Start and end of each part, in µs.
    fn parts(curve: &Curve, user: u32, warm_up_ms: u64, measure_ms: u64) -> Vec<(u64, u64)> {
        let parts = curve.parts_us(user, warm_up_ms, measure_ms);
        parts.into_iter().map(|part| (part.start, part.end)).collect()
    }

    #[test]
    fn lines_steps_and_the_ends() {
        let curve = curve(&[(100, 10), (200, 20), (300, 20), (300, 50), (400, 0)]);
        for (ms, users) in [
            (0, 10),
            (100, 10),
            (104, 10),
            (105, 11),
            (150, 15),
            (199, 20),
            (299, 20),
            (300, 50),
            (301, 50),
            (302, 49),
            (399, 1),
            (400, 0),
            (u64::MAX, 0),
        ] {
            assert_eq!(curve.users_at(ms), users, "{ms} ms");
        }
        assert_eq!((curve.first_users(), curve.peak(), curve.end_ms()), (10, 50, 400));
        assert_eq!(curve.levels(), [10, 20, 50]);
        // 1000 before the first point, 1500 and 2000 up to the step, 2500 to the last point, nothing after it.
        assert_eq!(curve.mean_users(500), 14.0);
    }

    #[test]
    fn the_last_user_to_come_is_the_first_to_leave() {
        let curve = curve(&[(0, 1), (2000, 3), (4000, 3), (6000, 1)]);
        let parts = |user| parts(&curve, user, 1000, 8000);
        assert_eq!(parts(0), [(0, 9_000_000)]);
        assert_eq!(parts(1), [(1_500_000, 6_500_001)]);
        assert_eq!(parts(2), [(2_500_000, 5_500_001)]);
        assert_eq!(parts(3), []);
    }

    #[test]
    fn a_user_that_comes_twice_has_two_parts() {
        let curve = curve(&[(10, 2), (10, 1), (20, 1), (20, 2)]);
        assert_eq!(parts(&curve, 1, 5, 30), [(0, 15_000), (25_000, 35_000)]);
        assert_eq!(parts(&curve, 0, 5, 30), [(0, 35_000)]);
    }

    #[test]
    fn a_bad_curve_is_refused_with_a_reason() {
        let refused = |points: &[(u64, u32)]| {
            let points = points.iter().map(|&(at_ms, users)| Point { at_ms, users }).collect();
            Curve::new(points).unwrap_err().to_string()
        };
        for (points, reason) in [
            (&[][..], "1..=1000 points, has 0"),
            (&[(1, 1); 1001], "1..=1000 points, has 1001"),
            (&[(5, 1), (4, 1)], "4 ms follows 5 ms"),
            (&[(5, 1), (5, 2), (5, 3)], "at most two points at an instant, has more at 5 ms"),
            (&[(0, 1), (5, 20_001)], "0..=20000, is 20001 at 5 ms"),
            (&[(86_400_001, 1)], "0..=86400000, is 86400001"),
            (&[(0, 0), (5, 0)], "at least 1 user"),
        ] {
            let error = refused(points);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn json_is_checked_too() {
        let good = r#"[{"at_ms":0,"users":1},{"at_ms":9,"users":2}]"#;
        let read: Curve = serde_json::from_str(good).unwrap();
        assert_eq!(read, curve(&[(0, 1), (9, 2)]));
        assert_eq!(serde_json::to_string(&read).unwrap(), good);
        for (bad, reason) in [
            ("[]", "points, has 0"),
            (r#"[{"at_ms":1,"users":1},{"at_ms":0,"users":1}]"#, "must be in order"),
            (r#"[{"at_ms":1,"users":1,"user":1}]"#, "unknown field `user`"),
            (r#"[{"at_ms":-1,"users":1}]"#, "invalid value"),
        ] {
            let error = serde_json::from_str::<Curve>(bad).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    const MEASURE_MS: u64 = 400;

    fn any_curve() -> impl Strategy<Value = Curve> {
        let points = proptest::collection::vec((0..=MEASURE_MS, 0..40_u32), 1..12);
        points.prop_filter_map("a curve", |mut points| {
            points.sort_by_key(|(at_ms, _)| *at_ms);
            Curve::new(points.into_iter().map(|(at_ms, users)| Point { at_ms, users }).collect()).ok()
        })
    }

    proptest! {
        /// More than asked: users are whole, and both sides round the same way, so that the numbers are equal on the ramps too.
        #[test]
        fn at_each_millisecond_as_many_users_are_active_as_the_curve_says(curve in any_curve(), warm_up_ms in 0..50_u64) {
            let parts: Vec<_> = (0..curve.peak()).map(|user| curve.parts_us(user, warm_up_ms, MEASURE_MS)).collect();
            let active = |us: u64| parts.iter().filter(|parts| parts.iter().any(|part| part.contains(&us))).count() as u32;
            for ms in 0..warm_up_ms {
                prop_assert_eq!(active(ms * 1000), curve.first_users(), "{} ms of the warm-up", ms);
            }
            for ms in 0..MEASURE_MS {
                prop_assert_eq!(active((warm_up_ms + ms) * 1000), curve.users_at(ms), "{} ms", ms);
            }
            prop_assert_eq!(active((warm_up_ms + MEASURE_MS) * 1000), 0);
            prop_assert!(curve.parts_us(curve.peak(), warm_up_ms, MEASURE_MS).is_empty());
        }

        #[test]
        fn a_users_parts_are_within_those_of_the_user_before(curve in any_curve()) {
            for user in 1..curve.peak() {
                let (mine, before) = (curve.parts_us(user, 7, MEASURE_MS), curve.parts_us(user - 1, 7, MEASURE_MS));
                prop_assert!(mine.windows(2).all(|pair| pair[0].end < pair[1].start));
                let within = |part: &Range<u64>| before.iter().any(|b| b.start <= part.start && part.end <= b.end);
                prop_assert!(mine.iter().all(within), "{} {:?} {:?}", user, mine, before);
            }
        }

        #[test]
        fn the_mean_is_that_of_the_users(curve in any_curve()) {
            let user_us = |user| curve.parts_us(user, 0, MEASURE_MS).iter().map(|part| part.end - part.start).sum::<u64>();
            let mean = (0..curve.peak()).map(user_us).sum::<u64>() as f64 / (MEASURE_MS * 1000) as f64;
            // Each part is at most 1 µs too long or too short at either end.
            prop_assert!((curve.mean_users(MEASURE_MS) - mean).abs() < 0.01, "{} {}", curve.mean_users(MEASURE_MS), mean);
        }
    }
}
