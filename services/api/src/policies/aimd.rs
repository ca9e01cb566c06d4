//! A concurrency limit by additive increase and multiplicative decrease (AIMD): it grows slowly while it is in use and responses are fast,
//! and falls at once when they are slow.
//!
//! The durations of all requests count, however they ended.

use std::time::Duration;

use tokio::time::Instant;

use super::policy::{Ended, Policy, PolicyKind, QueueOrder, Settings};

pub const KIND: PolicyKind = PolicyKind {
    name: "adaptive",
    order: QueueOrder::Oldest,
    start: |settings, now| Box::new(Aimd::new(*settings, now)),
};

#[derive(Debug)]
struct Aimd {
    limit: f64,
    max: f64,
    settings: Settings,
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
    /// Starts at the highest limit.
    fn new(settings: Settings, now: Instant) -> Self {
        let max = (settings.max_limit as f64).max(1.0);
        Self { limit: max, max, settings, window: Window::new(now) }
    }
}

impl Policy for Aimd {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn observe(&mut self, now: Instant, ended: Ended) {
        self.window.responses += 1;
        self.window.slow += u32::from(ended.duration > self.settings.target);
        self.window.max_in_use = self.window.max_in_use.max(ended.in_flight);
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
    }

    fn max_wait(&self, _standing: Duration) -> Duration {
        self.settings.wait
    }
}

impl Window {
    fn new(began: Instant) -> Self {
        Self { began, responses: 0, slow: 0, max_in_use: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::policy::{Outcome, tests::SETTINGS},
        *,
    };

    fn aimd(max_limit: usize, now: Instant) -> Aimd {
        Aimd::new(Settings { max_limit, ..SETTINGS }, now)
    }

    /// Simulates a server that answers up to `capacity` concurrent requests in 20 ms, and more of them proportionally later. The requests in
    /// flight are the lower of the limit and `offered`. Returns the last limit.
    fn simulate(policy: &mut Aimd, now: &mut Instant, seconds: u64, capacity: f64, offered: usize) -> usize {
        let end = *now + Duration::from_secs(seconds);
        let mut limit = policy.limit();
        while *now < end {
            let in_use = limit.min(offered).max(1);
            let duration = Duration::from_secs_f64(0.020 * (in_use as f64 / capacity).max(1.0));
            // During one such duration all requests in flight are answered.
            *now += duration / in_use as u32;
            policy.observe(*now, Ended { duration, outcome: Outcome::Answered, in_flight: in_use });
            limit = policy.limit();
        }
        limit
    }

    #[test]
    fn the_limit_converges_and_follows_the_server() {
        let mut now = Instant::now();
        let mut policy = aimd(2_000, now);
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
        let mut policy = aimd(100, now);
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
