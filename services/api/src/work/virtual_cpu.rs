//! A CPU that gives a replica a fraction of its time: arithmetic on a clock, for machines without cgroups and for simulations.
//!
//! Callers pass `now_ns`, nanoseconds on any clock that does not go back: a replica that of the machine, a simulation its own.

/// Works for one request after the other. `free_at = max(now, free_at) + cost / quota`.
#[derive(Debug, Clone)]
pub struct VirtualCpu {
    /// CPU seconds per second, above 0 and at most 1.
    quota: f64,
    /// All charged work is done then.
    free_at_ns: u64,
    /// CPU time of all charged work, done or not.
    charged_ns: u64,
}

impl VirtualCpu {
    /// Idle. `quota`: CPU seconds per second, above 0 and at most 1.
    pub fn new(quota: f64, now_ns: u64) -> Self {
        Self { quota, free_at_ns: now_ns, charged_ns: 0 }
    }

    /// Adds work and returns when it will be done. `None`: that is after `latest_ns`, and nothing was added. So the backlog has a bound. Work
    /// stays charged if its request is given up.
    pub fn charge(&mut self, now_ns: u64, cost_ns: u64, latest_ns: u64) -> Option<u64> {
        let done_ns = now_ns.max(self.free_at_ns) + scaled(cost_ns, 1.0 / self.quota);
        if done_ns > latest_ns {
            return None;
        }
        self.free_at_ns = done_ns;
        self.charged_ns += cost_ns;
        Some(done_ns)
    }

    /// CPU time used until `now_ns`: never more than the quota since any earlier moment, as in a cgroup.
    pub fn used_ns(&self, now_ns: u64) -> u64 {
        let backlog_ns = scaled(self.free_at_ns.saturating_sub(now_ns), self.quota);
        self.charged_ns.saturating_sub(backlog_ns)
    }

    /// Time until `now_ns` during which there was work and the quota held it back, as in a cgroup.
    pub fn throttled_ns(&self, now_ns: u64) -> u64 {
        scaled(self.used_ns(now_ns), 1.0 / self.quota - 1.0)
    }
}

/// To the nearest nanosecond.
fn scaled(ns: u64, factor: f64) -> u64 {
    (ns as f64 * factor + 0.5) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn close(a: u64, b: u64) -> bool {
        a.abs_diff(b) < 10
    }

    #[test]
    fn work_takes_its_cost_by_the_quota_and_queues() {
        let start = 7 * MS;
        let mut cpu = VirtualCpu::new(0.05, start);
        let far = start + 1000 * MS;
        for n in 1..=50 {
            assert!(close(cpu.charge(start, MS, far).unwrap() - start, 20 * n * MS));
        }
        assert_eq!(cpu.charge(start, MS, far), None, "it would end 20 ms after the latest moment");
        assert!(close(cpu.used_ns(far), 50 * MS), "what was refused is not charged");
        // An idle CPU saves nothing for later.
        let later = start + 60_000 * MS;
        assert!(close(cpu.charge(later, MS, later + 20 * MS).unwrap() - later, 20 * MS));
    }

    #[test]
    fn used_and_throttled_time_pass_with_the_clock() {
        let mut cpu = VirtualCpu::new(0.25, 0);
        assert_eq!((cpu.used_ns(0), cpu.throttled_ns(0)), (0, 0));
        cpu.charge(0, 100 * MS, 1000 * MS).unwrap();
        // 400 ms of work, of which the quota takes 300.
        for (at, used, throttled) in [(0, 0, 0), (100, 25, 75), (200, 50, 150), (400, 100, 300), (9_000, 100, 300)] {
            let now = at * MS;
            assert!(close(cpu.used_ns(now), used * MS) && close(cpu.throttled_ns(now), throttled * MS), "{at} ms");
        }
        // More work does not change what has passed.
        cpu.charge(200 * MS, 100 * MS, 1000 * MS).unwrap();
        assert!(close(cpu.used_ns(200 * MS), 50 * MS) && close(cpu.used_ns(800 * MS), 200 * MS));
    }

    #[test]
    fn no_interval_uses_more_than_the_quota() {
        let mut cpu = VirtualCpu::new(0.05, 0);
        let mut samples = Vec::new();
        for at in (0..30_000).step_by(3) {
            let now = at * MS;
            cpu.charge(now, MS, now + 5_000 * MS);
            if at % 1_500 == 0 {
                samples.push(cpu.used_ns(now));
            }
        }
        for pair in samples.windows(2) {
            assert!(close(pair[1] - pair[0], 75 * MS), "100 % of 50 m in 1.5 s: {pair:?}");
        }
    }

    #[test]
    fn a_whole_cpu_is_never_throttled() {
        let mut cpu = VirtualCpu::new(1.0, 0);
        assert_eq!(cpu.charge(0, 10 * MS, 10 * MS), Some(10 * MS));
        assert_eq!((cpu.used_ns(5 * MS), cpu.throttled_ns(5 * MS)), (5 * MS, 0));
    }
}
