use std::collections::HashMap;

use contract::EventKind;
use proptest::prelude::*;

use super::*;
use crate::dataset::{DatasetBuilder, Interaction};

const DAY: i64 = 86_400_000;

fn dataset(events: &[(&str, &str, i64, f32)]) -> Dataset {
    let mut b = DatasetBuilder::default();
    for &(user, item, at_ms, weight) in events {
        b.push(user, item, EventKind::View, at_ms, weight).unwrap();
    }
    b.finish().0
}

fn build(data: &Dataset, params: &Params) -> NeighbourModel {
    NeighbourModel::build(data, params, NonZero::<usize>::MIN).unwrap()
}

fn score(model: &NeighbourModel, of: &str, to: &str) -> Option<f32> {
    let (of, to) = (model.index_of(of).unwrap(), model.index_of(to).unwrap());
    model.neighbours(of).iter().find(|n| n.0 == to).map(|n| n.1)
}

#[test]
fn the_score_is_the_formula() {
    // b, then 30 days later a; c is not shared with anyone.
    let data = dataset(&[("u", "b", 0, 16.0), ("u", "a", 30 * DAY, 1.0), ("v", "c", 0, 1.0), ("w", "a", 0, 1.0)]);
    let params = Params { gap_half_life_places: 1.0, ..Params::default() };
    let model = build(&data, &params);
    // One place and one half-life of days apart, strengths 16^¼ and 1; b has one user, a has two.
    let want = 0.5 * 0.5 * 2.0 / ((1.0 + 2.0) * (2.0 + 2.0_f32)).sqrt();
    assert!((score(&model, "a", "b").unwrap() - want).abs() < 1e-6);
    assert_eq!(score(&model, "a", "b"), score(&model, "b", "a"));
    assert_eq!(model.neighbours(model.index_of("c").unwrap()), []);
}

#[test]
fn close_in_time_and_unpopular_come_first() {
    let mut events = Vec::new();
    let users: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
    for (n, user) in users.iter().enumerate() {
        // All users have "hit", half of them also "x" and "y"; "z" comes a year later.
        events.push((user.as_str(), "hit", 0, 1.0));
        if n % 2 == 0 {
            events.push((user, "x", 1000, 1.0));
            events.push((user, "y", 2000, 1.0));
            events.push((user, "z", 365 * DAY, 1.0));
        }
    }
    let model = build(&dataset(&events), &Params::default());
    let x = model.index_of("x").unwrap();
    let order: Vec<&str> = model.neighbours(x).iter().map(|n| model.item(n.0).unwrap().as_str()).collect();
    assert_eq!(order, ["y", "hit", "z"]);
}

#[test]
fn only_the_newest_of_a_long_history_form_pairs() {
    let items: Vec<String> = (0..5).map(|n| format!("i{n}")).collect();
    let events: Vec<_> = (0..).zip(&items).map(|(at, item)| ("u", item.as_str(), at, 1.0)).collect();
    let model = build(&dataset(&events), &Params { history_cap: 3, ..Params::default() });
    let pairs: Vec<usize> = (0..5).map(|item| model.neighbours(item).len()).collect();
    assert_eq!(pairs, [0, 0, 2, 2, 2]);
}

#[test]
fn each_row_keeps_its_best() {
    let items: Vec<String> = (0..30).map(|n| format!("i{n:02}")).collect();
    let events: Vec<_> = (0..).zip(&items).map(|(at, item)| ("u", item.as_str(), at, 1.0)).collect();
    let model = build(&dataset(&events), &Params { neighbours_per_item: 4, ..Params::default() });
    let near: Vec<u32> = model.neighbours(10).iter().map(|n| n.0).collect();
    assert_eq!(near, [9, 11, 8, 12], "the nearest places, equal scores by position");
}

