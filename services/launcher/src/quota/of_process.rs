//! The CPU quotas under which a process runs: of its cgroup, and of those above as far as they are mounted.

use std::{fs, path::Path};

use super::{hierarchy::cpu_directories, usage};

/// Of the cgroup with the smallest quota.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessQuota {
    /// CPU seconds per second.
    pub cores: f64,
    /// CPU seconds of all processes in that cgroup since it was made.
    pub used_s: f64,
    /// Seconds in which a quota was used up, summed over all cgroups with one.
    pub throttled_s: f64,
}

impl ProcessQuota {
    /// `None`: no quota applies, or the process is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let directories = cpu_directories(&mounts, &own)?;
        Self::within(&directories.cpu, &directories.point, directories.usage.as_deref())
    }

    /// `directory` and those above, up to `point`. `usage`: the directory of the controller `cpuacct` in cgroup v1.
    fn within(directory: &Path, point: &Path, usage: Option<&Path>) -> Option<Self> {
        let mut least: Option<Self> = None;
        let mut throttled_s = 0.0;
        let above = directory.ancestors().take_while(|directory| directory.starts_with(point));
        for (n, directory) in above.enumerate() {
            let Some(cores) = cores(directory) else { continue };
            let used = usage.and_then(|usage| usage.ancestors().nth(n)).map(|usage| usage.join("cpuacct.usage"));
            let Ok(usage) = usage::read(&directory.join("cpu.stat"), used.as_deref()) else { continue };
            throttled_s += usage.throttled_s;
            if least.is_none_or(|least| cores < least.cores) {
                least = Some(Self { cores, used_s: usage.used_s, throttled_s: 0.0 });
            }
        }
        least.map(|least| Self { throttled_s, ..least })
    }
}

/// The quota of one cgroup; `None` without one.
fn cores(directory: &Path) -> Option<f64> {
    let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // `max` and -1 are no quota.
    let quota = quota.trim().parse::<f64>().ok().filter(|quota| *quota > 0.0)?;
    let period = period.trim().parse::<f64>().ok().filter(|period| *period > 0.0)?;
    Some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_quota_from_the_cgroup_upwards_applies() {
        let scratch = tempfile::tempdir().unwrap();
        let point = scratch.path().join("cgroup");
        let (pod, inner) = (point.join("pod"), point.join("pod/inner"));
        fs::create_dir_all(&inner).unwrap();
        let stat = |used_us: u64, throttled_us: u64| {
            format!("usage_usec {used_us}\nnr_periods 9\nnr_throttled 1\nthrottled_usec {throttled_us}\n")
        };
        fs::write(scratch.path().join("cpu.max"), "1000 100000\n").unwrap(); // outside of the mount
        fs::write(pod.join("cpu.max"), "150000 100000\n").unwrap();
        fs::write(pod.join("cpu.stat"), stat(5_000_000, 40_000)).unwrap();
        fs::write(inner.join("cpu.max"), "max 100000\n").unwrap();
        fs::write(inner.join("cpu.stat"), stat(1_000_000, 0)).unwrap();
        let found = ProcessQuota::within(&inner, &point, None);
        assert_eq!(found, Some(ProcessQuota { cores: 1.5, used_s: 5.0, throttled_s: 0.04 }));
        fs::write(inner.join("cpu.max"), "50000 100000\n").unwrap();
        let found = ProcessQuota::within(&inner, &point, None).unwrap();
        assert_eq!((found.cores, found.used_s, found.throttled_s), (0.5, 1.0, 0.04));
        assert_eq!(ProcessQuota::within(&point, &point, None), None);
    }

    #[test]
    fn a_quota_of_cgroup_v1_has_its_usage_elsewhere() {
        let scratch = tempfile::tempdir().unwrap();
        let [cpu, usage] = ["cpu", "cpuacct"].map(|name| scratch.path().join(name));
        for directory in [&cpu, &usage] {
            fs::create_dir_all(directory.join("job")).unwrap();
        }
        fs::write(cpu.join("cpu.cfs_quota_us"), "-1\n").unwrap();
        fs::write(cpu.join("cpu.cfs_period_us"), "100000\n").unwrap();
        fs::write(cpu.join("job/cpu.cfs_quota_us"), "20000\n").unwrap();
        fs::write(cpu.join("job/cpu.cfs_period_us"), "10000\n").unwrap();
        fs::write(cpu.join("job/cpu.stat"), "nr_periods 3\nnr_throttled 2\nthrottled_time 250000000\n").unwrap();
        fs::write(usage.join("job/cpuacct.usage"), "7500000000\n").unwrap();
        let found = ProcessQuota::within(&cpu.join("job"), &cpu, Some(&usage.join("job")));
        assert_eq!(found, Some(ProcessQuota { cores: 2.0, used_s: 7.5, throttled_s: 0.25 }));
    }
}
