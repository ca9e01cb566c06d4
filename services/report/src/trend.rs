//! Straight lines through figures over time, and the time until a load is back to normal. Pure.

use loadtest::figures::Tail;
use statistics::median;

use super::{schema::Second, validity::invalid_because};

/// A least-squares line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Change of y per unit of x.
    pub slope: f64,
    /// Of the slope. It assumes independent points; memory is not independent, so it is too small there.
    pub standard_error: f64,
    pub mean: f64,
}

/// `None` for fewer than three points, values that are not finite, or points that all have one x.
pub fn least_squares(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    if points.len() < 3 || points.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
        return None;
    }
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(|p| p.0), mean(|p| p.1));
    let xx: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if xx == 0.0 {
        return None;
    }
    let xy: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let slope = xy / xx;
    let residuals: f64 = points.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
    Some(Line { slope, standard_error: (residuals / (n - 2.0) / xx).sqrt(), mean: mean_y })
}

/// A second is normal up to this share of errors …
const NORMAL_ERROR_PCT: f64 = 1.0;
/// … and up to this many times the tail (p99, or the maximum of fewer than 1,000 requests) from before the surge …
const NORMAL_TAIL_TIMES: f64 = 2.0;
/// … or so much more, where that is little.
const NORMAL_TAIL_SLACK_MS: f64 = 20.0;
/// As many in a row are a return; a single good second between bad ones is none.
const NORMAL_SECONDS: usize = 3;

/// How a series returned to normal after a surge or an outage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Return {
    /// Of a typical valid second before the surge; `None` when nothing ended in them.
    pub normal: Option<Tail>,
    /// From the end of the surge to the first of three normal and valid seconds in a row; null: not within the series.
    pub after_s: Option<u32>,
    /// The same if each second that is not valid had been normal: the return was not sooner.
    pub earliest_s: Option<u32>,
}

/// Whether a return within `limit_s` is certain; `None`: it depends on seconds that are not valid.
pub fn returned_within(limit_s: f64, after_s: f64, earliest_s: f64) -> Option<bool> {
    match (after_s <= limit_s, earliest_s <= limit_s) {
        (true, _) => Some(true),
        (false, false) => Some(false),
        (false, true) => None,
    }
}

impl Return {
    /// If that is the tail of a typical second before the surge.
    pub fn normal_p99_ms(&self) -> Option<f64> {
        self.normal.filter(|tail| matches!(tail, Tail::P99(_))).map(Tail::ms)
    }

    /// If there were too few requests for a 99th percentile.
    pub fn normal_max_ms(&self) -> Option<f64> {
        self.normal.filter(|tail| matches!(tail, Tail::Max(_))).map(Tail::ms)
    }
}

pub fn back_to_normal(series: &[Second], surge: std::ops::Range<u32>) -> Return {
    let is_valid = |second: &Second| invalid_because(second).is_none();
    let before = series.iter().filter(|second| second.second < surge.start);
    let normal_tail = typical_tail(before.clone().filter(|second| is_valid(second)));
    let Some(tail) = normal_tail else {
        // With a valid second nothing ended before the surge; otherwise all is open.
        let earliest_s = (!before.clone().any(is_valid) && before.count() > 0).then_some(0);
        return Return { normal: None, after_s: None, earliest_s };
    };
    let limit_ms = (tail.ms() * NORMAL_TAIL_TIMES).max(tail.ms() + NORMAL_TAIL_SLACK_MS);
    let normal = |second: &Second| {
        let ended = second.ended();
        ended > 0
            && second.errors as f64 * 100.0 <= ended as f64 * NORMAL_ERROR_PCT
            && second.tail().is_some_and(|tail| tail.ms() <= limit_ms)
    };
    let after: Vec<&Second> = series.iter().filter(|second| second.second >= surge.end).collect();
    let first = |counts: &dyn Fn(&Second) -> bool| {
        let at = after.windows(NORMAL_SECONDS).position(|row| row.iter().all(|second| counts(second)));
        at.map(|at| after[at].second - surge.end)
    };
    Return {
        normal: normal_tail,
        after_s: first(&|second| normal(second) && is_valid(second)),
        earliest_s: first(&|second| normal(second) || !is_valid(second)),
    }
}

