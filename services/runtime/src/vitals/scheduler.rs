//! The async runtime: how busy its threads are, and how late a task gets its turn. Of tokio's own figures the stable ones only; what
//! tokio-metrics adds to them needs `tokio_unstable` or a wrapper around every task.

use std::time::Duration;

use prometheus::{Counter, Gauge, Histogram, HistogramOpts, Registry, Result, core::Collector};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};

use super::{Source, advance, gauge};

pub struct Scheduler {
    runtime: Handle,
    workers: Gauge,
    busy: Counter,
    alive: Gauge,
    queued: Gauge,
}

impl Scheduler {
    pub fn new(runtime: Handle) -> Result<Self> {
        Ok(Self {
            runtime,
            workers: gauge("tokio_runtime_workers", "Threads that poll tasks")?,
            busy: Counter::new("tokio_runtime_busy_seconds_total", "Time these threads did not wait, all together")?,
            alive: gauge("tokio_runtime_alive_tasks", "Tasks that have not ended")?,
            queued: gauge("tokio_runtime_global_queue_depth", "Tasks that wait for any thread")?,
        })
    }
}

impl Source for Scheduler {
    fn all(&self) -> Vec<&dyn Collector> {
        vec![&self.workers, &self.busy, &self.alive, &self.queued]
    }

    fn read(&self) {
        let metrics = self.runtime.metrics();
        self.workers.set(metrics.num_workers() as f64);
        self.alive.set(metrics.num_alive_tasks() as f64);
        self.queued.set(metrics.global_queue_depth() as f64);
        let busy = (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker));
        advance(&self.busy, busy.sum::<Duration>().as_secs_f64());
    }
}

/// A hundred looks a second cost an idle replica less than 0.1 % of a core, a busy one next to nothing.
const TICK: Duration = Duration::from_millis(10);
/// From here on it is a stall: requests of a millisecond or two have noticed.
const STALL: Duration = Duration::from_millis(10);

/// Ticks, and notes how late each tick came: whatever holds the thread up (a long computation, a blocking call, a machine without CPU
/// to give) holds up the tick. The counterpart of a garbage collector's log of pauses.
#[derive(Debug)]
pub struct Watch {
    delay: Histogram,
    stalls: Histogram,
}

impl Watch {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        Ok(Self {
            delay: histogram(
                "tokio_runtime_poll_delay_seconds",
                "How late a tick of 10 ms comes; the timer's own grain of 1 ms is part of it",
                &[0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0],
            )?,
            stalls: histogram(
                "tokio_runtime_stall_seconds",
                "Delays above 10 ms: nothing else ran on this thread meanwhile",
                &[0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0],
            )?,
        })
    }

    /// For ever; cancel it when the process ends.
    pub async fn run(self) {
        loop {
            let due = Instant::now() + TICK;
            sleep_until(due).await;
            let late = due.elapsed();
            self.delay.observe(late.as_secs_f64());
            if late > STALL {
                self.stalls.observe(late.as_secs_f64());
            }
        }
    }
}
