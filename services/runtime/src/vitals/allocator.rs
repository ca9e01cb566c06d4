//! Statistics of jemalloc. All are zero if another allocator is used, as in tests.

use prometheus::{Gauge, Result, core::Collector};
use tikv_jemalloc_ctl::{epoch, stats};

use super::{OnScrape, gauge};

pub struct Allocator {
    allocated: Gauge,
    active: Gauge,
    resident: Gauge,
    retained: Gauge,
}

impl Allocator {
    pub fn new() -> Result<Self> {
        Ok(Self {
            allocated: gauge("jemalloc_allocated_bytes", "Memory that the program has allocated")?,
            active: gauge("jemalloc_active_bytes", "Pages that contain allocated memory")?,
            resident: gauge("jemalloc_resident_bytes", "Memory of the allocator that is in RAM")?,
            retained: gauge(
                "jemalloc_retained_bytes",
                "Address space that was returned to the kernel but is still mapped",
            )?,
        })
    }
}

impl OnScrape for Allocator {
    fn collectors(&self) -> Vec<&dyn Collector> {
        vec![&self.allocated, &self.active, &self.resident, &self.retained]
    }

    fn update(&self) {
        // jemalloc updates its statistics only here.
        if epoch::advance().is_err() {
            return;
        }
        for (gauge, bytes) in [
            (&self.allocated, stats::allocated::read()),
            (&self.active, stats::active::read()),
            (&self.resident, stats::resident::read()),
            (&self.retained, stats::retained::read()),
        ] {
            if let Ok(bytes) = bytes {
                gauge.set(bytes as f64);
            }
        }
    }
}
