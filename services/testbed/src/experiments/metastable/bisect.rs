//! Which trigger size to try next, from those that were tried: the boundary between recovered and not recovered. Pure.

use serde::{Deserialize, Serialize};

/// A size that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    pub size: u32,
    pub recovered: bool,
}

/// Where the boundary is: the system recovers from `low`, and not from `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundary {
    /// Largest size below `high` from which it recovered; null: it recovered from none.
    pub low: Option<u32>,
    /// Smallest size from which it did not recover; null: it recovered from all, up to the largest possible one.
    pub high: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Try(u32),
    Done(Boundary),
}

/// Of one search.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// Where the boundary is expected, such as by a model; `None`: nowhere.
    pub expected: Option<u32>,
    /// Largest possible size, at least 1.
    pub largest: u32,
    /// The search ends when low is at least this share of high (0 to 1).
    pub precision: f64,
}

/// Most sizes of one search.
pub const MAX_TRIED: usize = 12;
/// The first sizes, around the expected boundary.
const FIRST_LOW: f64 = 0.85;
const FIRST_HIGH: f64 = 1.15;
/// While a side of the boundary is missing.
const STRIDE: f64 = 1.5;

impl Boundary {
    /// Of what was tried. Where verdicts contradict each other, the smallest size that did not recover counts.
    pub fn of(tried: &[Tried]) -> Self {
        let high = tried.iter().filter(|one| !one.recovered).map(|one| one.size).min();
        let is_below = |one: &&Tried| one.recovered && high.is_none_or(|high| one.size < high);
        Self { low: tried.iter().filter(is_below).map(|one| one.size).max(), high }
    }

    /// The middle, if both sides are known.
    pub fn middle(self) -> Option<f64> {
        self.low.zip(self.high).map(|(low, high)| f64::midpoint(low.into(), high.into()))
    }

    /// `low` as a share of `high`, if both are known.
    pub fn precision(self) -> Option<f64> {
        self.low.zip(self.high).map(|(low, high)| f64::from(low) / f64::from(high))
    }
}

impl Search {
    pub fn next(self, tried: &[Tried]) -> Step {
        let boundary = Boundary::of(tried);
        let at = |size: f64| (size.round() as u32).clamp(1, self.largest);
        let next = match (boundary.low, boundary.high) {
            (None, None) => self.expected.map_or(self.largest, |expected| at(FIRST_LOW * f64::from(expected))),
            (Some(low), None) if low >= self.largest => return Step::Done(boundary),
            (Some(low), None) => {
                let expected = self.expected.map(|expected| at(FIRST_HIGH * f64::from(expected)));
                expected.filter(|expected| *expected > low).unwrap_or_else(|| at(STRIDE * f64::from(low)).max(low + 1))
            }
            (None, Some(1)) => return Step::Done(boundary),
            (None, Some(high)) => at(f64::from(high) / STRIDE).min(high - 1),
            (Some(low), Some(high)) if f64::from(low) >= self.precision * f64::from(high) || high - low <= 1 => {
                return Step::Done(boundary);
            }
            (Some(low), Some(high)) => low.midpoint(high),
        };
        if tried.len() >= MAX_TRIED { Step::Done(boundary) } else { Step::Try(next) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches a system that recovers from all sizes below `edge`.
    fn search(search: Search, edge: u32) -> (Boundary, Vec<Tried>) {
        let mut tried = Vec::new();
        loop {
            match search.next(&tried) {
                Step::Try(size) => tried.push(Tried { size, recovered: size < edge }),
                Step::Done(boundary) => return (boundary, tried),
            }
        }
    }

    #[test]
    fn a_good_expectation_needs_two_cells() {
        let (boundary, tried) = search(Search { expected: Some(1_000), largest: 10_000, precision: 0.7 }, 1_100);
        assert_eq!(boundary, Boundary { low: Some(850), high: Some(1_150) });
        assert_eq!((tried.len(), boundary.middle()), (2, Some(1_000.0)));
    }

    #[test]
    fn without_a_boundary_the_largest_size_is_tried() {
        let all = Search { expected: None, largest: 10_000, precision: 0.7 };
        assert_eq!(search(all, 20_000).0, Boundary { low: Some(10_000), high: None });
        let (boundary, _) = search(Search { expected: Some(9_000), ..all }, 20_000);
        assert_eq!(boundary, Boundary { low: Some(10_000), high: None });
    }

    #[test]
    fn of_contradicting_verdicts_the_lower_one_counts() {
        let tried = [(900, true), (1_000, false), (1_100, true)].map(|(size, recovered)| Tried { size, recovered });
        assert_eq!(Boundary::of(&tried), Boundary { low: Some(900), high: Some(1_000) });
    }

    proptest! {
        /// The boundary encloses the edge; the search is bounded, tries no size twice, and is as precise as it was asked to be.
        #[test]
        fn the_boundary_encloses_the_edge(
            edge in 1..12_000_u32,
            expected in proptest::option::of(1..10_000_u32),
            precision in 0.5..0.95_f64,
        ) {
            let asked = Search { expected, largest: 10_000, precision };
            let (boundary, tried) = search(asked, edge);
            let mut sizes: Vec<u32> = tried.iter().map(|one| one.size).collect();
            sizes.sort_unstable();
            sizes.dedup();
            prop_assert_eq!(sizes.len(), tried.len());
            prop_assert!(tried.len() <= MAX_TRIED && sizes.iter().all(|size| (1..=10_000).contains(size)));
            prop_assert!(boundary.low.is_none_or(|low| low < edge) && boundary.high.is_none_or(|high| high >= edge));
            let precise = boundary.precision().is_some_and(|found| found >= precision);
            let ends = boundary.low == Some(10_000) || boundary.high == Some(1);
            let narrow = boundary.low.zip(boundary.high).is_some_and(|(low, high)| high - low <= 1);
            prop_assert!(precise || ends || narrow || tried.len() == MAX_TRIED);
        }
    }
}
