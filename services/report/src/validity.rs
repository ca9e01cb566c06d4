//! Whether the figures of a window of load describe the service, or only the limits of the machine and the load generator. Pure.

use std::ops::Range;

use loadtest::figures::{LATE_MS, Second};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scheduling::Scheduling;

/// Above it, the load generator sends later than planned.
const MAX_SEND_LAG_P99_MS: f64 = LATE_MS as f64;
/// Of the requests of a second; more are a send lag p99 above its limit.
const MAX_LATE_PCT: f64 = 1.0;
/// Above it, waiting for a core is part of every latency.
const MAX_CPU_PCT: f64 = 90.0;
/// For a core, each time a thread of the load generator is woken up, on average. The end of a request is the instant at which such a thread reads
/// the answer, so this wait is part of every latency. 1 ms is what the runtime's timer is late anyway, and 1 % of the article's lowest mean.
const MAX_GENERATOR_WAIT_MS: f64 = 1.0;
/// Seconds that a text names one by one.
const NAMED_SECONDS: usize = 8;

/// A window is valid while it has no reasons.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Validity {
    /// From planned to sent.
    pub send_lag_p99_ms: f64,
    /// Of all cores of the machine.
    pub cpu_pct: f64,
    /// Why the window is not valid; empty when it is.
    pub reasons: Vec<String>,
    /// Seconds of the load that are not valid, each with the reason: `12: 97 % CPU`. They decide no verdict. Only where verdicts are about
    /// single seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid_seconds: Vec<String>,
}

impl Validity {
    pub fn of(send_lag_p99_ms: f64, cpu_pct: f64) -> Self {
        let mut reasons = Vec::new();
        if send_lag_p99_ms > MAX_SEND_LAG_P99_MS {
            reasons.push(format!("send lag p99 {send_lag_p99_ms:.1} ms is above {MAX_SEND_LAG_P99_MS} ms"));
        }
        reasons.extend(too_busy(cpu_pct));
        Self { send_lag_p99_ms, cpu_pct, reasons, ..Self::default() }
    }

    /// Of the seconds `judged` of a load; `invalid_seconds` are those of all of `series`.
    pub fn of_seconds(series: &[Second], judged: Range<u32>, send_lag_p99_ms: f64) -> Self {
        let seconds: Vec<&Second> = series.iter().filter(|second| judged.contains(&second.second)).collect();
        let late: u64 = seconds.iter().filter_map(|second| second.late).sum();
        let sent: u64 = seconds.iter().map(|second| second.sent).sum();
        let cpu_pct = mean_cpu_pct(seconds.iter().copied()).unwrap_or(0.0);
        let mut reasons: Vec<String> = too_many_late(late, sent).into_iter().collect();
        reasons.extend(too_busy(cpu_pct));
        if seconds.is_empty() {
            reasons.push("none of its seconds was measured".into());
        }
        let named = |second: &Second| invalid_because(second).map(|reason| format!("{}: {reason}", second.second));
        Self { send_lag_p99_ms, cpu_pct, reasons, invalid_seconds: series.iter().filter_map(named).collect() }
    }

    /// Adds what the kernel's accounts say against the window.
    #[must_use]
    pub fn with_scheduling(mut self, given: &Scheduling) -> Self {
        let throttled_ms = given.throttled_ms.get("load").copied().unwrap_or(0.0);
        if throttled_ms > 0.0 {
            self.reasons.push(format!("a CPU quota held the load generator back for {throttled_ms:.0} ms"));
        }
        if let Some(wait) = given.generator_wait_ms.filter(|wait| *wait > MAX_GENERATOR_WAIT_MS) {
            self.reasons.push(format!(
                "the load generator waited {wait:.2} ms for a core at each wake-up, which is above {MAX_GENERATOR_WAIT_MS} ms"
            ));
        }
        self
    }

