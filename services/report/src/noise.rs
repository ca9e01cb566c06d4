//! Whether a difference of two reports exceeds the noise. Pure, and the same for the same reports: resampling has a fixed seed.
//!
//! With three repeats or more on both sides the noise is their spread. With fewer it is the spread between the seconds of the steps, which
//! does not contain what changes from run to run: a lower bound.

mod seconds;

use serde::Serialize;
use statistics::{MIN_VALUES, bootstrap::widening, mean, percentile, seed::SplitMix64};

pub(super) use seconds::{Resampled, Sums};

const RESAMPLES: usize = 1_000;
/// Of the two-sided interval.
const CONFIDENCE: f64 = 0.95;

/// What the noise was estimated from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The spread of the repeats.
    Repeats,
    /// The spread between the seconds of the steps: a lower bound of the noise.
    Seconds,
}

/// A 95 % interval of the difference of two means, after − before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Noise {
    pub low: f64,
    pub high: f64,
    pub basis: Basis,
}

impl Noise {
    /// Whether the interval excludes zero.
    pub fn is_exceeded(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// By bootstrap over the repeats; `None` with fewer than [`MIN_VALUES`] on a side.
///
/// A bootstrap of few values is too narrow: it is widened by the factor of the smaller side.
pub fn of_repeats(before: &[f64], after: &[f64]) -> Option<Noise> {
    let n = before.len().min(after.len());
    if n < MIN_VALUES {
        return None;
    }
    let difference = mean(after)? - mean(before)?;
    let mut random = SplitMix64(1);
    let mut resampled = |values: &[f64]| {
        let sum: f64 = values.iter().filter_map(|_| values.get(random.below(values.len()))).sum();
        sum / values.len() as f64
    };
    let deviations = (0..RESAMPLES).map(|_| resampled(after) - resampled(before) - difference).collect();
    interval(difference, deviations, widening(n), Basis::Repeats)
}

/// By block bootstrap over the seconds of both sides. `figures` are the figures before and after; `figure` computes the same from seconds.
/// `None` if it cannot.
pub(super) fn of_seconds(
    before: &Resampled,
    after: &Resampled,
    figures: [f64; 2],
    figure: impl Fn(&Sums) -> Option<f64>,
) -> Option<Noise> {
    // Percentiles of bands are coarse: their relative changes are applied to the exact figure.
    let deviations = |side: &Resampled, exact: f64| -> Option<Vec<f64>> {
        let whole = figure(&side.whole)?;
        let relative = |drawn: f64| if whole == 0.0 { drawn } else { exact * (drawn / whole - 1.0) };
        side.drawn.iter().map(|sums| figure(sums).map(relative)).collect()
    };
    let [old, new] = figures;
    let (before, after) = (deviations(before, old)?, deviations(after, new)?);
    let deviations = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    interval(new - old, deviations, 1.0, Basis::Seconds)
}

fn interval(difference: f64, deviations: Vec<f64>, widening: f64, basis: Basis) -> Option<Noise> {
    let tail_pct = 100.0 * (1.0 - CONFIDENCE) / 2.0;
    let (low, high) = (percentile(&deviations, tail_pct)?, percentile(&deviations, 100.0 - tail_pct)?);
    let noise = Noise { low: difference + widening * low, high: difference + widening * high, basis };
    (noise.low.is_finite() && noise.high.is_finite()).then_some(noise)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// About normal, mean 0 and variance 1.
    fn normal(random: &mut SplitMix64) -> f64 {
        let uniform = (0..12).map(|_| random.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>();
        uniform - 6.0
    }

    #[test]
    fn the_interval_covers_the_true_difference_as_often_as_it_says() {
        for n in [3, 5, 10] {
            let mut random = SplitMix64(7);
            let mut draw = |mean: f64| -> Vec<f64> { (0..n).map(|_| mean + normal(&mut random)).collect() };
            let covered = (0..400).filter(|_| {
                let noise = of_repeats(&draw(100.0), &draw(103.0)).unwrap();
                noise.low <= 3.0 && 3.0 <= noise.high
            });
            let covered = covered.count();
            assert!((372..=400).contains(&covered), "{n} repeats: {covered} of 400");
        }
    }

    #[test]
    fn a_large_difference_exceeds_the_noise_and_a_small_one_does_not() {
        let before = [100.0, 101.0, 99.0];
        let noise = of_repeats(&before, &[130.0, 131.0, 129.0]).unwrap();
        assert!(noise.is_exceeded() && noise.low > 20.0 && noise.high < 40.0, "{noise:?}");
        assert_eq!(noise.basis, Basis::Repeats);
        assert!(!of_repeats(&before, &[100.5, 101.5, 99.5]).unwrap().is_exceeded());
        // Without any spread every difference exceeds it, and none does not.
        assert!(of_repeats(&[1.0; 3], &[2.0; 3]).unwrap().is_exceeded());
        assert!(!of_repeats(&[1.0; 3], &[1.0; 3]).unwrap().is_exceeded());
    }

    #[test]
    fn two_repeats_say_nothing() {
        assert_eq!(of_repeats(&[1.0, 2.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(of_repeats(&[], &[]), None);
        assert_eq!(of_repeats(&[f64::NAN; 3], &[1.0; 3]), None);
    }
}
