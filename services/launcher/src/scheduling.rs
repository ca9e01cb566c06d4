//! How the kernel schedules processes: their time in the run queue, their policy, and the CPU quotas of their cgroups.

use std::{collections::HashMap, fmt, fs};

use crate::process::{Stat, all_pids};
pub use crate::quota::ProcessQuota;

/// Since the threads started, summed over them. Threads that have ended are not included, so a sum may fall.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RunQueue {
    /// Seconds in which a thread could run and waited for a core.
    pub waited_s: f64,
    /// How often a thread was given a core.
    pub runs: u64,
}

impl RunQueue {
    /// Of all threads of the process. `None`: it is gone, or the kernel has no such accounts (CONFIG_SCHED_INFO).
    pub fn of(pid: u32) -> Option<Self> {
        let mut total = Self::default();
        for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // A thread that has ended meanwhile has no file.
            if let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) {
                total += Self::parse(&text)?;
            }
        }
        (total.runs > 0).then_some(total)
    }

    /// And of its living descendants, such as nginx's workers.
    pub fn of_tree(pid: u32) -> Option<Self> {
        let mut total = Self::of(pid)?;
        descendants(pid).into_iter().filter_map(Self::of).for_each(|one| total += one);
        Some(total)
    }

    /// Nothing where a sum has fallen.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { waited_s: (self.waited_s - earlier.waited_s).max(0.0), runs: self.runs.saturating_sub(earlier.runs) }
    }

    /// Nanoseconds on a core, nanoseconds in the run queue, number of runs.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace().skip(1);
        let waited_ns: u64 = fields.next()?.parse().ok()?;
        Some(Self { waited_s: waited_ns as f64 / 1e9, runs: fields.next()?.parse().ok()? })
    }
}

impl std::ops::AddAssign for RunQueue {
    fn add_assign(&mut self, other: Self) {
        self.waited_s += other.waited_s;
        self.runs += other.runs;
    }
}

/// All of them, in no order.
fn descendants(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (other, stat) in all_pids().into_iter().filter_map(|other| Some((other, Stat::read(other)?))) {
        children.entry(stat.parent).or_default().push(other);
    }
    let (mut found, mut queue) = (Vec::new(), vec![pid]);
    while let Some(parent) = queue.pop() {
        // Removed, so that a recycled pid cannot cause a cycle.
        let of_parent = children.remove(&parent).unwrap_or_default();
        found.extend(&of_parent);
        queue.extend(of_parent);
    }
    found
}

/// Its text is for reports: `SCHED_BATCH, nice -10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority {
    policy: u64,
    pub nice: i32,
}

impl Priority {
    /// Of the process's first thread; `None` if it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Self { policy: stat.policy, nice: stat.nice })
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy {
            0 => f.write_str("SCHED_OTHER"),
            1 => f.write_str("SCHED_FIFO"),
            2 => f.write_str("SCHED_RR"),
            3 => f.write_str("SCHED_BATCH"),
            5 => f.write_str("SCHED_IDLE"),
            other => write!(f, "policy {other}"),
        }?;
        write!(f, ", nice {}", self.nice)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn schedstat_and_its_differences() {
        let earlier = RunQueue::parse("999 1500000000 40\n").unwrap();
        assert_eq!(earlier, RunQueue { waited_s: 1.5, runs: 40 });
        assert_eq!(RunQueue::parse("1 2\n"), None);
        let later = RunQueue { waited_s: 2.0, runs: 50 };
        assert_eq!(later.since(earlier), RunQueue { waited_s: 0.5, runs: 10 });
        assert_eq!(earlier.since(later), RunQueue::default(), "a thread has ended");
    }

    #[test]
    fn more_processes_than_cores_wait_in_the_run_queue() {
        let cores = std::thread::available_parallelism().unwrap().get();
        let burn = |_| Command::new("sh").args(["-c", "while :; do :; done"]).stdout(Stdio::null()).spawn().unwrap();
        let mut burning: Vec<_> = (0..2 * cores).map(burn).collect();
        let pids: Vec<u32> = burning.iter().map(std::process::Child::id).collect();
        let sum = || {
            let mut all = RunQueue::default();
            pids.iter().filter_map(|pid| RunQueue::of_tree(*pid)).for_each(|one| all += one);
            all
        };
        let before = sum();
        // Each waits for half of the time, so this ends soon on any machine.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while sum().since(before).waited_s < 0.2 && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let waited = sum().since(before);
        for child in &mut burning {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(waited.waited_s >= 0.2 && waited.runs > 0, "{waited:?}");
        assert_eq!(RunQueue::of(pids[0]), None, "it has ended");
    }

    #[test]
    fn a_process_has_a_policy_and_a_nice_value() {
        let nice = |by: &str| Command::new("nice").args(["-n", by, "sleep", "60"]).spawn().unwrap();
        let mut child = nice("7");
        let own = Priority::of(std::process::id()).unwrap();
        let wanted = (own.nice + 7).min(19);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while Priority::of(child.id()).unwrap().nice != wanted && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let found = Priority::of(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, Some(Priority { nice: wanted, ..own }));
        assert_eq!(Priority { policy: 3, nice: -10 }.to_string(), "SCHED_BATCH, nice -10");
        assert_eq!(Priority::of(u32::MAX >> 2), None);
    }
}
