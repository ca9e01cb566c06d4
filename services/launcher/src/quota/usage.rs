//! What a cgroup has used, and for how long its quota held it back.

use std::{fs, path::Path};

use anyhow::Context as _;

/// Since the cgroup was made, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuUsage {
    /// CPU time, user and system.
    pub used_s: f64,
    /// Time during which the quota was used up and a process wanted to run. cgroup v1 and v2 add it up over the cores.
    pub throttled_s: f64,
    /// Periods in which a process wanted to run.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
}

/// `used`: the file with the used nanoseconds of cgroup v1; cgroup v2 has it in `cpu.stat`.
pub fn read(stat: &Path, used: Option<&Path>) -> anyhow::Result<CpuUsage> {
    let text = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let used = used.map(text).transpose()?;
    parse(&text(stat)?, used.as_deref()).with_context(|| format!("cannot understand {}", stat.display()))
}

fn parse(stat: &str, used_ns: Option<&str>) -> Option<CpuUsage> {
    let number = |key: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    let seconds = |number: u64, per_second: f64| number as f64 / per_second;
    let used_s = match used_ns {
        Some(text) => seconds(text.trim().parse().ok()?, 1e9),
        None => seconds(number("usage_usec")?, 1e6),
    };
    let throttled_s = match number("throttled_time") {
        Some(ns) => seconds(ns, 1e9),
        None => seconds(number("throttled_usec")?, 1e6),
    };
    Some(CpuUsage { used_s, throttled_s, periods: number("nr_periods")?, throttled_periods: number("nr_throttled")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let expected = CpuUsage { used_s: 0.25, throttled_s: 3.5, periods: 201, throttled_periods: 198 };
        let v1 = "nr_periods 201\nnr_throttled 198\nthrottled_time 3500000000\nnr_bursts 0\nburst_time 0\n";
        assert_eq!(parse(v1, Some("250000000\n")), Some(expected));
        let v2 = "usage_usec 250000\nuser_usec 200000\nsystem_usec 50000\nnr_periods 201\nnr_throttled 198\nthrottled_usec 3500000\n";
        assert_eq!(parse(v2, None), Some(expected));
        assert_eq!(parse(v1, None), None);
        assert_eq!(parse(v1, Some("-1")), None);
        // Without a quota, cgroup v2 has no periods.
        assert_eq!(parse("usage_usec 250000\nuser_usec 200000\nsystem_usec 50000\n", None), None);
    }
}
