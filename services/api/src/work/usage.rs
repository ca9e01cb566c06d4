//! CPU and throttled time of the replica, under the same names for all kinds of quotas. They are read on each scrape.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    Counter, Gauge, Opts, Result,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use runtime::vitals::{advance, cpu_seconds};

use super::shared_cpu::SharedCpu;

pub enum Source {
    /// No quota: the process's CPU time.
    Process,
    /// The process's CPU time, and the throttled time in the `cpu.stat` of its cgroup.
    Cgroup(PathBuf),
    /// Both times of the virtual CPU. That of the process would say little: it waits instead of computing.
    Virtual(Arc<SharedCpu>),
}

impl Source {
    /// # Errors
    /// The cgroup's file cannot be read, or has no throttled time.
    pub fn check(&self) -> io::Result<()> {
        match self {
            Self::Process | Self::Virtual(_) => Ok(()),
            Self::Cgroup(stat) => throttled_seconds(stat).map(drop),
        }
    }

    /// CPU and throttled seconds. `None`: they cannot be read now.
    fn read(&self) -> Option<(f64, f64)> {
        match self {
            Self::Process => Some((cpu_seconds(), 0.0)),
            Self::Cgroup(stat) => Some((cpu_seconds(), throttled_seconds(stat).ok()?)),
            Self::Virtual(cpu) => Some(cpu.used_and_throttled_s()),
        }
    }
}

fn throttled_seconds(stat: &Path) -> io::Result<f64> {
    parse_throttled(&fs::read_to_string(stat)?).ok_or_else(|| io::Error::other("it has no throttled time"))
}

/// Nanoseconds in cgroup v1, microseconds in v2.
fn parse_throttled(text: &str) -> Option<f64> {
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    match number("throttled_time") {
        Some(ns) => Some(ns as f64 / 1e9),
        None => Some(number("throttled_usec")? as f64 / 1e6),
    }
}

pub struct Usage {
    source: Source,
    used: Counter,
    throttled: Counter,
    quota: Gauge,
    /// Two concurrent scrapes would add the same increase twice.
    updating: Mutex<()>,
}

impl Usage {
    /// # Errors
    /// A name is not valid.
    pub fn new(source: Source, quota: f64) -> Result<Self> {
        let gauge = Gauge::with_opts(Opts::new(
            "api_cpu_quota_cores",
            "Quota of the virtual CPU (http.cpu_quota); 0: the CPU time is real",
        ))?;
        gauge.set(quota);
        Ok(Self {
            source,
            used: Counter::new(
                "api_cpu_seconds_total",
                "CPU time that counts against the quota of this replica: of its process, or of its virtual CPU with http.cpu_quota",
            )?,
            throttled: Counter::new(
                "api_cpu_throttled_seconds_total",
                "Time during which this replica had work and its quota held it back (http.cpu_stat or http.cpu_quota); 0 without a quota",
            )?,
            quota: gauge,
            updating: Mutex::new(()),
        })
    }

    fn collectors(&self) -> [&dyn Collector; 3] {
        [&self.used, &self.throttled, &self.quota]
    }
}

impl Collector for Usage {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(|one| one.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _one_at_a_time = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((used, throttled)) = self.source.read() {
            advance(&self.used, used);
            advance(&self.throttled, throttled);
        }
        self.collectors().into_iter().flat_map(|one| one.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn values(usage: &Usage) -> [f64; 3] {
        let families = usage.collect();
        let value = |n: usize| {
            let metric = &families[n].get_metric()[0];
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        [value(0), value(1), value(2)]
    }

    #[tokio::test(start_paused = true)]
    async fn a_virtual_cpu_shows_its_own_time() {
        let start = Instant::now();
        let cpu = Arc::new(SharedCpu::new(0.25));
        let usage = Usage::new(Source::Virtual(Arc::clone(&cpu)), 0.25).unwrap();
        assert_eq!(values(&usage), [0.0, 0.0, 0.25]);
        cpu.charge(start, Duration::from_secs(1), start + Duration::from_secs(60)).unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(values(&usage), [0.5, 1.5, 0.25]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(values(&usage), [1.0, 3.0, 0.25]);
    }

    #[test]
    fn a_process_shows_its_cpu_time_and_its_cgroups_throttled_time() {
        let scratch = tempfile::tempdir().unwrap();
        let stat = scratch.path().join("cpu.stat");
        let source = || Source::Cgroup(stat.clone());
        fs::write(&stat, "nr_periods 0\n").unwrap();
        assert!(source().check().unwrap_err().to_string().contains("no throttled time"));
        fs::write(&stat, "nr_periods 4\nnr_throttled 3\nthrottled_time 1500000000\n").unwrap();
        source().check().unwrap();
        let usage = Usage::new(source(), 0.0).unwrap();
        let [used, throttled, quota] = values(&usage);
        assert!(used > 0.0);
        assert_eq!((throttled, quota), (1.5, 0.0));
        fs::write(&stat, "usage_usec 9\nthrottled_usec 2500000\n").unwrap();
        assert_eq!(values(&usage)[1], 2.5);
        // The last value stays while the file cannot be read.
        fs::remove_file(&stat).unwrap();
        assert_eq!(values(&usage)[1], 2.5);

        let [used, throttled, _] = values(&Usage::new(Source::Process, 0.0).unwrap());
        assert!(used > 0.0 && throttled == 0.0);
    }
}
