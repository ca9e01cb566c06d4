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

/// The interval that holds the middle 95 % of the means of 10,000 resamples, each as long as the values and drawn from them with replacement.
/// The same values give the same interval in any order. `None` with fewer than [`MIN_VALUES`] values.
///
/// With few values it promises more than it holds, because the resamples cannot leave the range of the values. Of values from a normal
/// distribution it contains the true mean in about 75 % of all cases with 3 values (it is their range), 80 % with 4, 84 % with 5 and 90 % with
/// 10, instead of 95 %.
pub fn mean_interval(values: &[f64]) -> Option<Interval> {
    if values.len() < MIN_VALUES {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut random = SplitMix64(SEED);
    let means: Vec<f64> = (0..RESAMPLES).map(|_| resample_mean(&sorted, &mut random)).collect();
    let tail_pct = (100.0 - LEVEL_PCT) / 2.0;
    let (low, high) = (percentile(&means, tail_pct)?, percentile(&means, 100.0 - tail_pct)?);
    // The sum's rounding must not put equal values outside their own range.
    let (least, greatest) = (*sorted.first()?, *sorted.last()?);
    Some(Interval { low: low.clamp(least, greatest), high: high.clamp(least, greatest) })
}

fn resample_mean(values: &[f64], random: &mut SplitMix64) -> f64 {
    let sum: f64 = (0..values.len()).map(|_| values[random.below(values.len())]).sum();
    sum / values.len() as f64
}

/// Number of different resamples of so many different values, as multisets: 10 of 3 values, 35 of 4, 126 of 5. The number saturates.
pub fn distinct_resamples(values: u64) -> u64 {
    // The binomial coefficient of 2n − 1 over n, factor by factor: each partial product is a whole number.
    (1..=values).fold(1_u64, |product, k| match product.checked_mul(values - 1 + k) {
        Some(next) => next / k,
        None => u64::MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_three_values_it_is_their_range() {
        let interval = mean_interval(&[380.0, 371.0, 392.0]).unwrap();
        assert_eq!((interval.low, interval.high), (371.0, 392.0));
        assert_eq!(mean_interval(&[392.0, 380.0, 371.0]), Some(interval));
        assert_eq!(mean_interval(&[1.0, 2.0]), None);
        assert_eq!(mean_interval(&[0.1; 7]), Some(Interval { low: 0.1, high: 0.1 }));
        assert_eq!((mean(&[]), mean(&[1.0, 2.0, 6.0])), (None, Some(3.0)));
    }

    #[test]
    fn of_two_different_values_it_is_a_binomial_interval() {
        // 5 zeros and 5 ones: the means are binomial, with 2.5 % and 97.5 % quantiles of 2 and 8 of 10.
        let values = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0];
        let interval = mean_interval(&values).unwrap();
        assert!((interval.low - 0.2).abs() < 1e-9 && (interval.high - 0.8).abs() < 1e-9, "{interval:?}");
    }

    #[test]
    fn distinct_resamples_by_hand() {
        assert_eq!([1, 2, 3, 4, 5, 10].map(distinct_resamples), [1, 3, 10, 35, 126, 92_378]);
        assert_eq!(distinct_resamples(100), u64::MAX);
    }

    /// Uniform in 0..1.
    fn uniform(random: &mut SplitMix64) -> f64 {
        (random.next() >> 11) as f64 / (1_u64 << 53) as f64
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
    fn it_covers_the_true_mean_as_often_as_documented() {
        // 400 trials: the standard error is at most 2.2 points.
        let normal_of = [3, 4, 5, 10, 40].map(|count| coverage(count, 0.0, normal));
        for (found, documented) in normal_of.iter().zip([75.0, 80.0, 84.0, 90.0, 94.0]) {
            assert!((found - documented).abs() <= 5.0, "{normal_of:?}");
        }
        let uniform_of = coverage(40, 0.5, uniform);
        assert!((uniform_of - 94.5).abs() <= 4.0, "{uniform_of}");
        // A skewed distribution needs more values.
        let exponential = |count| coverage(count, 1.0, |random| -(1.0 - uniform(random)).ln());
        assert!(exponential(40) >= 88.0 && exponential(5) <= 88.0, "{} {}", exponential(40), exponential(5));
    }
}
