use super::{Detector, NewestBeat, Status};
use crate::Nanos;

/// A fixed timeout checked by a periodic scan: suspected after `suspect`, offline after `offline`, each at the next scan.
#[derive(Debug, Clone)]
pub struct Fixed {
    suspect: Nanos,
    offline: Nanos,
    /// Interval of scans; 0: immediately.
    scan: Nanos,
    latest: Option<NewestBeat>,
}

impl Fixed {
    pub fn new(suspect: Nanos, offline: Nanos, scan: Nanos) -> Self {
        Self { suspect, offline: offline.max(suspect), scan, latest: None }
    }

    fn found(&self, after: Nanos) -> Option<Nanos> {
        let due = self.latest?.at + after;
        Some(if self.scan == 0 { due } else { due.next_multiple_of(self.scan) })
    }
}

impl Detector for Fixed {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        NewestBeat::advance(&mut self.latest, now, sequence);
    }

    fn deadline(&self) -> Option<Nanos> {
        self.found(self.suspect)
    }

    fn status(&self, now: Nanos) -> Status {
        let past = |after| self.found(after).is_some_and(|deadline| now >= deadline);
        match (past(self.offline), past(self.suspect)) {
            (true, _) => Status::Offline,
            (_, true) => Status::Suspected,
            _ => Status::Alive,
        }
    }
}
