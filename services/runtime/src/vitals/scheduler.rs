//! The async runtime: how busy its threads are, and how late tasks are polled. Uses only tokio's stable metrics: tokio-metrics needs
//! `tokio_unstable` or a wrapper around every task for more.

use std::time::Duration;

use prometheus::{Counter, Gauge, Histogram, HistogramOpts, Registry, Result, core::Collector};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};

use super::{OnScrape, advance, gauge};

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
            busy: Counter::new(
                "tokio_runtime_busy_seconds_total",
                "Time in which the threads were busy, summed over the threads",
            )?,
            alive: gauge("tokio_runtime_alive_tasks", "Tasks that have not finished")?,
            queued: gauge("tokio_runtime_global_queue_depth", "Tasks in the global queue")?,
        })
    }
}

impl OnScrape for Scheduler {
    fn collectors(&self) -> Vec<&dyn Collector> {
        vec![&self.workers, &self.busy, &self.alive, &self.queued]
    }

    fn update(&self) {
        let metrics = self.runtime.metrics();
        self.workers.set(metrics.num_workers() as f64);
        self.alive.set(metrics.num_alive_tasks() as f64);
        self.queued.set(metrics.global_queue_depth() as f64);
        let busy = (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker));
        advance(&self.busy, busy.sum::<Duration>().as_secs_f64());
    }
}

/// A hundred ticks per second cost less than 0.1 % of a core.
const TICK: Duration = Duration::from_millis(10);
/// A longer delay is a stall: it is several times the duration of a cache hit.
const STALL: Duration = Duration::from_millis(10);

/// Ticks, and records how late each tick is. A long computation, a blocking call or a lack of CPU delays the tick as it delays other tasks.
/// The counterpart of a garbage collector's log of pauses.
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
                "Delay of a tick every 10 ms, including the timer's resolution of 1 ms",
                &[0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0],
            )?,
            stalls: histogram(
                "tokio_runtime_stall_seconds",
                "Delays above 10 ms, during which no other task ran on the thread",
                &[0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0],
            )?,
        })
    }

    /// Runs for ever; to be cancelled when the process ends.
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
