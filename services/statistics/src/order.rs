//! Median and percentile of measured values, and whether there are enough of them.

/// A percentile is reported if so many samples are expected beyond it.
const BEYOND: f64 = 10.0;
/// Products such as 99.9 × 1000 are not exact; without it the rank could be one too high.
const ROUNDING: f64 = 1e-9;

/// The value in the middle; with an even number of values, the mean of the two in the middle. `None` without values.
///
/// A value that is not a number counts as the greatest.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

/// The nearest rank: the smallest of the values such that at least `percent` (0 to 100) of the values are at most as great. It is always one
/// of the values: 0 gives the least, 100 the greatest. `None` without values.
///
/// Of an even number of values the 50th percentile is the lower of the two in the middle, and [`median`] their mean. A value that is not a
/// number counts as the greatest.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let rank = (percent.clamp(0.0, 100.0) * values.len() as f64 / 100.0 - ROUNDING).ceil() as usize;
    let mut values = values.to_vec();
    Some(*values.select_nth_unstable_by(rank.saturating_sub(1).min(last), f64::total_cmp).1)
}

/// Whether a percentile of so many samples is worth reporting: at least ten samples are expected beyond it. That is 1,000 samples for the
/// 99th percentile and 10,000 for the 99.9th. With fewer, a single sample decides the figure: report the maximum by its name.
pub fn has_percentile(percent: f64, samples: u64) -> bool {
    samples as f64 * (100.0 - percent) / 100.0 >= BEYOND - 1e-6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_by_hand() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[f64::INFINITY, 1.0, 2.0]), Some(2.0), "one that never came");
        assert_eq!(median(&[f64::NAN, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[f64::INFINITY, f64::INFINITY, 1.0, 2.0]), Some(f64::INFINITY));
    }

    #[test]
    fn percentiles_by_hand() {
        assert_eq!(percentile(&[], 50.0), None);
        // The example of the definition: 15, 20, 35, 40, 50.
        let five = [50.0, 15.0, 40.0, 20.0, 35.0];
        let at = [5.0, 30.0, 40.0, 50.0, 100.0].map(|percent| percentile(&five, percent));
        assert_eq!(at, [15.0, 20.0, 20.0, 35.0, 50.0].map(Some));
        assert_eq!(percentile(&five, 0.0), Some(15.0));
        assert_eq!(percentile(&[1.0, 2.0], 50.0), Some(1.0), "a value of the list, and no mean of two");
        assert_eq!(percentile(&[1.0, 2.0], 50.1), Some(2.0));
    }

    #[test]
    fn ranks_are_exact_where_products_are_not() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        for tenths in 1..=1000 {
            let percent = f64::from(tenths) / 10.0;
            assert_eq!(percentile(&values, percent), Some(f64::from(tenths)), "{percent} %");
        }
        assert_eq!(percentile(&values[..100], 7.0), Some(7.0));
        assert_eq!(percentile(&values[..100], 99.9), Some(100.0));
    }

    #[test]
    fn a_percentile_needs_ten_samples_beyond_it() {
        assert!(!has_percentile(99.0, 999) && has_percentile(99.0, 1_000));
        assert!(!has_percentile(99.9, 9_999) && has_percentile(99.9, 10_000));
        assert!(!has_percentile(90.0, 99) && has_percentile(90.0, 100));
        assert!(!has_percentile(50.0, 0));
    }
}
