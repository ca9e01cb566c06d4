//! Refusals of reports in the log: one line when they begin, not one for each report.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::{Mutex, MutexGuard, PoisonError},
};

use heartbeat::assign::NodeId;

/// Workers and reasons that are known at a time. Names come from messages with a MAC, but they may be any number of names.
const MAX_KNOWN: usize = 1024;

/// Each worker whose reports are refused now, with the reasons since its last report that was taken.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeSet<(NodeId, &'static str)>>);

impl Refusals {
    /// Logs the first refusal of this worker for this reason. `reason`: one of `metrics::REPORT_OUTCOMES`.
    pub fn record(&self, worker: &NodeId, reason: &'static str, error: &(dyn Error + 'static)) {
        if self.is_new(worker, reason) {
            tracing::warn!(%worker, reason, error, "this monitor begins to refuse a worker's block reports");
        }
    }

    /// A report of the worker was taken.
    pub fn end(&self, worker: &NodeId) {
        self.lock().retain(|(refused, _)| refused != worker);
    }

    fn is_new(&self, worker: &NodeId, reason: &'static str) -> bool {
        let mut known = self.lock();
        known.len() < MAX_KNOWN && known.insert((worker.clone(), reason))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(NodeId, &'static str)>> {
        // Every change is complete when a panic could happen.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_new_once_per_worker_and_reason_until_a_report_is_taken() {
        let (refusals, [a, b]) = (Refusals::default(), ["a", "b"].map(NodeId::from));
        let is_new = |worker, reason| refusals.is_new(worker, reason);
        assert!(is_new(&a, "late") && is_new(&a, "invalid") && is_new(&b, "late"));
        assert!(!is_new(&a, "late") && !is_new(&a, "invalid") && !is_new(&b, "late"));
        refusals.end(&a);
        assert!(is_new(&a, "late") && !is_new(&b, "late"));
    }

    #[test]
    fn the_number_of_known_refusals_is_bounded() {
        let refusals = Refusals::default();
        let all_new = (0..MAX_KNOWN).all(|n| refusals.is_new(&format!("w{n}").into(), "late"));
        assert!(all_new && !refusals.is_new(&"w".into(), "late"));
    }
}
