//! The observer's clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::Nanos;

/// The observer's monotonic clock; zero is the moment of `start`. One per process; copies agree.
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

/// The latest incarnation that is accepted: one day ahead. An incarnation is the Unix time at the node's start, so a much larger number is
/// wrong and would block all later incarnations of the node.
pub fn latest_incarnation() -> u64 {
    wall_ms().saturating_add(DAY_MS)
}

/// Milliseconds since the Unix epoch, for `Beat::timestamp`. Zero on a machine whose clock is before it.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
