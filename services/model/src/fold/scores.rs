//! Scores of pairs of items, and the best neighbours of an item.

use contract::ItemId;

use super::pairs;
use crate::neighbours::{NEIGHBOURS_KEPT, Scored};

/// Prevents a perfect score of two items that only one user has.
const PRIOR_VISITORS: f64 = 2.0;

/// `sum`: of the pair's amounts. `visitors`: how often each of the two items entered a window.
pub(super) fn score(sum: u64, visitors: u64, of_other: u64) -> f32 {
    let count = |visitors: u64| visitors as f64 + PRIOR_VISITORS;
    (pairs::value(sum) / (count(visitors) * count(of_other)).sqrt()) as f32
}

/// Keeps the best, best first; equal scores by id, so that the result does not depend on numbers and hashes.
pub(super) fn keep_best<'a>(scored: &mut Vec<Scored>, id: impl Fn(u32) -> &'a ItemId) {
    let order = |a: &Scored, b: &Scored| b.1.total_cmp(&a.1).then_with(|| id(a.0).cmp(id(b.0)));
    if scored.len() > NEIGHBOURS_KEPT {
        scored.select_nth_unstable_by(NEIGHBOURS_KEPT, order);
        scored.truncate(NEIGHBOURS_KEPT);
    }
    scored.sort_unstable_by(order);
}
