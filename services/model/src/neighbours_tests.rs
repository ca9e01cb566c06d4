use std::num::NonZero;

use contract::EventKind;

use super::*;
use crate::dataset::{Dataset, DatasetBuilder};

const DAY: i64 = 86_400_000;

fn dataset(events: &[(&str, &str, i64, f32)]) -> Dataset {
    let mut b = DatasetBuilder::default();
    for &(user, item, at_ms, weight) in events {
        b.push(user, item, EventKind::View, at_ms, weight).unwrap();
    }
    b.finish().0
}

fn build(data: &Dataset) -> NeighbourModel {
    NeighbourModel::build(data, NonZero::<usize>::MIN)
}

fn score(model: &NeighbourModel, of: &str, to: &str) -> Option<f32> {
    let (of, to) = (model.index_of(of).unwrap(), model.index_of(to).unwrap());
    model.neighbours(of).iter().find(|n| n.0 == to).map(|n| n.1)
}

#[test]
fn the_score_is_the_formula() {
    // b, then 30 days later a; c is not shared with anyone.
    let data = dataset(&[("u", "b", 0, 16.0), ("u", "a", 30 * DAY, 1.0), ("v", "c", 0, 1.0), ("w", "a", 0, 1.0)]);
    let model = build(&data);
    // One place and one half-life of days apart, strengths 16^¼ and 1; b has one user, a has two.
    let want = 0.5_f32.powf(0.1) * 0.5 * 2.0 / ((1.0 + 2.0) * (2.0 + 2.0_f32)).sqrt();
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
    let model = build(&dataset(&events));
    let x = model.index_of("x").unwrap();
    let order: Vec<&str> = model.neighbours(x).iter().map(|n| model.item(n.0).unwrap().as_str()).collect();
    assert_eq!(order, ["y", "hit", "z"]);
}

#[test]
fn only_items_within_one_window_form_pairs() {
    let items: Vec<String> = (0..150).map(|n| format!("i{n:03}")).collect();
    let events: Vec<_> = (0..).zip(&items).map(|(at, item)| ("u", item.as_str(), at, 1.0)).collect();
    let model = build(&dataset(&events));
    assert!(score(&model, "i000", "i099").is_some() && score(&model, "i000", "i100").is_none());
    let near: Vec<&str> = model.neighbours(10).iter().take(4).map(|n| model.item(n.0).unwrap().as_str()).collect();
    assert_eq!(near, ["i009", "i011", "i008", "i012"], "the nearest places, equal scores by id");
    assert_eq!(model.neighbours(75).len(), NEIGHBOURS_KEPT);
}

#[test]
fn popularity_fades() {
    let data =
        dataset(&[("a", "old", 0, 1.0), ("b", "old", 0, 1.0), ("c", "old", 0, 1.0), ("a", "new", 60 * DAY, 1.0)]);
    let model = build(&data);
    let ids: Vec<&str> = model.popular().iter().map(|n| model.item(n.0).unwrap().as_str()).collect();
    assert_eq!(ids, ["new", "old"]);
    assert!((model.popular()[1].1 - 0.75).abs() < 1e-6, "three events, two half-lives ago");
}

#[test]
fn the_empty_dataset_and_unknown_positions() {
    let model = build(&Dataset::default());
    assert_eq!((model.items().len(), model.popular().len(), model.index_of("x")), (0, 0, None));
    assert_eq!((model.neighbours(0), model.neighbours(u32::MAX), model.item(0)), (&[][..], &[][..], None));
}

#[test]
fn bad_parameters_are_named() {
    assert_eq!(Params::default().check(), Ok(()));
    assert_eq!(Params { damping: f32::NAN, ..Params::default() }.check(), Err(BadParam("damping")));
}
