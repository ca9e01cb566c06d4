//! A CPU that gives a replica a fraction of its time: arithmetic on the clock, for machines without cgroups.

use std::time::Duration;

use tokio::time::Instant;

/// Works for one request after the other. `free_at = max(now, free_at) + cost / quota`.
#[derive(Debug)]
pub struct VirtualCpu {
    /// CPU seconds per second, above 0 and at most 1.
    quota: f64,
    /// All charged work is done then.
    free_at: Instant,
    /// CPU time of all charged work, done or not.
    charged: Duration,
}

impl VirtualCpu {
    pub fn new(quota: f64, now: Instant) -> Self {
        Self { quota, free_at: now, charged: Duration::ZERO }
    }

    /// Adds work and returns when it will be done. `None`: that is after `latest`, and nothing was added. So the backlog has a bound. Work stays
    /// charged if its request is given up.
    pub fn charge(&mut self, now: Instant, cost: Duration, latest: Instant) -> Option<Instant> {
        let done = now.max(self.free_at) + cost.div_f64(self.quota);
        if done > latest {
            return None;
        }
        self.free_at = done;
        self.charged += cost;
        Some(done)
    }

    /// CPU time used until `now`: never more than the quota since any earlier moment, as in a cgroup.
    pub fn used(&self, now: Instant) -> Duration {
        let backlog = self.free_at.saturating_duration_since(now).mul_f64(self.quota);
        self.charged.saturating_sub(backlog)
    }

    /// Time until `now` during which there was work and the quota held it back, as in a cgroup.
    pub fn throttled(&self, now: Instant) -> Duration {
        self.used(now).mul_f64(1.0 / self.quota - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn close(a: Duration, b: Duration) -> bool {
        a.abs_diff(b) < Duration::from_nanos(10)
    }

    #[test]
    fn work_takes_its_cost_by_the_quota_and_queues() {
        let start = Instant::now();
        let mut cpu = VirtualCpu::new(0.05, start);
        let far = start + 1000 * MS;
        for n in 1..=50 {
            assert!(close(cpu.charge(start, MS, far).unwrap() - start, 20 * n * MS));
        }
        assert_eq!(cpu.charge(start, MS, far), None, "it would end 20 ms after the latest moment");
        assert!(close(cpu.used(far), 50 * MS), "what was refused is not charged");
        // An idle CPU saves nothing for later.
        let later = start + 60_000 * MS;
        assert!(close(cpu.charge(later, MS, later + 20 * MS).unwrap() - later, 20 * MS));
    }

    #[test]
    fn used_and_throttled_time_pass_with_the_clock() {
        let start = Instant::now();
        let mut cpu = VirtualCpu::new(0.25, start);
        assert_eq!((cpu.used(start), cpu.throttled(start)), (Duration::ZERO, Duration::ZERO));
        cpu.charge(start, 100 * MS, start + 1000 * MS).unwrap();
        // 400 ms of work, of which the quota takes 300.
        for (at, used, throttled) in [(0, 0, 0), (100, 25, 75), (200, 50, 150), (400, 100, 300), (9_000, 100, 300)] {
            let now = start + at * MS;
            assert!(close(cpu.used(now), used * MS) && close(cpu.throttled(now), throttled * MS), "{at} ms");
        }
        // More work does not change what has passed.
        let now = start + 200 * MS;
        cpu.charge(now, 100 * MS, start + 1000 * MS).unwrap();
        assert!(close(cpu.used(now), 50 * MS) && close(cpu.used(start + 800 * MS), 200 * MS));
    }

    #[test]
    fn no_interval_uses_more_than_the_quota() {
        let start = Instant::now();
        let mut cpu = VirtualCpu::new(0.05, start);
        let mut samples = Vec::new();
        for at in (0..30_000).step_by(3) {
            let now = start + at * MS;
            cpu.charge(now, MS, now + 5_000 * MS);
            if at % 1_500 == 0 {
                samples.push(cpu.used(now));
            }
        }
        for pair in samples.windows(2) {
            assert!(close(pair[1] - pair[0], 75 * MS), "100 % of 50 m in 1.5 s: {pair:?}");
        }
    }

    #[test]
    fn a_whole_cpu_is_never_throttled() {
        let start = Instant::now();
        let mut cpu = VirtualCpu::new(1.0, start);
        assert_eq!(cpu.charge(start, 10 * MS, start + 10 * MS), Some(start + 10 * MS));
        assert_eq!((cpu.used(start + 5 * MS), cpu.throttled(start + 5 * MS)), (5 * MS, Duration::ZERO));
    }
}
