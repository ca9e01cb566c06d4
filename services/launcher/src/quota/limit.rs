//! A quota as the kernel takes it: microseconds of CPU time in each period.

use std::{fs, path::Path};

use anyhow::Context as _;

use super::{Cores, hierarchy::Version};

/// Short, so that a request waits milliseconds for its next slice, and not Kubernetes' 100 ms.
const PERIOD_US: f64 = 10_000.0;
/// The kernel refuses a shorter slice.
const MIN_SLICE_US: f64 = 1_000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    slice_us: u64,
    period_us: u64,
}

impl Limit {
    /// 10 ms periods. Below 0.1 cores the period is longer, so that the slice has 1 ms: 0.05 cores are 1 ms in 20 ms.
    pub fn of(cores: Cores) -> Self {
        // `Cores` is between 0.001 and the number of cores, so that both numbers are small and positive.
        let period_us = (MIN_SLICE_US / cores.get()).ceil().max(PERIOD_US);
        let slice_us = (cores.get() * period_us).floor().max(MIN_SLICE_US);
        Self { slice_us: slice_us as u64, period_us: period_us as u64 }
    }

    /// Writes the quota of the cgroup in this directory.
    pub fn write(self, version: Version, directory: &Path) -> anyhow::Result<()> {
        for (file, text) in self.files(version) {
            let path = directory.join(file);
            fs::write(&path, &text).with_context(|| format!("cannot write {text} to {}", path.display()))?;
        }
        Ok(())
    }

    /// In the order in which they are written.
    fn files(self, version: Version) -> Vec<(&'static str, String)> {
        let Self { slice_us, period_us } = self;
        match version {
            // The period first: a new cgroup has no quota yet, so that any period is accepted.
            Version::V1 => {
                vec![("cpu.cfs_period_us", period_us.to_string()), ("cpu.cfs_quota_us", slice_us.to_string())]
            }
            Version::V2 => vec![("cpu.max", format!("{slice_us} {period_us}"))],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_short_and_slices_not_below_a_millisecond() {
        for (cores, slice_us, period_us) in [
            (0.001, 1_000, 1_000_000),
            (0.03, 1_000, 33_334),
            (0.05, 1_000, 20_000),
            (0.1, 1_000, 10_000),
            (0.25, 2_500, 10_000),
            (1.0, 10_000, 10_000),
            (1.5, 15_000, 10_000),
        ] {
            assert_eq!(Limit::of(Cores(cores)), Limit { slice_us, period_us }, "{cores}");
        }
    }

    #[test]
    fn files_of_both_versions() {
        let limit = Limit::of(Cores(0.05));
        assert_eq!(
            limit.files(Version::V1),
            [("cpu.cfs_period_us", "20000".to_owned()), ("cpu.cfs_quota_us", "1000".to_owned())]
        );
        assert_eq!(limit.files(Version::V2), [("cpu.max", "1000 20000".to_owned())]);
    }
}
