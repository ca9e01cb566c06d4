//! Where an observer's instants come from.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::Nanos;

/// The observer's monotonic clock; its zero is the moment it was made. One per process, copied.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now(&self) -> Nanos {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    pub fn instant(&self, at: Nanos) -> Instant {
        self.0 + std::time::Duration::from_nanos(at)
    }
}

const DAY_MS: u64 = 86_400_000;

/// The latest incarnation that is believed. Incarnations are numbered by the clock at their start; a number far beyond it is a mistake or malice, and
/// would shut out every later incarnation of its node.
pub fn latest_incarnation() -> u64 {
    wall_ms().saturating_add(DAY_MS)
}

/// Milliseconds since the Unix epoch, for `Beat::timestamp`. Zero on a machine whose clock is before it.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
