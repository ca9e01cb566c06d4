//! Whether a difference of two reports exceeds the noise. Pure, and the same for the same reports: resampling has a fixed seed.
//!
//! With three repeats or more on both sides the noise is their spread. With fewer it is the spread between the seconds of the steps, which
//! does not contain what changes from run to run: a lower bound.

mod seconds;

use serde::Serialize;

pub(super) use seconds::{Resampled, Sums};

/// Repeats on each side from which their spread is used.
pub const MIN_REPEATS: usize = 3;
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

/// By bootstrap over the repeats; `None` with fewer than [`MIN_REPEATS`] on a side.
///
/// A bootstrap of few values is too narrow. It is widened by `√(n/(n−1)) × t(n−1)/1.96` for the smaller side's n, as in Hesterberg, "What
/// Teachers Should Know about the Bootstrap" (2015), for one sample.
pub fn of_repeats(before: &[f64], after: &[f64]) -> Option<Noise> {
    let n = before.len().min(after.len());
    if n < MIN_REPEATS {
        return None;
    }
    let difference = mean(after) - mean(before);
    let mut random = Random(1);
    let mut resampled = |values: &[f64]| {
        let sum: f64 = values.iter().filter_map(|_| values.get(random.below(values.len()))).sum();
        sum / values.len() as f64
    };
    let deviations = (0..RESAMPLES).map(|_| resampled(after) - resampled(before) - difference).collect();
    let widening = (n as f64 / (n as f64 - 1.0)).sqrt() * students_t(n - 1) / 1.96;
    interval(difference, deviations, widening, Basis::Repeats)
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

fn interval(difference: f64, mut deviations: Vec<f64>, widening: f64, basis: Basis) -> Option<Noise> {
    deviations.sort_by(f64::total_cmp);
    let last = deviations.len().checked_sub(1)? as f64;
    let at = |share: f64| deviations.get((share * last).round() as usize).copied();
    let (low, high) = (at((1.0 - CONFIDENCE) / 2.0)?, at((1.0 + CONFIDENCE) / 2.0)?);
    let noise = Noise { low: difference + widening * low, high: difference + widening * high, basis };
    (noise.low.is_finite() && noise.high.is_finite()).then_some(noise)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The 97.5 % quantile of Student's t; from 20 degrees of freedom on that of 20, which is larger.
fn students_t(degrees: usize) -> f64 {
    const QUANTILES: [f64; 20] = [
        12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10,
        2.09, 2.09,
    ];
    QUANTILES[degrees.clamp(1, QUANTILES.len()) - 1]
}

/// SplitMix64: an interval must not change from one look at it to the next.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0..`end`; the bias of the remainder is below 2^-50 here.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// About normal, mean 0 and variance 1.
    fn normal(random: &mut Random) -> f64 {
        let uniform = (0..12).map(|_| random.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>();
        uniform - 6.0
    }

    #[test]
    fn the_interval_covers_the_true_difference_as_often_as_it_says() {
        for n in [3, 5, 10] {
            let mut random = Random(7);
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
