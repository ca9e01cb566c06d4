//! CPU time, memory and open files of processes and of the machine, from /proc. Every answer is `None` once the
//! process is gone.

use std::{collections::HashMap, fs, sync::LazyLock, time::Duration};

use nix::{
    time::ClockId,
    unistd::{Pid, SysconfVar, sysconf},
};

use crate::process::{Stat, all_pids};

static TICKS_PER_SECOND: LazyLock<f64> = LazyLock::new(|| {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.and_then(|ticks| u32::try_from(ticks).ok()).map_or(100.0, f64::from)
});

/// CPU time of all threads, user and system, in seconds since the process started; by the process's own clock, which does not count in
/// hundredths.
pub fn process_seconds(pid: u32) -> Option<f64> {
    // The kernel's own limit. A clock's number is made of the pid by a shift: that of a much greater one would be another's.
    const MAX_PID: i32 = 1 << 22;
    let pid = i32::try_from(pid).ok().filter(|pid| *pid <= MAX_PID)?;
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).ok()?;
    Some(Duration::from(clock.now().ok()?).as_secs_f64())
}

/// CPU time in seconds of a process and its living descendants, such as nginx's workers. What ended before is not in
/// it, so the sum may fall.
pub fn process_tree_seconds(pid: u32) -> Option<f64> {
    let mut total = process_seconds(pid)?;
    let mut children: HashMap<u32, Vec<(u32, f64)>> = HashMap::new();
    for (other, stat) in all_pids().into_iter().filter_map(|other| Some((other, Stat::read(other)?))) {
        children.entry(stat.parent).or_default().push((other, seconds(&stat)));
    }
    let mut line = vec![pid];
    while let Some(parent) = line.pop() {
        // Taken out, so that a recycled pid cannot make a circle.
        for (child, seconds) in children.remove(&parent).unwrap_or_default() {
            total += seconds;
            line.push(child);
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

/// Clock ticks of all cores since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineCpu {
    pub busy: u64,
    /// Of the busy ones, those that the hypervisor gave to other machines.
    pub stolen: u64,
    pub total: u64,
}

impl MachineCpu {
    /// Busy share, 0..=1, of the time from `earlier` to this.
    pub fn busy_share_since(self, earlier: Self) -> f64 {
        share(ticks_since(self.busy, earlier.busy), ticks_since(self.total, earlier.total))
    }

    /// Stolen share, 0..=1, of the time from `earlier` to this.
    pub fn stolen_share_since(self, earlier: Self) -> f64 {
        share(ticks_since(self.stolen, earlier.stolen), ticks_since(self.total, earlier.total))
    }
}

fn ticks_since(now: u64, then: u64) -> f64 {
    u32::try_from(now.saturating_sub(then)).map_or(f64::from(u32::MAX), f64::from)
}

fn share(part: f64, total: f64) -> f64 {
    if total > 0.0 { part / total } else { 0.0 }
}

/// Busy is everything but idle and waiting for a disk; time stolen by the hypervisor is busy, as nobody here had it.
pub fn machine() -> Option<MachineCpu> {
    parse_machine(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse_machine(text: &str) -> Option<MachineCpu> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guest times after these are within user and nice already
    let fields: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let total: u64 = fields.iter().sum();
    let idle = fields.get(3)? + fields.get(4)?;
    Some(MachineCpu { busy: total - idle, stolen: *fields.get(7)?, total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_line() {
        let text = "cpu  10 20 30 400 50 6 7 8 99 99\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_machine(text), Some(MachineCpu { busy: 81, stolen: 8, total: 531 }));
        let earlier = MachineCpu { busy: 81, stolen: 8, total: 531 };
        let later = MachineCpu { busy: 81 + 25, stolen: 8 + 5, total: 531 + 100 };
        assert!((later.busy_share_since(earlier) - 0.25).abs() < 1e-9);
        assert!((later.stolen_share_since(earlier) - 0.05).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_figures() {
        let pid = std::process::id();
        let (before, tree) = (process_seconds(pid).unwrap(), process_tree_seconds(pid).unwrap());
        assert!(tree >= before);
        // At least two ticks of CPU time, however long that takes.
        let mut sum = 0_u64;
        while process_seconds(pid).unwrap() < before + 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(rss_bytes(pid).unwrap() > 100_000);
        assert!(open_fds(pid).unwrap() >= 3);
        assert!(machine().unwrap().total > 0);
        assert_eq!((process_seconds(u32::MAX >> 2), process_seconds(1 << 22)), (None, None));
    }
}
