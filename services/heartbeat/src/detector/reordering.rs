//! Are heartbeats late together or independently? A pause delays all of them, and they stay in order. In a network each has its own delay,
//! and the next one overtakes a heartbeat that is more than an interval late.

#[derive(Debug, Clone, Default)]
pub(super) struct Reordering {
    /// Heartbeats more than an interval late that the next ones did not overtake.
    delayed: u32,
    /// Heartbeats that arrived after a newer one.
    overtaken: u32,
    /// The newest heartbeat skipped the numbers between these.
    skipped: (u64, u64),
}

impl Reordering {
    /// The newest heartbeat is `sequence`, `late` intervals late; the newest before was `before`.
    pub(super) fn newer(&mut self, before: u64, sequence: u64, late: f64) {
        self.skipped = (before, sequence);
        self.delayed = self.delayed.saturating_add(u32::from(late >= 1.0));
    }

    /// A heartbeat that is not the newest: out of order, or a repetition.
    pub(super) fn older(&mut self, sequence: u64) {
        let (from, to) = self.skipped;
        self.overtaken = self.overtaken.saturating_add(u32::from(from < sequence && sequence < to));
    }

    /// `None`: no heartbeat was late enough to tell.
    pub(super) fn is_independent(&self) -> Option<bool> {
        (self.delayed + self.overtaken > 0).then_some(self.overtaken > self.delayed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_beat_that_was_missing_is_overtaken() {
        let mut reordering = Reordering::default();
        reordering.newer(6, 7, 0.1);
        reordering.older(7);
        reordering.older(5);
        assert_eq!(reordering.is_independent(), None, "the same again, or older than what was skipped");
        reordering.newer(7, 9, 0.1);
        reordering.older(8);
        assert_eq!(reordering.is_independent(), Some(true));
        reordering.newer(9, 10, 3.0);
        assert_eq!(reordering.is_independent(), Some(false), "in doubt, together");
    }
}
