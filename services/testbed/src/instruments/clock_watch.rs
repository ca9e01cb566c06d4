//! Whether an experiment without a load generator had the machine for itself: how busy the machine was, and how late this process's own timers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use launcher::cpu::{self, MachineCpu};
use report::Validity;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

/// A hundred ticks per second cost less than 0.1 % of a core.
const TICK: Duration = Duration::from_millis(10);
const MAX_LATE_US: u64 = 60_000_000;

/// Ticks until it is finished or dropped.
pub struct ClockWatch {
    before: Option<MachineCpu>,
    /// In microseconds; constant in size.
    late_us: Arc<Mutex<Histogram<u64>>>,
    _task: JoinSet<()>,
}

impl ClockWatch {
    /// # Errors
    /// The histogram refuses its bounds, which are constant.
    pub fn start() -> anyhow::Result<Self> {
        let late_us = Arc::new(Mutex::new(Histogram::new_with_bounds(1, MAX_LATE_US, 2)?));
        let mut task = JoinSet::new();
        let kept = Arc::clone(&late_us);
        task.spawn(async move {
            let mut ticks = interval(TICK);
            // Each tick of a long stall counts, not only its first one.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                let planned = ticks.tick().await;
                let late = Instant::now().saturating_duration_since(planned).as_micros() as u64;
                kept.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(late.max(1));
            }
        });
        Ok(Self { before: cpu::machine(), late_us, _task: task })
    }

    /// Of the time since the start.
    pub fn finish(self) -> Validity {
        let cpu_pct = cpu::machine().zip(self.before).map_or(0.0, |(now, then)| 100.0 * now.busy_share_since(then));
        let late_us = self.late_us.lock().unwrap_or_else(PoisonError::into_inner);
        Validity::of(late_us.value_at_quantile(0.99) as f64 / 1000.0, cpu_pct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stalled_process_makes_the_window_invalid() {
        let watch = ClockWatch::start().unwrap();
        tokio::time::sleep(TICK).await;
        // A stall of the only thread: no timer runs.
        std::thread::sleep(Duration::from_millis(500));
        tokio::time::sleep(TICK).await;
        let validity = watch.finish();
        assert!(validity.send_lag_p99_ms > 100.0, "{validity:?}");
        assert!(validity.note().contains("send lag p99"), "{validity:?}");
    }
}
