//! Which detector watches the nodes.

use heartbeat::{Nanos, detector::Detector, observer::MakeDetector};

use crate::config::Detect;

/// A fresh detector for each node and each of its lives.
pub fn maker(detect: &Detect) -> MakeDetector {
    let timeout = (detect.interval_ms as f64 * 1e6 * detect.timeout_intervals) as Nanos;
    Box::new(move || Box::new(Fixed { timeout, last: None }))
}

/// Suspects after a fixed silence.
struct Fixed {
    timeout: Nanos,
    last: Option<Nanos>,
}

impl Detector for Fixed {
    fn heard(&mut self, now: Nanos, _sequence: u64) {
        self.last = Some(now);
    }

    fn deadline(&self) -> Option<Nanos> {
        Some(self.last? + self.timeout)
    }
}
