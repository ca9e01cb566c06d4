//! Common to all processes: incarnations, pauses, and their own clock.

use heartbeat::Nanos;

#[derive(Default)]
pub struct Process {
    pub down: u32,
    pub paused_until: Nanos,
    /// Increases with every start; messages for an earlier one are lost.
    pub life: u64,
    /// Its clock: an error in parts per million, and an offset.
    pub skew_ppm: i64,
    pub offset: Nanos,
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
}
