//! A concurrency limit by additive increase and multiplicative decrease (AIMD): it grows slowly while it is in use and responses are fast,
//! and falls at once when they are slow.
//!
//! Pure: takes `now`. The caller manages the slots.

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
    responses: u32,
    slow: u32,
    max_in_use: usize,
}

/// One decision per window, so that the effect of a change is visible before the next.
const WINDOW: Duration = Duration::from_millis(200);
/// A window with fewer responses continues: one slow response of three is not significant.
const MIN_RESPONSES: u32 = 10;
/// The limit falls above this share of slow responses: the target is the 90th percentile.
const SLOW_SHARE: f64 = 0.1;
const BACK_OFF: f64 = 0.85;
/// Growth per slot in each window in which the limit was in use. From half the limit, recovery takes about 4 s.
const GROWTH: f64 = 0.03;
/// With fewer slots there would be too few responses to decide on.
const MIN: f64 = 4.0;

impl Aimd {
    /// Starts at `max`, and never exceeds it.
    pub fn new(max: usize, target: Duration, now: Instant) -> Self {
        let max = (max as f64).max(1.0);
        Self { limit: max, max, target, window: Window::new(now) }
    }

    /// Records the duration of a response and the slots in use at its end. Returns the new limit.
    pub fn observe(&mut self, now: Instant, duration: Duration, in_use: usize) -> usize {
        self.window.responses += 1;
        self.window.slow += u32::from(duration > self.target);
        self.window.max_in_use = self.window.max_in_use.max(in_use);
        let over = now.duration_since(self.window.began) >= WINDOW && self.window.responses >= MIN_RESPONSES;
        if over {
            let slow = f64::from(self.window.slow) > SLOW_SHARE * f64::from(self.window.responses);
            // If the limit was not reached, fast responses do not show that a higher limit is possible.
            let used = self.window.max_in_use as f64 >= 0.8 * self.limit;
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
        Self { began, responses: 0, slow: 0, max_in_use: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    /// Simulates a server that answers up to `capacity` concurrent requests in 20 ms, and more of them proportionally later. The requests in
    /// flight are the lower of the limit and `offered`. Returns the last limit.
    fn simulate(policy: &mut Aimd, now: &mut Instant, seconds: u64, capacity: f64, offered: usize) -> usize {
        let end = *now + Duration::from_secs(seconds);
        let mut limit = policy.limit as usize;
        while *now < end {
            let in_use = limit.min(offered).max(1);
            let duration = Duration::from_secs_f64(0.020 * (in_use as f64 / capacity).max(1.0));
            // During one such duration all requests in flight are answered.
            *now += duration / in_use as u32;
            limit = policy.observe(*now, duration, in_use);
        }
        limit
    }

    #[test]
    fn the_limit_converges_and_follows_the_server() {
        let mut now = Instant::now();
        let mut policy = Aimd::new(2_000, TARGET, now);
        // With 5 × capacity in flight a response takes 100 ms.
        let limit = simulate(&mut policy, &mut now, 30, 40.0, 5_000);
        assert!((140..=240).contains(&limit), "{limit}, where 200 in flight take the target");
        // The server becomes four times slower.
        let limit = simulate(&mut policy, &mut now, 30, 10.0, 5_000);
        assert!((35..=65).contains(&limit), "{limit}, where 50 in flight take the target");
        // The server recovers, and so does the limit within seconds.
        let limit = simulate(&mut policy, &mut now, 15, 40.0, 5_000);
        assert!(limit >= 140, "{limit}");
    }

    #[test]
    fn the_limit_keeps_its_bounds_and_grows_only_in_use() {
        let mut now = Instant::now();
        let mut policy = Aimd::new(100, TARGET, now);
        assert_eq!(simulate(&mut policy, &mut now, 20, 1_000.0, 5_000), 100);
        assert_eq!(simulate(&mut policy, &mut now, 60, 0.1, 5_000), 4);
        assert_eq!(
            simulate(&mut policy, &mut now, 20, 1_000.0, 2),
            4,
            "two requests in flight do not show that four are possible"
        );
        assert_eq!(simulate(&mut policy, &mut now, 60, 1_000.0, 5_000), 100);
    }
}
