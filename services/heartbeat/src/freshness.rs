//! Which workers are known to live now, and not only in recorded heartbeats. Pure.
//!
//! A monitor that starts has no replay windows: a recorded heartbeat is new to it. So the heartbeats of an incarnation do not count until
//! its process has answered a probe, whose random number no recording contains. The same holds for a worker that was silent for so long
//! that its replay window was removed.

use std::collections::HashMap;

use crate::{Nanos, assign::NodeId};

#[derive(Debug)]
pub struct Freshness {
    /// Time between two probes of an incarnation that does not answer.
    retry: Nanos,
    workers: HashMap<NodeId, Worker>,
}

#[derive(Debug)]
struct Worker {
    heard_at: Nanos,
    /// The latest incarnation that answered; 0: none.
    proven: u64,
    unproven: Option<Unproven>,
}

/// Heartbeats of an incarnation that has not answered.
#[derive(Debug)]
struct Unproven {
    incarnation: u64,
    /// The highest received.
    sequence: u64,
    probed_at: Nanos,
}

/// What to do with a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is a sign of life.
    Counts,
    /// It does not count yet. Probe the worker.
    Probe,
    /// It does not count yet. A probe is in flight.
    Waits,
}

/// A heartbeat that waited for an answer, and counts from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    pub incarnation: u64,
    pub sequence: u64,
}

impl Freshness {
    /// `retry`: time between two probes of an incarnation that does not answer.
    pub fn new(retry: Nanos) -> Self {
        Self { retry, workers: HashMap::new() }
    }

    /// An authentic heartbeat of a registered worker arrived.
    pub fn heard(&mut self, now: Nanos, id: &NodeId, incarnation: u64, sequence: u64) -> Heard {
        let unknown = || Worker { heard_at: now, proven: 0, unproven: None };
        let worker = self.workers.entry(id.clone()).or_insert_with(unknown);
        worker.heard_at = now;
        if incarnation <= worker.proven {
            return Heard::Counts;
        }
        match &mut worker.unproven {
            Some(known) if known.incarnation >= incarnation && now < known.probed_at.saturating_add(self.retry) => {
                if known.incarnation == incarnation {
                    known.sequence = known.sequence.max(sequence);
                }
                Heard::Waits
            }
            known => {
                *known = Some(Unproven { incarnation, sequence, probed_at: now });
                Heard::Probe
            }
        }
    }

    /// The worker answered a probe. Returns its heartbeat that waited for it.
    pub fn answered(&mut self, id: &str, incarnation: u64) -> Option<Released> {
        let worker = self.workers.get_mut(id)?;
        worker.proven = worker.proven.max(incarnation);
        let proven = worker.proven;
        let Unproven { incarnation, sequence, .. } = worker.unproven.take_if(|known| known.incarnation <= proven)?;
        Some(Released { incarnation, sequence })
    }

    /// Removes workers last heard before this time. It must be later than the time before which replay windows are removed.
    pub fn forget_before(&mut self, instant: Nanos) {
        self.workers.retain(|_, worker| worker.heard_at >= instant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_count_once_their_process_has_answered() {
        let (mut workers, w): (_, NodeId) = (Freshness::new(10), "w".into());
        assert_eq!(workers.heard(0, &w, 5, 1), Heard::Probe);
        assert_eq!((workers.heard(3, &w, 5, 2), workers.heard(9, &w, 5, 3)), (Heard::Waits, Heard::Waits));
        assert_eq!(workers.answered("w", 4), None, "an earlier incarnation answered");
        assert_eq!(workers.heard(10, &w, 5, 4), Heard::Probe, "no answer: once more");
        assert_eq!(workers.answered("w", 5), Some(Released { incarnation: 5, sequence: 4 }));
        assert_eq!((workers.heard(11, &w, 5, 5), workers.heard(12, &w, 4, 9)), (Heard::Counts, Heard::Counts));
        assert_eq!(workers.answered("w", 5), None);
        assert_eq!(workers.heard(13, &w, 6, 1), Heard::Probe, "the next incarnation");
        assert_eq!(workers.heard(14, &w, 5, 6), Heard::Counts, "it does not take the former's proof");
        assert_eq!(workers.answered("w", 7), Some(Released { incarnation: 6, sequence: 1 }));
        assert_eq!(workers.answered("other", 1), None);
    }

    #[test]
    fn a_worker_that_was_silent_for_long_must_answer_again() {
        let (mut workers, w): (_, NodeId) = (Freshness::new(10), "w".into());
        workers.heard(0, &w, 5, 1);
        workers.answered("w", 5);
        workers.forget_before(0);
        assert_eq!(workers.heard(20, &w, 5, 2), Heard::Counts);
        workers.forget_before(21);
        assert_eq!(workers.heard(30, &w, 5, 1), Heard::Probe);
    }
}
