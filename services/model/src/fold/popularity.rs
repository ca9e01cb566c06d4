//! The popularity of an item: its number of events, each halved per 30 days.
//!
//! Forward decay (Cormode et al., ICDE 2009): an event gets a weight that grows with its time and never changes; all weights are divided by
//! the same number when they are read. The weight doubles per period. A sum per period keeps the numbers small, and adding commutes.

const PERIOD_MS: i64 = 30 * 86_400_000;
/// The weight of an event at the start of its period. It grows to twice of this, in a straight line: at most 6 % above 2^x.
const UNITS: u64 = 1 << 24;
/// Older periods count less than 2^-32 per event. That depends on the item's newest period, so it commutes too.
const PERIODS_KEPT: i64 = 32;

/// `units / UNITS × 2^period`. Counts compare by value, not by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecayedCount {
    /// The item's newest period of 30 days since 1970.
    pub period: i64,
    /// In units, decayed to the start of that period.
    pub units: u64,
}

/// Newest period first, without gaps in meaning: a period without events is not there.
#[derive(Debug, Clone, Default)]
pub(super) struct Popularity(Vec<(i64, u64)>);

impl Popularity {
    pub(super) fn add(&mut self, at_ms: i64) {
        // Below 2^32.
        let into_period = at_ms.rem_euclid(PERIOD_MS) as u64;
        self.add_units(at_ms.div_euclid(PERIOD_MS), UNITS + UNITS * into_period / PERIOD_MS as u64);
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (period, units) in other.0 {
            self.add_units(period, units);
        }
    }

    fn add_units(&mut self, period: i64, units: u64) {
        let at = self.0.partition_point(|known| known.0 > period);
        match self.0.get_mut(at) {
            Some((known, sum)) if *known == period => *sum = sum.saturating_add(units),
            _ => self.0.insert(at, (period, units)),
        }
        let newest = self.0[0].0;
        self.0.truncate(self.0.partition_point(|known| newest - known.0 < PERIODS_KEPT));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn read(&self) -> DecayedCount {
        let Some(&(period, _)) = self.0.first() else { return DecayedCount::default() };
        // Each shift is below `PERIODS_KEPT`.
        let decayed = self.0.iter().map(|&(older, units)| units >> (period - older));
        DecayedCount { period, units: decayed.fold(0, u64::saturating_add) }
    }
}

impl DecayedCount {
    /// The number of events, decayed to the start of period `reference`.
    pub fn at(self, reference: i64) -> f64 {
        let periods = reference.saturating_sub(self.period).clamp(-1000, 1000) as i32;
        self.units as f64 / UNITS as f64 * 0.5_f64.powi(periods)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_counts_half_after_a_period() {
        let mut three_old = Popularity::default();
        (0..3).for_each(|_| three_old.add(1));
        let mut new = Popularity::default();
        new.add(2 * PERIOD_MS);
        let reference = new.read().period;
        assert!((three_old.read().at(reference) - 0.75).abs() < 1e-6);
        assert!((new.read().at(reference) - 1.0).abs() < 1e-6);
        three_old.add(2 * PERIOD_MS);
        assert!((three_old.read().at(reference) - 1.75).abs() < 1e-6);
        // A time that is wrong by millennia hides the item's older events, and nothing overflows.
        three_old.add(i64::MAX);
        assert!(three_old.read().at(reference).is_finite() && three_old.0.len() == 1);
        assert!(DecayedCount { period: i64::MIN, units: 1 }.at(i64::MAX) < 1e-100);
    }

    proptest! {
        #[test]
        fn the_order_of_events_does_not_matter(times in prop::collection::vec(0..100 * PERIOD_MS, 1..60), split in 0_usize..60) {
            let of = |times: &[i64]| {
                let mut popularity = Popularity::default();
                times.iter().for_each(|&at_ms| popularity.add(at_ms));
                popularity
            };
            let mut reversed = times.clone();
            reversed.reverse();
            prop_assert_eq!(of(&times).0, of(&reversed).0);
            let (first, second) = times.split_at(split.min(times.len()));
            let mut merged = of(second);
            merged.merge(of(first));
            prop_assert_eq!(merged.0, of(&times).0);
        }
    }
}