#[test]
fn popularity_fades() {
    let data =
        dataset(&[("a", "old", 0, 1.0), ("b", "old", 0, 1.0), ("c", "old", 0, 1.0), ("a", "new", 60 * DAY, 1.0)]);
    let ids = |list: &[Scored]| list.iter().map(|n| data.items[n.0 as usize].to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&popularity(&data, None)), ["old", "new"]);
    let model = build(&data, &Params::default());
    assert_eq!(ids(model.popular()), ["new", "old"]);
    assert!((model.popular()[1].1 - 0.75).abs() < 1e-6, "three events, two half-lives ago");
}

#[test]
fn the_empty_dataset_and_unknown_positions() {
    let model = build(&Dataset::default(), &Params::default());
    assert_eq!((model.items().len(), model.popular().len(), model.index_of("x")), (0, 0, None));
    assert_eq!((model.neighbours(0), model.neighbours(u32::MAX), model.item(0)), (&[][..], &[][..], None));
}

#[test]
fn bad_parameters_are_named() {
    let bad = Params { damping: f32::NAN, ..Params::default() };
    let error = NeighbourModel::build(&Dataset::default(), &bad, NonZero::<usize>::MIN).unwrap_err();
    assert_eq!(error, BadParam("damping"));
}

/// Computed directly from the formula: every pair of every user's distinct items.
fn by_definition(data: &Dataset, params: &Params) -> HashMap<(u32, u32), f64> {
    let lines = data.timelines();
    let mut pairs: HashMap<(u32, u32), f64> = HashMap::new();
    let mut users_of = vec![0.0_f64; data.items.len()];
    for user in 0..data.users.len() as u32 {
        let mut newest: Vec<Interaction> = Vec::new();
        for &at in lines.of(user).iter().rev() {
            let e = data.events[at];
            match newest.iter_mut().find(|n| n.item == e.item) {
                Some(known) => known.weight = known.weight.max(e.weight),
                None => newest.push(e),
            }
        }
        // As in the build: a repeated item beyond the cap stays beyond it.
        newest.truncate(params.history_cap as usize);
        for (p, a) in newest.iter().enumerate() {
            users_of[a.item as usize] += 1.0;
            for (q, b) in newest.iter().enumerate().filter(|&(q, _)| q != p) {
                let places = 0.5_f64.powf(p.abs_diff(q) as f64 / f64::from(params.gap_half_life_places));
                let days = (a.at_ms - b.at_ms).abs() as f64 / MS_PER_DAY / f64::from(params.gap_half_life_days);
                let strengths = f64::from(a.weight).powf(0.25) * f64::from(b.weight).powf(0.25);
                *pairs.entry((a.item, b.item)).or_default() += places / (1.0 + days) * strengths;
            }
        }
    }
    for ((a, b), sum) in &mut pairs {
        *sum /= ((users_of[*a as usize] + 2.0) * (users_of[*b as usize] + 2.0)).powf(f64::from(params.damping));
    }
    pairs
}

proptest! {
    #[test]
    fn the_build_equals_the_definition_with_any_number_of_threads(
        events in prop::collection::vec((0_u8..8, 0_u8..12, 0_i64..90 * DAY, 0.1_f32..8.0), 0..120),
        history_cap in 2_u32..10,
        threads in 2_usize..5,
    ) {
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        let events: Vec<_> = events
            .iter()
            .map(|&(user, item, at, weight)| (names[user as usize].as_str(), names[item as usize].as_str(), at, weight))
            .collect();
        let data = dataset(&events);
        let params = Params { history_cap, ..Params::default() };
        let model = build(&data, &params);
        prop_assert_eq!(&model, &NeighbourModel::build(&data, &params, NonZero::new(threads).unwrap()).unwrap());

        let want = by_definition(&data, &params);
        let found: usize = (0..data.items.len() as u32).map(|item| model.neighbours(item).len()).sum();
        prop_assert_eq!(found, want.len());
        for item in 0..data.items.len() as u32 {
            let row = model.neighbours(item);
            prop_assert!(row.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            for &(other, score) in row {
                let want = want[&(item, other)];
                prop_assert!((f64::from(score) - want).abs() < 1e-4 * want, "{score} instead of {want}");
            }
        }
    }
}
