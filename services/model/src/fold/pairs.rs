//! What a pair of items of one window adds.
//!
//! ```text
//! amount = ½^(places between / 10) × 1 / (1 + time between / 30 days) × strength × strength
//! ```
//! "Places" count the items of the window. They carry over between shops where people buy once a month and sites where they rate thirty
//! films in ten minutes; days alone would not. Amounts are fixed-point numbers, so that sums do not depend on their order.

use super::window::Visit;

/// 2^24 units are an amount of 1. Strengths are at most 1e6^¼, so 2^30 pairs of the largest amount fit into a sum.
const UNITS: f64 = (1 << 24) as f64;
/// ½^(1/10), written out: a library's power function may differ in the last digit.
const STEP: f64 = 0.933_032_991_536_807_4;
/// Time between two items at which their pair counts half.
const HALF_GAP_MS: f64 = 30.0 * 86_400_000.0;

/// The other items of the window with which the item at `place` makes a pair when it enters, as far as they are `wanted`, and what each pair
/// adds, in units.
pub(super) fn with(visits: &[Visit], place: usize, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = (u32, u64)> {
    let new = &visits[place];
    let others = visits.iter().enumerate();
    let others = others.filter(move |(other_place, other)| *other_place != place && wanted(other.item));
    let pairs = others.map(move |(other_place, other)| (other.item, amount(new, other, place.abs_diff(other_place))));
    pairs.filter(|&(_, amount)| amount > 0)
}

/// In units. `places`: between the two, 1 or more. The same whichever comes first.
fn amount(one: &Visit, other: &Visit, places: usize) -> u64 {
    let gap_ms = one.at_ms.abs_diff(other.at_ms) as f64;
    let gap = BY_PLACES[places.min(BY_PLACES.len() - 1)] * (HALF_GAP_MS / (HALF_GAP_MS + gap_ms));
    // Rounds to the nearest unit.
    (gap * (f64::from(one.strength) * f64::from(other.strength)) * UNITS + 0.5) as u64
}

/// The inverse of `UNITS`.
pub(super) fn value(sum: u64) -> f64 {
    sum as f64 / UNITS
}

/// A window has 100 places.
const BY_PLACES: [f64; 100] = {
    let mut table = [1.0; 100];
    let mut places = 1;
    while places < table.len() {
        table[places] = table[places - 1] * STEP;
        places += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    #[test]
    fn the_amount_is_the_formula() {
        let visit = |strength, at_ms| Visit { item: 0, strength, at_ms };
        // One half-life of places and one of days.
        let found = value(amount(&visit(2.0, 0), &visit(3.0, 30 * DAY), 10));
        assert!((found - 0.5 * 0.5 * 6.0).abs() < 1e-6, "{found}");
        let (a, b) = (visit(1.3, 7 * DAY), visit(0.7, -DAY));
        assert_eq!(amount(&a, &b, 3), amount(&b, &a, 3));
        // The extremes: nothing overflows, and the smallest rounds to 0.
        let strongest = visit(1e6_f32.powf(0.25), 0);
        assert!(amount(&strongest, &strongest, 1).checked_mul(1 << 30).is_some());
        let weakest = visit(0.03, i64::MAX);
        assert_eq!(amount(&weakest, &visit(0.03, i64::MIN), 99), 0);
    }
}
