use super::{Detector, NewestBeat};
use crate::Nanos;

/// A fixed timeout checked by a periodic scan: suspected at the first scan after `timeout`.
#[derive(Debug, Clone)]
pub struct Fixed {
    timeout: Nanos,
    /// Interval of scans; 0: immediately.
    scan: Nanos,
    latest: Option<NewestBeat>,
}

impl Fixed {
    pub fn new(timeout: Nanos, scan: Nanos) -> Self {
        Self { timeout, scan, latest: None }
    }
}

impl Detector for Fixed {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        NewestBeat::advance(&mut self.latest, now, sequence);
    }

    fn deadline(&self) -> Option<Nanos> {
        let due = self.latest?.at + self.timeout;
        Some(if self.scan == 0 { due } else { due.next_multiple_of(self.scan) })
    }
}
