//! A sum over the recent past, in slices of time.

/// Amounts of the last `SLICES` slices, the current one included. An amount is forgotten with its slice.
#[derive(Debug, Clone)]
pub(super) struct Window<const SLICES: usize> {
    slice_us: u64,
    slices: [i64; SLICES],
    /// Number of the newest slice since the start.
    newest: u64,
    sum: i64,
}

impl<const SLICES: usize> Window<SLICES> {
    pub(super) fn new(slice_us: u64) -> Self {
        Self { slice_us, slices: [0; SLICES], newest: 0, sum: 0 }
    }

    /// An instant before the newest slice, of a thread that was late, counts as one in that slice.
    pub(super) fn add(&mut self, now_us: u64, amount: i64) {
        self.advance(now_us);
        self.slices[(self.newest % SLICES as u64) as usize] += amount;
        self.sum += amount;
    }

    pub(super) fn sum(&mut self, now_us: u64) -> i64 {
        self.advance(now_us);
        self.sum
    }

    fn advance(&mut self, now_us: u64) {
        let current = (now_us / self.slice_us).max(self.newest);
        for slice in self.newest + 1..=current.min(self.newest + SLICES as u64) {
            self.sum -= std::mem::take(&mut self.slices[(slice % SLICES as u64) as usize]);
        }
        self.newest = current;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_last_slices(mut amounts in prop::collection::vec((0..40_000_000_u64, -50..50_i64), 0..60), after_us in 0..20_000_000_u64) {
            amounts.sort_unstable();
            let mut window = Window::<10>::new(1_000_000);
            for (at_us, amount) in &amounts {
                window.add(*at_us, *amount);
            }
            let now_us = amounts.last().map_or(0, |last| last.0) + after_us;
            let is_recent = |at_us: u64| at_us / 1_000_000 + 10 > now_us / 1_000_000;
            let expected: i64 = amounts.iter().filter(|(at_us, _)| is_recent(*at_us)).map(|(_, amount)| amount).sum();
            prop_assert_eq!(window.sum(now_us), expected);
        }
    }

    #[test]
    fn a_late_thread_counts_in_the_newest_slice() {
        let mut window = Window::<2>::new(10);
        window.add(35, 1);
        window.add(4, 1);
        assert_eq!((window.sum(49), window.sum(50), window.sum(u64::MAX)), (2, 0, 0));
    }
}
