//! Does each heartbeat have its own delay? Then the next one overtakes a heartbeat that is more than an interval late.

#[derive(Debug, Clone, Default)]
pub(super) struct Reordering {
    /// A heartbeat arrived after a newer one.
    seen: bool,
    /// The newest heartbeat skipped the numbers between these.
    skipped: (u64, u64),
}

impl Reordering {
    /// The newest heartbeat is `sequence`; the newest before was `before`.
    pub(super) fn newer(&mut self, before: u64, sequence: u64) {
        self.skipped = (before, sequence);
    }

    /// A heartbeat that is not the newest: out of order, or a repetition.
    pub(super) fn older(&mut self, sequence: u64) {
        let (from, to) = self.skipped;
        self.seen |= from < sequence && sequence < to;
    }

    pub(super) fn was_seen(&self) -> bool {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_beat_that_was_missing_is_overtaken() {
        let mut reordering = Reordering::default();
        reordering.newer(6, 7);
        reordering.older(7);
        reordering.older(5);
        assert!(!reordering.was_seen(), "a repetition, or older than what was skipped");
        reordering.newer(7, 9);
        reordering.older(8);
        assert!(reordering.was_seen());
    }
}
