//! CPU time, memory and open files of processes and of the machine, from /proc. `None` if the process is gone.

use std::{
    collections::HashMap,
    fs,
    sync::LazyLock,
    time::{Duration, Instant},
};

use nix::{
    time::ClockId,
    unistd::{Pid, SysconfVar, sysconf},
};

use crate::{
    process::{Stat, all_pids},
    quota::ProcessQuota,
};

static TICKS_PER_SECOND: LazyLock<f64> = LazyLock::new(|| {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.and_then(|ticks| u32::try_from(ticks).ok()).map_or(100.0, f64::from)
});

/// CPU seconds of all threads, user and system, since the process started. Read from the process's CPU clock, which is finer than /proc's
/// ticks.
pub fn process_seconds(pid: u32) -> Option<f64> {
    // The kernel's limit. A clock id is a shifted pid: a larger pid would be another process's clock.
    const MAX_PID: i32 = 1 << 22;
    let pid = i32::try_from(pid).ok().filter(|pid| *pid <= MAX_PID)?;
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).ok()?;
    Some(Duration::from(clock.now().ok()?).as_secs_f64())
}

/// CPU seconds of a process and its living descendants, such as nginx's workers. Ended descendants are not included, so the sum may fall.
pub fn process_tree_seconds(pid: u32) -> Option<f64> {
    let mut total = process_seconds(pid)?;
    let mut children: HashMap<u32, Vec<(u32, f64)>> = HashMap::new();
    for (other, stat) in all_pids().into_iter().filter_map(|other| Some((other, Stat::read(other)?))) {
        children.entry(stat.parent).or_default().push((other, seconds(&stat)));
    }
    let mut queue = vec![pid];
    while let Some(parent) = queue.pop() {
        // Removed, so that a recycled pid cannot cause a cycle.
        for (child, seconds) in children.remove(&parent).unwrap_or_default() {
            total += seconds;
            queue.push(child);
        }
    }
    Some(total)
}

fn seconds(stat: &Stat) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "2^53 ticks are millions of years")]
    let ticks = (stat.user_ticks + stat.system_ticks) as f64;
    ticks / *TICKS_PER_SECOND
}

/// Resident memory in bytes.
pub fn rss_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Open file descriptors.
pub fn open_fds(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Idle and stolen time of all cores since boot.
///
/// The kernel measures idle time but samples busy time at its timer ticks (CONFIG_TICK_CPU_ACCOUNTING, 4 ms on most machines). Work that
/// begins on a 4 ms grid aliases with these ticks. So busy is 1 − idle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineCpu {
    pub at: Instant,
    pub cores: u32,
    /// Seconds of all cores, including time that waits for a disk.
    pub idle_s: f64,
    /// Seconds of all cores that the hypervisor gave to other machines.
    pub stolen_s: f64,
    /// Of this process, as a container has it; `None` where all cores may be used.
    pub quota: Option<ProcessQuota>,
}

impl MachineCpu {
    /// Busy share since `earlier`, 0..=1: of all cores, and where a quota applies to this process, of the quota if that is busier. Stolen
    /// time counts as busy.
    pub fn busy_share_since(self, earlier: Self) -> f64 {
        let all_s = self.all_s_since(earlier);
        let share = |used_s: f64, of_s: f64| if of_s > 0.0 { (used_s / of_s).clamp(0.0, 1.0) } else { 0.0 };
        let of_cores = share(all_s - (self.idle_s - earlier.idle_s), all_s);
        let of_quota = self
            .quota
            .zip(earlier.quota)
            .map_or(0.0, |(now, then)| share(now.used_s - then.used_s, self.seconds_since(earlier) * now.cores));
        of_cores.max(of_quota)
    }

