//! Process metrics: CPU, memory, files, allocator, async runtime. They are the same for every role.
//!
//! They are read on each scrape of `/metrics`. Only the delays of the runtime are measured all the time (`Watch`).

mod allocator;
mod process;
mod scheduler;

use std::sync::{Mutex, PoisonError};

use prometheus::{
    Counter, Gauge, Opts, Registry, Result,
    core::{Collector, Desc},
    proto::MetricFamily,
};

pub use self::{process::cpu_seconds, scheduler::Watch};

/// Registers the metrics. To be called on the runtime to be measured; `Watch::run` must then run on it.
///
/// # Errors
/// The registry has one of these names already.
pub fn register(registry: &Registry) -> Result<Watch> {
    registry.register(Box::new(ScrapeCollector::new(process::Process::new()?)))?;
    registry.register(Box::new(ScrapeCollector::new(allocator::Allocator::new()?)))?;
    registry.register(Box::new(ScrapeCollector::new(scheduler::Scheduler::new(tokio::runtime::Handle::current())?)))?;
    Watch::new(registry)
}

/// Metrics that are read from another source on each scrape.
trait OnScrape: Send + Sync {
    fn collectors(&self) -> Vec<&dyn Collector>;
    /// Reads the current values. A value that cannot be read stays unchanged.
    fn update(&self);
}

struct ScrapeCollector<S> {
    source: S,
    /// Two concurrent scrapes would add the same increase twice.
    updating: Mutex<()>,
}

impl<S> ScrapeCollector<S> {
    fn new(source: S) -> Self {
        Self { source, updating: Mutex::new(()) }
    }
}

impl<S: OnScrape> Collector for ScrapeCollector<S> {
    fn desc(&self) -> Vec<&Desc> {
        self.source.collectors().into_iter().flat_map(|one| one.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _one_at_a_time = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        self.source.update();
        self.source.collectors().into_iter().flat_map(|one| one.collect()).collect()
    }
}

fn gauge(name: &str, help: &str) -> Result<Gauge> {
    Gauge::with_opts(Opts::new(name, help))
}

/// Raises a counter to the value of its source.
pub fn advance(counter: &Counter, to: f64) {
    let ahead = to - counter.get();
    if ahead > 0.0 {
        counter.inc_by(ahead);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The names that dashboards and alerts use.
    const SERIES: [&str; 17] = [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_threads",
        "process_start_time_seconds",
        "jemalloc_allocated_bytes",
        "jemalloc_active_bytes",
        "jemalloc_resident_bytes",
        "jemalloc_retained_bytes",
        "tokio_runtime_workers",
        "tokio_runtime_busy_seconds_total",
        "tokio_runtime_alive_tasks",
        "tokio_runtime_global_queue_depth",
        "tokio_runtime_poll_delay_seconds",
        "tokio_runtime_stall_seconds",
    ];

    fn family(registry: &Registry, name: &str) -> MetricFamily {
        registry.gather().into_iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[tokio::test]
    async fn every_series_is_there_from_the_start() {
        let registry = Registry::new();
        let _watch = register(&registry).unwrap();
        for name in SERIES {
            assert_eq!(family(&registry, name).get_metric().len(), 1, "{name}");
        }
        assert_eq!(registry.gather().len(), SERIES.len());
        let value = |name: &str| family(&registry, name).get_metric()[0].get_gauge().get_value();
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") < value("process_max_fds"));
        assert_eq!(value("tokio_runtime_workers"), 1.0);
    }

    /// Blocking the thread is measured as a stall of that time, less one tick. CPU and busy time increase.
    #[tokio::test]
    async fn a_blocked_thread_is_a_stall() {
        let registry = Registry::new();
        let watch = register(&registry).unwrap();
        let busy = |name: &str| family(&registry, name).get_metric()[0].get_counter().get_value();
        let cpu = busy("process_cpu_seconds_total");
        let task = tokio::spawn(watch.run());
        // After the first tick, the next one is due while the thread is blocked.
        let ticks = || family(&registry, "tokio_runtime_poll_delay_seconds").get_metric()[0].get_histogram().clone();
        while ticks().get_sample_count() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let until = std::time::Instant::now() + Duration::from_millis(200);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        let seen = ticks().get_sample_count();
        while ticks().get_sample_count() == seen {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        task.abort();
        let stalls = family(&registry, "tokio_runtime_stall_seconds").get_metric()[0].get_histogram().clone();
        assert!(stalls.get_sample_count() >= 1);
        assert!(stalls.get_sample_sum() >= 0.19, "{}", stalls.get_sample_sum());
        assert!(busy("process_cpu_seconds_total") > cpu);
        assert!(busy("tokio_runtime_busy_seconds_total") >= 0.19);
    }
}
