//! Are beats late together or each by itself? What stands still holds up all of them, and they come in their reordering; in a network each
//! takes its own time, and the next beat overtakes one that takes longer than an interval.

#[derive(Debug, Clone, Default)]
pub(super) struct Reordering {
    /// Beats later than an interval that the next ones did not overtake.
    held: u32,
    /// Beats that came after a newer one.
    overtaken: u32,
    /// The newest beat skipped the numbers between these.
    skipped: (u64, u64),
}

impl Reordering {
    /// The newest beat is `sequence`, so many intervals `late`; the newest until then was `before`.
    pub(super) fn newer(&mut self, before: u64, sequence: u64, late: f64) {
        self.skipped = (before, sequence);
        self.held = self.held.saturating_add(u32::from(late >= 1.0));
    }

    /// A beat that is no news: one that was taken for lost, or the same again.
    pub(super) fn older(&mut self, sequence: u64) {
        let (from, to) = self.skipped;
        self.overtaken = self.overtaken.saturating_add(u32::from(from < sequence && sequence < to));
    }

    /// `None`: there was no beat that would tell.
    pub(super) fn is_independent(&self) -> Option<bool> {
        (self.held + self.overtaken > 0).then_some(self.overtaken > self.held)
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