    pub fn is_valid(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Why a figure of this window is not judged, for the note of a verdict; empty when the window is valid.
    pub fn note(&self) -> String {
        not_judged(&self.reasons)
    }

    /// The seconds that decide nothing, in words; empty without any.
    pub fn seconds_note(&self) -> String {
        let named: Vec<&str> = self.invalid_seconds.iter().take(NAMED_SECONDS).map(String::as_str).collect();
        let more = self.invalid_seconds.len().saturating_sub(NAMED_SECONDS);
        match (named.is_empty(), more) {
            (true, _) => String::new(),
            (false, 0) => format!("invalid seconds, which decide nothing: {}", named.join(", ")),
            (false, more) => format!("invalid seconds, which decide nothing: {}, and {more} more", named.join(", ")),
        }
    }
}

/// Why this second says more about the machine or the load generator than about the service; `None`: it is valid, or was not checked.
pub fn invalid_because(second: &Second) -> Option<String> {
    let late = second.late.and_then(|late| too_many_late(late, second.sent));
    let busy = second.cpu_pct.and_then(too_busy);
    let reasons: Vec<String> = late.into_iter().chain(busy).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Over the seconds in which it was measured; `None` without any.
pub fn mean_cpu_pct<'a>(seconds: impl IntoIterator<Item = &'a Second>) -> Option<f64> {
    let (sum, count) =
        seconds.into_iter().filter_map(|second| second.cpu_pct).fold((0.0, 0_u32), |(sum, n), pct| (sum + pct, n + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn too_many_late(late: u64, sent: u64) -> Option<String> {
    (100.0 * late as f64 > MAX_LATE_PCT * sent as f64)
        .then(|| format!("{late} requests late by more than {LATE_MS} ms, and {sent} sent"))
}

fn too_busy(cpu_pct: f64) -> Option<String> {
    (cpu_pct > MAX_CPU_PCT).then(|| format!("{cpu_pct:.0} % CPU is above {MAX_CPU_PCT} %"))
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

    fn second(second: u32, sent: u64, late: u64, cpu_pct: f64) -> Second {
        Second { second, sent, late: Some(late), cpu_pct: Some(cpu_pct), ..Second::default() }
    }

    #[test]
    fn seconds_outside_of_the_judged_window_do_not_make_it_invalid() {
        let mut series: Vec<Second> = (0..4).map(|n| second(n, 1000, 10, 90.0)).collect();
        series[3] = second(3, 0, 500, 99.0);
        let validity = |judged| Validity::of_seconds(&series, judged, 2.0);
        let valid = validity(0..3);
        assert!(valid.is_valid(), "{valid:?}");
        assert_eq!(
            valid.invalid_seconds,
            ["3: 500 requests late by more than 10 ms, and 0 sent; 99 % CPU is above 90 %"]
        );
        assert!(valid.seconds_note().starts_with("invalid seconds, which decide nothing: 3: 500"));
        let invalid = validity(0..4);
        assert_eq!(invalid.reasons, ["530 requests late by more than 10 ms, and 3000 sent", "92 % CPU is above 90 %"]);
        assert_eq!(validity(7..9).reasons, ["none of its seconds was measured"]);
        assert_eq!(invalid_because(&Second { sent: 10, ..Second::default() }), None, "of an older report");
    }

    #[test]
    fn a_generator_that_was_held_back_makes_a_window_invalid() {
        let of = |throttled_ms: f64, generator_wait_ms| {
            let throttled_ms = [("load".to_owned(), throttled_ms), ("api".to_owned(), 80.0)].into();
            let given = Scheduling { throttled_ms, generator_wait_ms, ..Scheduling::default() };
            Validity::of(1.0, 50.0).with_scheduling(&given).reasons
        };
        assert_eq!(of(0.0, None), [""; 0], "a replica may have a quota");
        assert_eq!(of(0.0, Some(1.0)), [""; 0]);
        assert_eq!(of(12.0, Some(0.1)), ["a CPU quota held the load generator back for 12 ms"]);
        assert_eq!(
            of(0.0, Some(1.5)),
            ["the load generator waited 1.50 ms for a core at each wake-up, which is above 1 ms"]
        );
    }
}
