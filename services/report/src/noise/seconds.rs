//! The seconds of a step, resampled in blocks: neighbours depend on each other, as a user who waits spans several seconds.

use loadtest::latency_bands::{BANDS, lower_edge_ms, upper_edge_ms};

use statistics::seed::SplitMix64;

use super::RESAMPLES;
use crate::schema::Second;

/// Longer than the timeout of the built-in scenarios.
const BLOCK_S: usize = 5;
/// With fewer there are too few blocks.
const MIN_SECONDS: usize = 4 * BLOCK_S;

/// Sums over seconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sums {
    seconds: f64,
    good: f64,
    errors: f64,
    /// Of the seconds that state their mean.
    latency_ms: f64,
    timed: f64,
    bands: [f64; BANDS],
}

/// The seconds of the repeats of a step, and resamples of them.
pub(crate) struct Resampled {
    pub(crate) whole: Sums,
    pub(crate) drawn: Vec<Sums>,
}

impl Resampled {
    /// `None` for fewer than 20 seconds. Two sides need different seeds: with the same one their noise would cancel.
    pub(crate) fn of(series: &[&Second], seed: u64) -> Option<Self> {
        if series.len() < MIN_SECONDS {
            return None;
        }
        let seconds: Vec<Sums> = series.iter().map(|second| Sums::of(second)).collect();
        let sum = |all: &mut dyn Iterator<Item = &Sums>| all.fold(Sums::none(), |sum, one| sum.add(one));
        // Circular, so that each second is in as many blocks.
        let blocks: Vec<Sums> =
            (0..seconds.len()).map(|from| sum(&mut seconds.iter().cycle().skip(from).take(BLOCK_S))).collect();
        let mut random = SplitMix64(seed);
        let mut draw = || {
            let mut drawn = Sums::none();
            for _ in 0..seconds.len() / BLOCK_S {
                if let Some(block) = blocks.get(random.below(blocks.len())) {
                    drawn = drawn.add(block);
                }
            }
            drawn
        };
        Some(Self { whole: sum(&mut seconds.iter()), drawn: (0..RESAMPLES).map(|_| draw()).collect() })
    }
}

impl Sums {
    fn none() -> Self {
        Self { seconds: 0.0, good: 0.0, errors: 0.0, latency_ms: 0.0, timed: 0.0, bands: [0.0; BANDS] }
    }

    fn of(second: &Second) -> Self {
        let ended = (second.good + second.errors) as f64;
        let mut bands = [0.0; BANDS];
        for (band, count) in bands.iter_mut().zip(&second.latency_counts) {
            *band = *count as f64;
        }
        Self {
            seconds: 1.0,
            good: second.good as f64,
            errors: second.errors as f64,
            latency_ms: second.mean_ms.map_or(0.0, |mean_ms| mean_ms * ended),
            timed: second.mean_ms.map_or(0.0, |_| ended),
            bands,
        }
    }

    #[must_use]
    fn add(&self, other: &Self) -> Self {
        let mut bands = self.bands;
        for (mine, theirs) in bands.iter_mut().zip(&other.bands) {
            *mine += theirs;
        }
        Self {
            seconds: self.seconds + other.seconds,
            good: self.good + other.good,
            errors: self.errors + other.errors,
            latency_ms: self.latency_ms + other.latency_ms,
            timed: self.timed + other.timed,
            bands,
        }
    }

    pub(crate) fn good_per_s(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.good / self.seconds)
    }

    pub(crate) fn answered_per_s(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| (self.good + self.errors) / self.seconds)
    }

    pub(crate) fn error_pct(&self) -> Option<f64> {
        let ended = self.good + self.errors;
        (ended > 0.0).then(|| 100.0 * self.errors / ended)
    }

    /// `None` in reports whose seconds have no mean.
    pub(crate) fn mean_ms(&self) -> Option<f64> {
        (self.timed > 0.0).then(|| self.latency_ms / self.timed)
    }

    /// Within its band by straight line; `None` in reports whose seconds have no counts by latency.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let wanted = self.bands.iter().sum::<f64>() * quantile;
        let mut below = 0.0;
        for (band, count) in self.bands.iter().enumerate().filter(|(_, count)| **count > 0.0) {
            if below + count >= wanted {
                let lower = lower_edge_ms(band);
                let upper = upper_edge_ms(band);
                let width = if upper.is_finite() { upper - lower } else { lower };
                return Some(lower + width * (wanted - below) / count);
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Basis, of_seconds};
    use super::*;

    /// Each with 900 requests of about 60 ms and 100 of about 600 ms; every third one slower by `more`.
    fn series(more: f64) -> Vec<Second> {
        let second = |n: u32| {
            let mut latency_counts = vec![0; BANDS];
            (latency_counts[16], latency_counts[23]) = (900, 100);
            let mean_ms = if n.is_multiple_of(3) { 114.0 + more } else { 114.0 };
            Second { second: n, good: 990, errors: 10, mean_ms: Some(mean_ms), latency_counts, ..Second::default() }
        };
        (0..60).map(second).collect()
    }

    fn resampled(series: &[Second], seed: u64) -> Resampled {
        Resampled::of(&series.iter().collect::<Vec<_>>(), seed).unwrap()
    }

    #[test]
    fn sums_give_the_figures_of_the_step() {
        let whole = resampled(&series(3.0), 1).whole;
        assert_eq!(
            (whole.good_per_s(), whole.answered_per_s(), whole.error_pct()),
            (Some(990.0), Some(1000.0), Some(1.0))
        );
        assert!((whole.mean_ms().unwrap() - 115.0).abs() < 1e-9);
        let (median, tail) = (whole.quantile_ms(0.5).unwrap(), whole.quantile_ms(0.99).unwrap());
        assert!((lower_edge_ms(16)..upper_edge_ms(16)).contains(&median), "{median}");
        assert!((lower_edge_ms(23)..upper_edge_ms(23)).contains(&tail), "{tail}");
    }

    #[test]
    fn what_seconds_do_not_say_has_no_noise() {
        let old: Vec<Second> = (0..60).map(|second| Second { second, good: 10, ..Second::default() }).collect();
        let old = resampled(&old, 1);
        assert_eq!((old.whole.mean_ms(), old.whole.quantile_ms(0.99)), (None, None));
        assert_eq!(of_seconds(&old, &old, [1.0, 2.0], Sums::mean_ms), None);
        assert!(Resampled::of(&series(0.0).iter().take(19).collect::<Vec<_>>(), 1).is_none());
    }

    #[test]
    fn a_difference_is_set_beside_the_spread_of_the_seconds() {
        let (before, after) = (resampled(&series(3.0), 1), resampled(&series(30.0), 2));
        let noise = of_seconds(&before, &after, [115.0, 124.0], Sums::mean_ms).unwrap();
        assert!(
            noise.is_exceeded() && noise.basis == Basis::Seconds && noise.low < 9.0 && noise.high > 9.0,
            "{noise:?}"
        );
        // The noise of two sides adds up, also if their seconds are the same.
        let again = resampled(&series(3.0), 2);
        let same = of_seconds(&before, &again, [115.0, 115.0], Sums::mean_ms).unwrap();
        assert!(same.low < -0.1 && same.high > 0.1, "{same:?}");
        // Every second has the same errors: the spread is zero, and the difference is none.
        assert!(!of_seconds(&before, &after, [1.0, 1.0], Sums::error_pct).unwrap().is_exceeded());
    }
}
