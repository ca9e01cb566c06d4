//! Confidence intervals of a mean by the percentile bootstrap (Efron 1979).

use crate::{order::percentile, seed::SplitMix64};

/// Fewer values give no interval: two have three distinct resamples.
pub const MIN_VALUES: usize = 3;
/// Share of the resamples' means within the interval, in percent.
pub const LEVEL_PCT: f64 = 95.0;
const RESAMPLES: usize = 10_000;
/// Fixed, so that a report that is rendered again shows the same intervals.
const SEED: u64 = 20;

/// Both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// Arithmetic mean; `None` without values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// 95 % interval of the mean, by the percentile bootstrap: 10,000 resamples, each as long as the values and drawn from them with replacement.
/// The same values give the same interval in any order. `None` with fewer than [`MIN_VALUES`] values.
///
/// The bootstrap of few values is too narrow, because the resamples cannot leave the range of the values: for 3 values from a normal distribution
/// it contains the true mean in 75 % of all cases. So the ends are moved away from the mean by the factor [`widening`]. It does not go below 0 if no
/// value does.
pub fn mean_interval(values: &[f64]) -> Option<Interval> {
    if values.len() < MIN_VALUES {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, greatest, center) = (*sorted.first()?, *sorted.last()?, mean(&sorted)?);
    if least == greatest {
        return Some(Interval { low: least, high: least });
    }
    let mut random = SplitMix64(SEED);
    let means: Vec<f64> = (0..RESAMPLES).map(|_| resample_mean(&sorted, &mut random)).collect();
    let tail_pct = (100.0 - LEVEL_PCT) / 2.0;
    let end = |percent: f64| Some(center + widening(values.len()) * (percentile(&means, percent)? - center));
    let floor = if least >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
    Some(Interval { low: end(tail_pct)?.max(floor), high: end(100.0 - tail_pct)? })
}

/// Factor for the ends of a bootstrap interval of `count` values, at least 2: `√(n/(n−1)) × t(n−1)/1.96`. 2.69 for 3, 1.59 for 5, 1.22 for 10.
/// Source: Hesterberg, "What Teachers Should Know about the Bootstrap" (2015), for one sample.
pub fn widening(count: usize) -> f64 {
    /// 97.5 % quantiles of Student's t; from 20 degrees of freedom on that of 20, which is larger.
    const T: [f64; 20] = [
        12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10,
        2.09, 2.09,
    ];
    let degrees = count.saturating_sub(1).max(1);
    (count as f64 / degrees as f64).sqrt() * T[degrees.min(T.len()) - 1] / 1.96
}

fn resample_mean(values: &[f64], random: &mut SplitMix64) -> f64 {
    let sum: f64 = (0..values.len()).map(|_| values[random.below(values.len())]).sum();
    sum / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_three_values_it_is_their_range_widened() {
        let interval = mean_interval(&[380.0, 371.0, 392.0]).unwrap();
        let (low, high) = (381.0 - 10.0 * widening(3), 381.0 + 11.0 * widening(3));
        assert!((interval.low - low).abs() < 1e-9 && (interval.high - high).abs() < 1e-9, "{interval:?}");
        assert_eq!(mean_interval(&[392.0, 380.0, 371.0]), Some(interval));
        assert_eq!(mean_interval(&[1.0, 2.0]), None);
        assert_eq!(mean_interval(&[0.1; 7]), Some(Interval { low: 0.1, high: 0.1 }));
        assert_eq!((mean(&[]), mean(&[1.0, 2.0, 6.0])), (None, Some(3.0)));
    }

    #[test]
    fn it_does_not_leave_the_side_of_zero() {
        assert_eq!(mean_interval(&[0.0, 0.1, 1.0]).unwrap().low, 0.0);
        assert!(mean_interval(&[-0.1, 0.1, 1.0]).unwrap().low < -0.1);
    }

    #[test]
    fn of_two_different_values_it_is_a_binomial_interval_widened() {
        // 5 zeros and 5 ones: the means are binomial, with 2.5 % and 97.5 % quantiles of 2 and 8 of 10.
        let values = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0];
        let (interval, half) = (mean_interval(&values).unwrap(), 0.3 * widening(10));
        assert!(
            (interval.low - (0.5 - half)).abs() < 1e-9 && (interval.high - (0.5 + half)).abs() < 1e-9,
            "{interval:?}"
        );
    }

    #[test]
    fn the_widening_by_hand() {
        for (count, factor) in [(3, 2.687), (5, 1.586), (10, 1.215), (1_000, 1.067)] {
            assert!((widening(count) - factor).abs() < 1e-3, "{count}: {}", widening(count));
        }
    }

    /// Uniform in 0..1.
    fn uniform(random: &mut SplitMix64) -> f64 {
        (random.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    fn normal(random: &mut SplitMix64) -> f64 {
        (-2.0 * (1.0 - uniform(random)).ln()).sqrt() * (std::f64::consts::TAU * uniform(random)).cos()
    }

    /// In percent: how often the interval of `count` values has their distribution's mean.
    fn coverage(count: usize, true_mean: f64, value: fn(&mut SplitMix64) -> f64) -> f64 {
        const TRIALS: u32 = 400;
        let mut random = SplitMix64(7);
        let covered = (0..TRIALS).filter(|_| {
            let values: Vec<f64> = (0..count).map(|_| value(&mut random)).collect();
            mean_interval(&values).is_some_and(|i| (i.low..=i.high).contains(&true_mean))
        });
        100.0 * covered.count() as f64 / f64::from(TRIALS)
    }

    #[test]
    fn it_covers_the_true_mean_as_often_as_it_says() {
        // 400 trials: the standard error is 1.1 points.
        let normal_of = [3, 4, 5, 10, 40].map(|count| coverage(count, 0.0, normal));
        assert!(normal_of.iter().all(|found| (92.0..=99.0).contains(found)), "{normal_of:?}");
        let uniform_of = coverage(40, 0.5, uniform);
        assert!((92.0..=99.0).contains(&uniform_of), "{uniform_of}");
        // A skewed distribution needs more values.
        let exponential = |count| coverage(count, 1.0, |random| -(1.0 - uniform(random)).ln());
        assert!(exponential(40) >= 90.0 && exponential(5) <= 92.0, "{} {}", exponential(40), exponential(5));
    }
}