/// The tail of a typical second: the median of the seconds' 99th percentiles, or of their maxima if less than a quarter of the seconds with
/// requests had enough of them for a percentile. `None` without requests.
pub fn typical_tail<'a>(seconds: impl IntoIterator<Item = &'a Second>) -> Option<Tail> {
    let seconds: Vec<&Second> = seconds.into_iter().filter(|second| second.tail().is_some()).collect();
    let p99s: Vec<f64> = seconds.iter().filter_map(|second| second.p99_ms).collect();
    if p99s.len() * 4 >= seconds.len() {
        return median(&p99s).map(Tail::P99);
    }
    let maxima: Vec<f64> = seconds.iter().filter_map(|second| second.max_ms).collect();
    median(&maxima).map(Tail::Max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_error() {
        let exact: Vec<_> = (0..10).map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x))).collect();
        let line = least_squares(&exact).unwrap();
        assert!((line.slope - 2.0).abs() < 1e-12 && line.standard_error < 1e-9 && (line.mean - 12.0).abs() < 1e-12);
        // By hand: x̄ = 1.5, ȳ = 2.5, Σxy = 4, Σxx = 5, residuals 1.8, s² = 0.9.
        let line = least_squares(&[(0.0, 1.0), (1.0, 3.0), (2.0, 2.0), (3.0, 4.0)]).unwrap();
        assert!((line.slope - 0.8).abs() < 1e-12, "{line:?}");
        assert!((line.standard_error - (0.9_f64 / 5.0).sqrt()).abs() < 1e-12, "{line:?}");
        let flat = least_squares(&[(0.0, 5.0), (1.0, 5.0), (2.0, 5.0)]).unwrap();
        assert_eq!((flat.slope, flat.standard_error), (0.0, 0.0));
    }

    #[test]
    fn no_line_through_too_little() {
        assert_eq!(least_squares(&[]), None);
        assert_eq!(least_squares(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(least_squares(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(least_squares(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)]), None);
    }

    /// Ten normal seconds, ten of surge, then `after` (errors, p99) per second.
    fn series(after: &[(u64, f64)]) -> Vec<Second> {
        let normal = [(0, 100.0); 10];
        let surge = [(500, 3000.0); 10];
        let all = normal.iter().chain(&surge).chain(after).enumerate();
        all.map(|(second, &(errors, p99))| Second {
            second: second as u32,
            sent: 1000,
            good: 1000 - errors,
            errors,
            p99_ms: Some(p99),
            ..Second::default()
        })
        .collect()
    }

    #[test]
    fn a_second_that_is_not_valid_decides_nothing() {
        let back = |after: &[(u64, f64)], invalid: &[usize]| {
            let mut series = series(after);
            invalid.iter().for_each(|&n| series[n].cpu_pct = Some(97.0));
            let back = back_to_normal(&series, 10..20);
            (back.after_s, back.earliest_s)
        };
        let normal = [(0, 100.0); 6];
        assert_eq!(back(&normal, &[5, 15]), (Some(0), Some(0)), "seconds before and within the surge");
        assert_eq!(back(&normal, &[20]), (Some(1), Some(0)));
        let slow = [(500, 100.0), (500, 100.0), (0, 100.0), (0, 100.0), (0, 100.0)];
        assert_eq!(back(&slow, &[21]), (Some(2), Some(1)), "an invalid second may have been normal");
        let every: Vec<usize> = (0..10).collect();
        assert_eq!(back(&normal, &every), (None, Some(0)), "what is normal is unknown");
        let within = |after, earliest| returned_within(5.0, after, earliest);
        assert_eq!((within(5.0, 2.0), within(6.0, 5.0), within(6.0, 6.0)), (Some(true), None, Some(false)));
        assert_eq!(within(f64::INFINITY, f64::INFINITY), Some(false));
    }

    #[test]
    fn a_return_is_three_normal_seconds_in_a_row() {
        let after = |seconds: &[(u64, f64)]| back_to_normal(&series(seconds), 10..20).after_s;
        assert_eq!(after(&[(0, 100.0); 5]), Some(0));
        assert_eq!(after(&[(500, 3000.0), (11, 110.0), (10, 200.0), (0, 100.0), (0, 90.0)]), Some(2));
        assert_eq!(after(&[(0, 100.0), (0, 100.0), (0, 201.0), (0, 100.0), (0, 100.0), (0, 100.0)]), Some(3));
        assert_eq!(after(&[(0, 100.0), (0, 100.0)]), None, "the series is over too soon");
        assert_eq!(after(&[(500, 100.0); 20]), None);
        assert_eq!(back_to_normal(&series(&[]), 10..20).normal, Some(Tail::P99(100.0)));
    }

    #[test]
    fn silence_is_not_normal() {
        let mut quiet = series(&[(0, 100.0); 6]);
        quiet[20..23].iter_mut().for_each(|second| (second.good, second.p99_ms) = (0, None));
        assert_eq!(back_to_normal(&quiet, 10..20).after_s, Some(3));
        assert_eq!(back_to_normal(&[], 10..20), Return { normal: None, after_s: None, earliest_s: None });
    }

    #[test]
    fn a_typical_second_with_few_requests_has_a_maximum() {
        let second = |p99_ms, max_ms| Second { good: 1, p99_ms, max_ms: Some(max_ms), ..Second::default() };
        let (few, many) = (second(None, 30.0), second(Some(10.0), 40.0));
        assert_eq!(typical_tail([&few, &few, &few, &few, &many]), Some(Tail::Max(30.0)));
        assert_eq!(typical_tail([&few, &few, &few, &many]), Some(Tail::P99(10.0)));
        assert_eq!(typical_tail([&Second::default()]), None);
        let after: Vec<Second> = (0..8).map(|at| Second { second: at, ..few.clone() }).collect();
        let back = back_to_normal(&after, 2..4);
        assert_eq!((back.normal_p99_ms(), back.normal_max_ms(), back.after_s), (None, Some(30.0), Some(0)));
    }
}
