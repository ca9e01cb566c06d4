use std::{fs::OpenOptions, io::Write, path::PathBuf};

use contract::EventKind;

use super::*;
use crate::{
    dataset::DatasetBuilder,
    parse::{BadRows, parse},
};

fn dataset(events: &[(&str, &str, i64)]) -> Dataset {
    let mut b = DatasetBuilder::default();
    for &(user, item, at_ms) in events {
        b.push(user, item, EventKind::View, at_ms, 1.0).unwrap();
    }
    b.finish().0
}

#[test]
fn the_item_of_the_last_interaction_goes_with_its_earlier_occurrences() {
    let data = dataset(&[
        ("u", "a", 1),
        ("u", "c", 9),
        ("u", "b", 2),
        ("u", "c", 0),
        // One distinct item: not evaluated.
        ("v", "a", 1),
        ("v", "a", 2),
        // Equal times: the last in the file.
        ("w", "b", 5),
        ("w", "a", 5),
    ]);
    let (train, held_out) = hold_out(&data);
    let names = |&(user, item): &(u32, u32)| (data.users[user as usize].as_str(), data.items[item as usize].as_str());
    assert_eq!(held_out.iter().map(names).collect::<Vec<_>>(), [("u", "c"), ("w", "a")]);
    let left: Vec<_> = train.events.iter().map(|e| names(&(e.user, e.item))).collect();
    assert_eq!(left, [("u", "a"), ("u", "b"), ("v", "a"), ("v", "a"), ("w", "b")]);
}

#[test]
fn metrics_by_hand() {
    let mut tally = Tally::default();
    for place in [Some(0), Some(2), None, None] {
        tally.add(place);
    }
    let m = tally.metrics();
    assert_eq!((m.ndcg, m.hit_rate, m.recall), (1.5 / 4.0, 0.5, 0.5));
    // Gains 1, ½, 0, 0 around 0.375.
    let variance = (0.625_f64.powi(2) + 0.125_f64.powi(2) + 2.0 * 0.375_f64.powi(2)) / 4.0;
    assert!((m.ndcg_standard_error - (variance / 4.0).sqrt()).abs() < 1e-12);
}

#[test]
fn popularity_leaves_out_what_was_seen() {
    let ranking: Vec<Scored> = (0..20).map(|item| (item, 1.0)).collect();
    let mut seen = [false; 20];
    seen[0] = true;
    seen[2] = true;
    assert_eq!(place_among_unseen(&ranking, &seen, 1), Some(0));
    assert_eq!(place_among_unseen(&ranking, &seen, 11), Some(9));
    assert_eq!(place_among_unseen(&ranking, &seen, 12), None);
}

#[test]
fn a_pattern_is_found_that_popularity_cannot_know() {
    // 40 pairs of items. Every user has both items of a pair, and there are more pairs than items in a list.
    let names: Vec<[String; 3]> =
        (0..400).map(|n| [format!("u{n}"), format!("a{}", n % 40), format!("b{}", n % 40)]).collect();
    let events: Vec<_> = names.iter().flat_map(|[u, a, b]| [(u.as_str(), a.as_str(), 1), (u, b, 2)]).collect();
    // Half of the users go from b to a, so that the training data still has pairs: three items each.
    let mut events = events;
    let more: Vec<String> = (0..400).map(|n| format!("c{}", n % 40)).collect();
    events.extend(
        names.iter().zip(&more).map(|([u, ..], c)| (u.as_str(), c.as_str(), if u.len() % 2 == 0 { 0 } else { 3 })),
    );
    let report = leave_last_out(&dataset(&events)).unwrap();
    assert_eq!((report.users_evaluated, report.users, report.items), (400, 400, 120));
    assert!(report.model.hit_rate > 0.9 && report.popularity.hit_rate < 0.5, "{report:?}");
}

#[test]
fn recent_popularity_is_the_list_for_cold_users() {
    const YEAR: i64 = 365 * 86_400_000;
    let names: Vec<[String; 3]> =
        (0..100).map(|n| [format!("u{n}"), format!("old{}", n % 20), format!("last{n}")]).collect();
    let mut events: Vec<_> =
        names.iter().flat_map(|[u, old, last]| [(u.as_str(), old.as_str(), 1), (u, last, 2)]).collect();
    // Two events with "new" stay in the training data, beside five with each of 20 old items; one is held out.
    events.extend([("v", "new", YEAR), ("v", "x", YEAR + 1), ("w", "new", YEAR), ("w", "y", YEAR + 1)]);
    events.extend([("z", "old0", 1), ("z", "new", YEAR)]);
    let report = leave_last_out(&dataset(&events)).unwrap();
    assert_eq!(report.users_evaluated, 103);
    assert_eq!((report.popularity.hit_rate, report.recent_popularity.hit_rate), (0.0, 1.0 / 103.0));
}

#[test]
fn no_user_to_evaluate_is_an_error() {
    let data = dataset(&[("u", "a", 1), ("u", "a", 2)]);
    assert_eq!(leave_last_out(&data), Err(QualityError::NoUsersToEvaluate));
}

/// MovieLens 100K, whose licence does not allow it in the repository. `None`: it is not on this machine; the test prints that.
pub(crate) fn movielens() -> Option<std::fs::File> {
    let path = match std::env::var_os("TESTBED_ML100K") {
        // An explicitly named file must exist.
        Some(path) => return Some(std::fs::File::open(path).unwrap()),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/ml-100k.inter"),
    };
    if let Ok(file) = std::fs::File::open(&path) {
        return Some(file);
    }
    let line = format!("SKIP: quality on ml-100k: {} is not there (TESTBED_ML100K names another)", path.display());
    eprintln!("{line}");
    if let Some(list) = std::env::var_os("TESTBED_SKIP_FILE") {
        let mut list = OpenOptions::new().create(true).append(true).open(list).unwrap();
        writeln!(list, "{line}").unwrap();
    }
    None
}

#[test]
fn movielens_is_recommended_far_better_than_by_popularity() {
    let Some(file) = movielens() else { return };
    let (data, report) = parse(file, BadRows::Refuse).unwrap();
    assert_eq!((report.rows, report.duplicates), (100_000, 0));
    assert_eq!((data.users.len(), data.items.len()), (943, 1682));
    let report = leave_last_out(&data).unwrap();
    assert_eq!(report.users_evaluated, 943);
    // Published: 0.087 for popularity (see the module). This checks the protocol, not the model.
    assert!((0.08..0.095).contains(&report.popularity.hit_rate), "{report:?}");
    assert!(report.ndcg_ratio.unwrap() >= 1.5, "{report:?}");
    assert!(report.model.ndcg > report.recent_popularity.ndcg * 1.5, "{report:?}");
    let json = serde_json::to_value(report).unwrap();
    assert!(json["protocol"].as_str().unwrap().starts_with("Leave-last-out by time."));
}
