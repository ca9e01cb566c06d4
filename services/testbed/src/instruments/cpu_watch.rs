//! The CPU of each second of a load.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use launcher::cpu::{self, MachineCpu};
use report::Second;
use tokio::task::JoinSet;

use super::target::unix_ms;

/// Between two readings of the machine's CPU: the ends of a second lie between two of them.
const PERIOD: Duration = Duration::from_millis(250);

/// Reads the machine's CPU until it is dropped.
pub struct CpuWatch {
    samples: Arc<Mutex<Vec<MachineCpu>>>,
    _task: JoinSet<()>,
}

impl CpuWatch {
    /// Keeps the readings of at most this time.
    pub fn start(longest: Duration) -> Self {
        let most = (longest.as_millis() / PERIOD.as_millis()) as usize + 2;
        let samples = Arc::new(Mutex::new(Vec::new()));
        let mut task = JoinSet::new();
        let kept = Arc::clone(&samples);
        task.spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            for _ in 0..most {
                ticks.tick().await;
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend(cpu::machine());
            }
        });
        Self { samples, _task: task }
    }

    /// Writes the CPU of each second. `started_ms`: Unix time at which the first one begins.
    pub fn fill(&self, series: &mut [Second], started_ms: u64) {
        // The last second ends about now.
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).extend(cpu::machine());
        let ago = Duration::from_millis(unix_ms().saturating_sub(started_ms));
        let Some(begin) = Instant::now().checked_sub(ago) else { return };
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        for second in series {
            let from = begin + Duration::from_secs(second.second.into());
            let ends = accounts_at(&samples, from).zip(accounts_at(&samples, from + Duration::from_secs(1)));
            second.cpu_pct = ends.map(|(from, to)| 100.0 * to.busy_share_since(from));
        }
    }
}

/// Between the readings before and after; `None` outside of them.
fn accounts_at(samples: &[MachineCpu], at: Instant) -> Option<MachineCpu> {
    let after = samples.partition_point(|sample| sample.at <= at);
    let (earlier, later) = (samples.get(after.checked_sub(1)?)?, samples.get(after)?);
    Some(MachineCpu::between(*earlier, *later, at))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use report::invalid_because;

    use super::*;

    /// Children that use all cores, until they are dropped.
    struct Burners(Vec<Child>);

    impl Burners {
        fn start() -> Self {
            let cores = std::thread::available_parallelism().unwrap().get();
            let one = |_| Command::new("sh").args(["-c", "while :; do :; done"]).stdout(Stdio::null()).spawn().unwrap();
            Self((0..2 * cores).map(one).collect())
        }
    }

    impl Drop for Burners {
        fn drop(&mut self) {
            for child in &mut self.0 {
                child.kill().ok();
                child.wait().ok();
            }
        }
    }

    #[tokio::test]
    async fn seconds_in_which_other_processes_use_all_cores_are_not_valid() {
        let burners = Burners::start();
        let watch = CpuWatch::start(Duration::from_secs(60));
        let started_ms = unix_ms() + 500;
        tokio::time::sleep(Duration::from_millis(2_800)).await;
        let mut series: Vec<Second> = (0..60).map(|second| Second { second, ..Second::default() }).collect();
        watch.fill(&mut series, started_ms);
        drop(burners);
        let reason = invalid_because(&series[0]).unwrap_or_default();
        assert!(reason.contains("% CPU is above 90 %"), "{:?}", series[0]);
        assert_eq!(series[59].cpu_pct, None, "it is not over");
    }
}
