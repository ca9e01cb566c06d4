//! The virtual CPU of a replica on the machine's clock, shared by its requests and its metrics.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::virtual_cpu::VirtualCpu;

pub struct SharedCpu {
    started: Instant,
    cpu: Mutex<VirtualCpu>,
}

impl SharedCpu {
    pub fn new(quota: f64) -> Self {
        Self { started: Instant::now(), cpu: Mutex::new(VirtualCpu::new(quota, 0)) }
    }

    /// As [`VirtualCpu::charge`].
    pub fn charge(&self, now: Instant, cost: Duration, latest: Instant) -> Option<Instant> {
        let (now_ns, latest_ns) = (self.since_start_ns(now), self.since_start_ns(latest));
        let done_ns = self.with(|cpu| cpu.charge(now_ns, ns(cost), latest_ns))?;
        Some(self.started + Duration::from_nanos(done_ns))
    }

    /// CPU and throttled seconds until now.
    pub fn used_and_throttled_s(&self) -> (f64, f64) {
        let now_ns = self.since_start_ns(Instant::now());
        let (used_ns, throttled_ns) = self.with(|cpu| (cpu.used_ns(now_ns), cpu.throttled_ns(now_ns)));
        (used_ns as f64 / 1e9, throttled_ns as f64 / 1e9)
    }

    fn with<T>(&self, ask: impl FnOnce(&mut VirtualCpu) -> T) -> T {
        ask(&mut self.cpu.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn since_start_ns(&self, at: Instant) -> u64 {
        ns(at.saturating_duration_since(self.started))
    }
}

/// 64 bits of nanoseconds last 584 years.
fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
