//! jemalloc's own account. All zero where another allocator is in charge, as in tests.

use prometheus::{Gauge, Result, core::Collector};
use tikv_jemalloc_ctl::{epoch, stats};

use super::{Source, gauge};

pub struct Allocator {
    allocated: Gauge,
    active: Gauge,
    resident: Gauge,
    retained: Gauge,
}

impl Allocator {
    pub fn new() -> Result<Self> {
        Ok(Self {
            allocated: gauge("jemalloc_allocated_bytes", "What the program holds")?,
            active: gauge("jemalloc_active_bytes", "Pages with something in them that the program holds")?,
            resident: gauge("jemalloc_resident_bytes", "Memory that the allocator keeps in RAM for the program")?,
            retained: gauge("jemalloc_retained_bytes", "Address space given back to the kernel but not unmapped")?,
        })
    }
}

impl Source for Allocator {
    fn all(&self) -> Vec<&dyn Collector> {
        vec![&self.allocated, &self.active, &self.resident, &self.retained]
    }

    fn read(&self) {
        // The figures stand still between two of these.
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
