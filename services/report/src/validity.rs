//! Whether the figures of a window of load describe the service, or only the limits of the machine and the load generator. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Above it, the load generator sends later than planned.
const MAX_SEND_LAG_P99_MS: f64 = 10.0;
/// Above it, waiting for a core is part of every latency.
const MAX_CPU_PCT: f64 = 90.0;

/// A window is valid while it has no reasons.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Validity {
    /// From planned to sent.
    pub send_lag_p99_ms: f64,
    /// Of all cores of the machine.
    pub cpu_pct: f64,
    /// Why the window is not valid; empty when it is.
    pub reasons: Vec<String>,
}

impl Validity {
    pub fn of(send_lag_p99_ms: f64, cpu_pct: f64) -> Self {
        let mut reasons = Vec::new();
        if send_lag_p99_ms > MAX_SEND_LAG_P99_MS {
            reasons.push(format!("send lag p99 {send_lag_p99_ms:.1} ms is above {MAX_SEND_LAG_P99_MS} ms"));
        }
        if cpu_pct > MAX_CPU_PCT {
            reasons.push(format!("{cpu_pct:.0} % CPU is above {MAX_CPU_PCT} %"));
        }
        Self { send_lag_p99_ms, cpu_pct, reasons }
    }

    pub fn is_valid(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Why a figure of this window is not judged, for the note of a verdict; empty when the window is valid.
    pub fn note(&self) -> String {
        not_judged(&self.reasons)
    }
}

/// Empty without reasons.
pub fn not_judged(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!("invalid, not judged: {}", reasons.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_valid_up_to_its_limits() {
        assert!(Validity::of(10.0, 90.0).is_valid());
        let invalid = Validity::of(10.1, 91.0);
        assert_eq!(invalid.reasons, ["send lag p99 10.1 ms is above 10 ms", "91 % CPU is above 90 %"]);
        assert!(!invalid.is_valid() && invalid.note().starts_with("invalid, not judged: send lag"));
    }
}
