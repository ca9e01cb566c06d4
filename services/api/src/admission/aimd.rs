//! A limit that finds itself: a little more while it is used and answers are fast, much less at once when they are slow.
//!
//! A decision that takes `now`; the slots are the caller's.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub struct Aimd {
    limit: f64,
    max: f64,
    target: Duration,
    window: Window,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    answers: u32,
    slow: u32,
    most_in_use: usize,
}

/// One decision a window: what a change has done is seen only after it.
const WINDOW: Duration = Duration::from_millis(200);
/// A window with fewer answers goes on: one slow answer of three is chance.
const MIN_ANSWERS: u32 = 10;
/// Share of answers over the target that is too many: the target is a p90.
const SLOW_SHARE: f64 = 0.1;
const BACK_OFF: f64 = 0.85;
/// Added to the limit in each window in which it was used, per slot: back from a half in about 4 s.
const GROWTH: f64 = 0.03;
/// Below it nothing would be learnt any more.
const MIN: f64 = 4.0;

impl Aimd {
    /// Begins at `max` and never exceeds it.
    pub fn new(max: usize, target: Duration, now: Instant) -> Self {
        let max = (max as f64).max(1.0);
        Self { limit: max, max, target, window: Window::new(now) }
    }

    /// An answer took so long while so many were under way; returns the limit from now on.
    pub fn observe(&mut self, now: Instant, took: Duration, in_use: usize) -> usize {
        self.window.answers += 1;
        self.window.slow += u32::from(took > self.target);
        self.window.most_in_use = self.window.most_in_use.max(in_use);
        let over = now.duration_since(self.window.began) >= WINDOW && self.window.answers >= MIN_ANSWERS;
        if over {
            let slow = f64::from(self.window.slow) > SLOW_SHARE * f64::from(self.window.answers);
            // A limit that is not reached is not what keeps answers fast: it must not grow on their account.
            let used = self.window.most_in_use as f64 >= 0.8 * self.limit;
            if slow {
                self.limit *= BACK_OFF;
            } else if used {
                self.limit += (self.limit * GROWTH).max(1.0);
            }
            self.limit = self.limit.clamp(MIN.min(self.max), self.max);
            self.window = Window::new(now);
        }
        self.limit as usize
    }
}

impl Window {
    fn new(began: Instant) -> Self {
        Self { began, answers: 0, slow: 0, most_in_use: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    /// A server that answers `capacity` requests at a time in 20 ms and more of them in proportion later, always with as many
    /// under way as the limit lets in of `offered`; returns the limit over the seconds.
    fn run(policy: &mut Aimd, now: &mut Instant, seconds: u64, capacity: f64, offered: usize) -> usize {
        let end = *now + Duration::from_secs(seconds);
        let mut limit = policy.limit as usize;
        while *now < end {
            let in_use = limit.min(offered).max(1);
            let took = Duration::from_secs_f64(0.020 * (in_use as f64 / capacity).max(1.0));
            // In that time as many were answered as were under way.
            *now += took / in_use as u32;
            limit = policy.observe(*now, took, in_use);
        }
        limit
    }

    #[test]
    fn settles_where_answers_take_the_target_and_follows_the_server() {
        let mut now = Instant::now();
        let mut policy = Aimd::new(2_000, TARGET, now);
        // 5 × capacity under way take 100 ms.
        let limit = run(&mut policy, &mut now, 30, 40.0, 5_000);
        assert!((140..=240).contains(&limit), "{limit} under way, 200 take the target");
        // A quarter as fast.
        let limit = run(&mut policy, &mut now, 30, 10.0, 5_000);
        assert!((35..=65).contains(&limit), "{limit} under way, 50 take the target");
        // Fast again: back within seconds.
        let limit = run(&mut policy, &mut now, 15, 40.0, 5_000);
        assert!(limit >= 140, "{limit}");
    }

    #[test]
    fn does_not_grow_without_being_used_nor_beyond_its_bounds() {
        let mut now = Instant::now();
        let mut policy = Aimd::new(100, TARGET, now);
        assert_eq!(run(&mut policy, &mut now, 20, 1_000.0, 5_000), 100);
        assert_eq!(run(&mut policy, &mut now, 60, 0.1, 5_000), 4);
        assert_eq!(
            run(&mut policy, &mut now, 20, 1_000.0, 2),
            4,
            "two at a time do not tell whether more could be served"
        );
        assert_eq!(run(&mut policy, &mut now, 60, 1_000.0, 5_000), 100);
    }
}
