use std::collections::HashSet;

use contract::ItemId;
use proptest::prelude::*;

use super::*;
use crate::neighbours::{BuiltFrom, Params};

fn model(rows: Vec<Vec<Scored>>, popular: &[u32]) -> NeighbourModel {
    let items = (0..rows.len()).map(|n| ItemId::new(&format!("i{n}")).unwrap()).collect();
    let popular = popular.iter().enumerate().map(|(n, &item)| (item, 100.0 / (n as f32 + 1.0))).collect();
    let params = Params { recency_half_life_places: 1.0, ..Params::default() };
    NeighbourModel::from_parts(items, rows, popular, params, BuiltFrom { users: 1, events: 1 })
}

fn met(items: &[u32]) -> Vec<HistoryItem> {
    items.iter().map(|&item| HistoryItem { item, weight: 1.0 }).collect()
}

fn no_neighbours(items: usize) -> Vec<Vec<Scored>> {
    vec![Vec::new(); items]
}

#[test]
fn scores_add_up_and_fade_with_place() {
    let mut rows = no_neighbours(5);
    rows[0] = vec![(2, 0.5), (3, 0.4)];
    rows[1] = vec![(3, 0.4), (4, 0.8), (0, 0.3)];
    let m = model(rows, &[]);
    let mut scratch = Scratch::default();
    let answer = m.rank(&met(&[0, 1]), 10, &mut scratch);
    // 3: 0.4 + 0.4/2; 2: 0.5; 4: 0.8/2; item 0 is in the history.
    assert_eq!(answer, [(3, 0.6), (2, 0.5), (4, 0.4)]);
    assert_eq!(m.rank(&met(&[0, 1]), 2, &mut scratch), answer[..2]);
    assert_eq!(m.rank(&met(&[0, 1]), 0, &mut scratch), []);
    // In the reverse order item 1's neighbours count in full.
    assert_eq!(m.rank(&met(&[1, 0]), 10, &mut scratch), [(4, 0.8), (3, 0.6), (2, 0.25)]);
}

#[test]
fn weight_counts_by_its_fourth_root_and_a_repeat_counts_once() {
    let mut rows = no_neighbours(3);
    rows[0] = vec![(2, 0.5)];
    let m = model(rows, &[]);
    let history = [(0, 1.0), (1, 1.0), (0, 16.0)].map(|(item, weight)| HistoryItem { item, weight });
    assert_eq!(m.rank(&history, 10, &mut Scratch::default()), [(2, 1.0)]);
}

#[test]
fn equal_scores_are_in_order_of_position() {
    let mut rows = no_neighbours(6);
    rows[5] = vec![(4, 0.5), (0, 0.5), (2, 0.5), (1, 0.5)];
    let m = model(rows, &[]);
    assert_eq!(m.rank(&met(&[5]), 3, &mut Scratch::default()), [(0, 0.5), (1, 0.5), (2, 0.5)]);
}

#[test]
fn popular_items_fill_up_below_the_personal_ones() {
    let mut rows = no_neighbours(6);
    rows[0] = vec![(3, 0.5)];
    let m = model(rows, &[3, 0, 5, 4]);
    let mut scratch = Scratch::default();
    let answer = m.rank(&met(&[0]), 10, &mut scratch);
    let items: Vec<u32> = answer.iter().map(|s| s.0).collect();
    assert_eq!(items, [3, 5, 4], "without the item met and the one already there");
    assert!(answer.windows(2).all(|pair| pair[0].1 > pair[1].1 && pair[1].1 > 0.0), "{answer:?}");
    // No known item in the history.
    let items: Vec<u32> = m.rank(&met(&[1]), 2, &mut scratch).iter().map(|s| s.0).collect();
    assert_eq!(items, [3, 0]);
}

#[test]
fn without_a_known_item_the_answer_is_empty() {
    let m = model(no_neighbours(2), &[1]);
    let mut scratch = Scratch::default();
    assert_eq!(m.rank(&[], 10, &mut scratch), []);
    assert_eq!(m.rank(&met(&[2, u32::MAX]), 10, &mut scratch), []);
}

#[test]
fn items_beyond_the_newest_hundred_are_excluded_and_do_not_count() {
    let old = HISTORY_RANKED as u32;
    let mut rows = no_neighbours(HISTORY_RANKED + 3);
    rows[0] = vec![(old, 0.9), (old + 2, 0.1)];
    rows[old as usize] = vec![(old + 1, 0.9)];
    let m = model(rows, &[]);
    let history: Vec<u32> = (0..=old).collect();
    assert_eq!(m.rank(&met(&history), 10, &mut Scratch::default()), [(old + 2, 0.1)]);
}

#[test]
fn a_scratch_serves_another_model() {
    let mut scratch = Scratch::default();
    let mut rows = no_neighbours(9);
    rows[0] = vec![(8, 0.5)];
    let large = model(rows, &[]);
    let mut rows = no_neighbours(2);
    rows[0] = vec![(1, 0.5)];
    let small = model(rows, &[]);
    for _ in 0..2 {
        assert_eq!(large.rank(&met(&[0]), 5, &mut scratch), [(8, 0.5)]);
        assert_eq!(small.rank(&met(&[0]), 5, &mut scratch), [(1, 0.5)]);
    }
}

fn any_model() -> impl Strategy<Value = NeighbourModel> {
    (2_usize..30).prop_flat_map(|items| {
        let row = prop::collection::hash_map(0..items as u32, 1e-30_f32..1.0, 0..items);
        let popular = prop::collection::hash_set(0..items as u32, 0..items);
        (prop::collection::vec(row, items), popular).prop_map(|(rows, popular)| {
            let rows = rows.into_iter().map(|row| {
                let mut row: Vec<Scored> = row.into_iter().collect();
                best_first(&mut row, usize::MAX);
                row
            });
            model(rows.collect(), &popular.into_iter().collect::<Vec<_>>())
        })
    })
}

proptest! {
    #[test]
    fn the_answer_keeps_its_promises(
        m in any_model(),
        histories in prop::collection::vec(prop::collection::vec((0_u32..32, 0.01_f32..100.0), 0..150), 1..4),
        k in 0_usize..40,
    ) {
        let mut scratch = Scratch::default();
        for history in histories {
            let history: Vec<_> = history.iter().map(|&(item, weight)| HistoryItem { item, weight }).collect();
            let answer = m.rank(&history, k, &mut scratch);
            prop_assert_eq!(&answer, &m.rank(&history, k, &mut Scratch::default()), "left-overs of the last call");
            let distinct: HashSet<u32> = answer.iter().map(|s| s.0).collect();
            prop_assert_eq!(distinct.len(), answer.len());
            prop_assert!(answer.len() <= k);
            prop_assert!(history.iter().all(|met| !distinct.contains(&met.item)));
            prop_assert!(answer.iter().all(|&(item, score)| m.item(item).is_some() && score > 0.0));
            prop_assert!(answer.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        }
    }
}
