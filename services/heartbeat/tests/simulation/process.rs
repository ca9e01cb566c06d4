//! Common to all processes: starts, pauses, and their clocks.

use heartbeat::Nanos;

use crate::config::MS;

/// Wall clocks begin here, so that they can be set back.
const WALL_START_MS: u64 = 1_000_000_000;

#[derive(Default)]
pub struct Process {
    /// Number of faults that keep it down.
    pub down: u32,
    pub paused_until: Nanos,
    /// Increases with every start; messages for an earlier one are lost.
    pub life: u64,
    /// Its monotonic clock: an error in parts per million, and an offset.
    pub skew_ppm: i64,
    pub offset: Nanos,
    /// Its wall clock was set by this much.
    pub wall_offset_ms: i64,
}

impl Process {
    pub fn clock(&self, now: Nanos) -> Nanos {
        let drift = i128::from(now) * i128::from(self.skew_ppm) / 1_000_000;
        self.offset + Nanos::try_from(i128::from(now) + drift).expect("time goes forward")
    }

    /// The inverse of `clock`.
    pub fn real(&self, local: Nanos) -> Nanos {
        let ahead = i128::from(local.saturating_sub(self.offset)) * 1_000_000;
        Nanos::try_from(ahead / i128::from(1_000_000 + self.skew_ppm)).expect("time goes forward") + 1
    }

    /// Milliseconds of its wall clock.
    pub fn wall_ms(&self, now: Nanos) -> u64 {
        (WALL_START_MS + now / MS).saturating_add_signed(self.wall_offset_ms)
    }
}
