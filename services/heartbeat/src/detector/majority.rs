use super::Detector;
use crate::Nanos;

/// Several observers of one node, each with its own detector: suspected while more than half of them suspect it.
#[derive(Debug, Clone)]
pub struct Majority<D> {
    observers: Vec<D>,
}

impl<D: Detector> Majority<D> {
    /// One observer per detector; without observers the node is never suspected.
    pub fn new(observers: Vec<D>) -> Self {
        Self { observers }
    }

    /// One observer received the beat.
    pub fn heard_by(&mut self, observer: usize, now: Nanos, sequence: u64) {
        if let Some(detector) = self.observers.get_mut(observer) {
            detector.heard(now, sequence);
        }
    }

    /// Observers that suspect the node at `now`.
    pub fn votes(&self, now: Nanos) -> usize {
        self.observers.iter().filter(|detector| detector.suspects(now)).count()
    }
}

impl<D: Detector> Detector for Majority<D> {
    /// All observers received it.
    fn heard(&mut self, now: Nanos, sequence: u64) {
        self.observers.iter_mut().for_each(|detector| detector.heard(now, sequence));
    }

    /// When more than half of the observers suspect the node. An observer that has heard nothing does not vote.
    fn deadline(&self) -> Option<Nanos> {
        let rank = |one: Nanos| self.observers.iter().filter(|d| d.deadline().is_some_and(|d| d < one)).count();
        let quorum = self.observers.len() / 2 + 1;
        let deadlines = self.observers.iter().filter_map(Detector::deadline);
        // The quorum-th in ascending order: at most quorum - 1 are smaller. There are few observers, and nothing is allocated.
        let carried = deadlines.filter(|&deadline| rank(deadline) < quorum).max()?;
        let known = self.observers.iter().filter(|d| d.deadline().is_some()).count();
        (known >= quorum).then_some(carried)
    }
}
