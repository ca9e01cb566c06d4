//! How the process itself is: CPU, memory, files, allocator, async runtime. The same series for every role.
//!
//! Read when somebody asks for `/metrics`; only the stalls need somebody who watches all the time (`Watch`).

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

/// Registers everything. To be called on the runtime that is to be watched, by the `Watch` that comes back.
///
/// # Errors
/// The registry has one of these names already.
pub fn register(registry: &Registry) -> Result<Watch> {
    registry.register(Box::new(OnDemand::of(process::Process::new()?)))?;
    registry.register(Box::new(OnDemand::of(allocator::Allocator::new()?)))?;
    registry.register(Box::new(OnDemand::of(scheduler::Scheduler::new(tokio::runtime::Handle::current())?)))?;
    Watch::new(registry)
}

/// Figures whose source counts by itself.
trait Source: Send + Sync {
    fn all(&self) -> Vec<&dyn Collector>;
    /// Brings them up to date. What cannot be read keeps its last value.
    fn read(&self);
}

/// Read when somebody asks.
struct OnDemand<S> {
    source: S,
    /// Two who ask at once would count twice what has come since.
    reading: Mutex<()>,
}

impl<S> OnDemand<S> {
    fn of(source: S) -> Self {
        Self { source, reading: Mutex::new(()) }
    }
}

impl<S: Source> Collector for OnDemand<S> {
    fn desc(&self) -> Vec<&Desc> {
        self.source.all().into_iter().flat_map(|one| one.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _one_at_a_time = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.source.read();
        self.source.all().into_iter().flat_map(|one| one.collect()).collect()
    }
}

fn gauge(name: &str, help: &str) -> Result<Gauge> {
    Gauge::with_opts(Opts::new(name, help))
}

/// Brings a counter to what its source says, which counts by itself.
fn advance(counter: &Counter, to: f64) {
    let ahead = to - counter.get();
    if ahead > 0.0 {
        counter.inc_by(ahead);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// By what dashboards and alerts ask for.
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

    /// A thread that is held up for a while is a stall of at least that, less one tick; CPU and busy time grow meanwhile.
    #[tokio::test]
    async fn a_blocked_thread_is_a_stall() {
        let registry = Registry::new();
        let watch = register(&registry).unwrap();
        let busy = |name: &str| family(&registry, name).get_metric()[0].get_counter().get_value();
        let cpu = busy("process_cpu_seconds_total");
        let task = tokio::spawn(watch.run());
        // It has taken its first tick, so the next one is due while the thread is blocked.
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