    /// Stolen share since `earlier`, 0..=1.
    pub fn stolen_share_since(self, earlier: Self) -> f64 {
        let all_s = self.all_s_since(earlier);
        if all_s > 0.0 { ((self.stolen_s - earlier.stolen_s) / all_s).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The accounts at an instant between two others, as if all had grown evenly.
    #[must_use]
    pub fn between(earlier: Self, later: Self, at: Instant) -> Self {
        let whole_s = later.seconds_since(earlier);
        let part = at.saturating_duration_since(earlier.at).as_secs_f64();
        let share = if whole_s > 0.0 { (part / whole_s).clamp(0.0, 1.0) } else { 0.0 };
        let mix = |from: f64, to: f64| from + share * (to - from);
        let quota = earlier.quota.zip(later.quota).map(|(from, to)| ProcessQuota {
            used_s: mix(from.used_s, to.used_s),
            throttled_s: mix(from.throttled_s, to.throttled_s),
            ..to
        });
        Self {
            at: earlier.at + Duration::from_secs_f64(share * whole_s),
            idle_s: mix(earlier.idle_s, later.idle_s),
            stolen_s: mix(earlier.stolen_s, later.stolen_s),
            quota,
            ..later
        }
    }

    fn seconds_since(self, earlier: Self) -> f64 {
        self.at.saturating_duration_since(earlier.at).as_secs_f64()
    }

    fn all_s_since(self, earlier: Self) -> f64 {
        self.seconds_since(earlier) * f64::from(self.cores)
    }
}

/// The only measure of how busy the machine is, in and outside of containers.
pub fn machine() -> Option<MachineCpu> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let at = Instant::now();
    Some(MachineCpu { quota: ProcessQuota::of(std::process::id()), ..parse_machine(&text, at)? })
}

fn parse_machine(text: &str, at: Instant) -> Option<MachineCpu> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let cores = text.lines().filter(|line| line.starts_with("cpu")).count() - 1;
    // user nice system idle iowait irq softirq steal
    let fields: Vec<f64> = line.split_ascii_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let seconds = |field: usize| Some(fields.get(field)? / *TICKS_PER_SECOND);
    let cores = u32::try_from(cores).ok()?;
    Some(MachineCpu { at, cores, idle_s: seconds(3)? + seconds(4)?, stolen_s: seconds(7)?, quota: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_was_not_idle() {
        let at = Instant::now();
        let stat = |idle_s: f64, stolen_s: f64| {
            let [idle, stolen] = [idle_s, stolen_s].map(|s| (s * *TICKS_PER_SECOND).round());
            // Sampled user and system time must not matter.
            format!("cpu  999 20 30 {idle} 0 6 7 {stolen} 99 99\ncpu0 1 1 1 1 1\ncpu1 1 1 1 1 1\nintr 5 cpu\n")
        };
        let earlier = parse_machine(&stat(100.0, 8.0), at).unwrap();
        assert_eq!((earlier.cores, earlier.idle_s, earlier.stolen_s), (2, 100.0, 8.0));
        let later = parse_machine(&stat(115.0, 9.0), at + Duration::from_secs(10)).unwrap();
        assert!((later.busy_share_since(earlier) - 0.25).abs() < 1e-9);
        assert!((later.stolen_share_since(earlier) - 0.05).abs() < 1e-9);
        let middle = MachineCpu::between(earlier, later, at + Duration::from_secs(4));
        assert_eq!((middle.idle_s, middle.at), (106.0, at + Duration::from_secs(4)));
        assert_eq!((earlier.busy_share_since(earlier), earlier.stolen_share_since(earlier)), (0.0, 0.0));
        assert_eq!(parse_machine("cpu  1 2 3\n", at), None);
        assert_eq!(parse_machine("", at), None);
    }

    #[test]
    fn in_a_container_busy_is_a_share_of_its_quota() {
        let at = Instant::now();
        let accounts = |seconds: u64, idle_s: f64, used_s: f64| MachineCpu {
            at: at + Duration::from_secs(seconds),
            cores: 8,
            idle_s,
            stolen_s: 0.0,
            quota: Some(ProcessQuota { cores: 0.5, used_s, throttled_s: 0.0 }),
        };
        let busy = |idle_s, used_s| accounts(10, idle_s, used_s).busy_share_since(accounts(0, 0.0, 0.0));
        assert_eq!(busy(75.0, 4.75), 0.95, "the host is nearly idle, the container is not");
        assert_eq!(busy(4.0, 1.0), 0.95, "the host is busy with others");
        assert_eq!(busy(76.0, 6.0), 1.0);
    }

    #[test]
    fn this_process_has_figures() {
        let pid = std::process::id();
        let (before, tree) = (process_seconds(pid).unwrap(), process_tree_seconds(pid).unwrap());
        assert!(tree >= before);
        // At least two ticks of CPU time, on any machine.
        let mut sum = 0_u64;
        while process_seconds(pid).unwrap() < before + 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(rss_bytes(pid).unwrap() > 100_000);
        assert!(open_fds(pid).unwrap() >= 3);
        assert!(machine().unwrap().cores > 0);
        assert_eq!((process_seconds(u32::MAX >> 2), process_seconds(1 << 22)), (None, None));
    }
}
