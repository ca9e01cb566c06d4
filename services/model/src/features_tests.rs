use std::collections::{HashMap, HashSet};

use proptest::{collection::vec, prelude::*};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::*;

type Action = (ItemId, EventKind, i64, f32);

fn item(n: u32) -> ItemId {
    ItemId::new(&format!("i{n}")).unwrap()
}

fn kind(n: u32) -> EventKind {
    EventKind::from_code((n % 4) as u8).unwrap()
}

fn folded(actions: &[Action]) -> Features {
    let mut features = Features::default();
    for (item, kind, at_ms, weight) in actions {
        features.fold(item, *kind, *at_ms, *weight);
    }
    features
}

/// Random actions on `items` items. Times repeat.
fn actions(rng: &mut StdRng, count: usize, items: u32) -> Vec<Action> {
    let action = |_| {
        let n = rng.random_range(0..items);
        (item(n), kind(rng.random_range(0..4)), rng.random_range(0..200), rng.random_range(1..100) as f32 / 7.0)
    };
    (0..count).map(action).collect()
}

#[test]
fn the_order_of_events_does_not_matter() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        // Up to 100 items: none leaves the window.
        let (count, items) = (rng.random_range(1..400), rng.random_range(1..=100));
        let mut actions = actions(&mut rng, count, items);
        let expected = folded(&actions);
        for _ in 0..4 {
            actions.shuffle(&mut rng);
            let features = folded(&actions);
            assert_eq!(features, expected, "seed {seed}");
            assert_eq!(features.encode(), expected.encode(), "seed {seed}");
        }
        let newest: HashMap<&ItemId, (i64, f32)> = actions.iter().fold(HashMap::new(), |mut all, action| {
            let known = all.entry(&action.0).or_insert((action.2, action.3));
            *known = (known.0.max(action.2), known.1.max(action.3));
            all
        });
        assert_eq!(features_of(&expected), newest.into_iter().map(|(id, known)| (id.clone(), known)).collect());
        assert_eq!(expected.newest_at_ms(), actions.iter().map(|action| action.2).max());
        assert_eq!(expected.events(), actions.len() as u64);
        for n in 0..4 {
            let of_kind = actions.iter().filter(|action| action.1 == kind(n)).count();
            assert_eq!(expected.events_of(kind(n)), of_kind as u64);
        }
    }
}

fn features_of(features: &Features) -> HashMap<ItemId, (i64, f32)> {
    let (mut at, mut all) = (HEADER_BYTES, HashMap::new());
    while let Some(known) = WindowItem::read(&features.0, at) {
        all.insert(str::from_utf8(known.id).unwrap().parse().unwrap(), (known.at_ms, known.strength));
        at += known.len();
    }
    assert_eq!(at, features.0.len());
    all
}

/// Each item once: the window is the newest 100, in any order of arrival, late events included.
#[test]
fn of_distinct_items_the_newest_stay_in_any_order() {
    for seed in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut actions: Vec<Action> =
            (0..250).map(|n| (item(n), kind(n), rng.random_range(0..120), 1.0 + n as f32)).collect();
        let mut newest = actions.clone();
        newest.sort_by(|a, b| (b.2, &b.0).cmp(&(a.2, &a.0)));
        let newest: Vec<(ItemId, f32)> = newest.into_iter().take(100).map(|(id, _, _, weight)| (id, weight)).collect();
        actions.shuffle(&mut rng);
        let features = folded(&actions);
        let window: Vec<(ItemId, f32)> =
            features.window().map(|(id, strength)| (id.parse().unwrap(), strength)).collect();
        assert_eq!(window, newest, "seed {seed}");
        assert_eq!(features.events(), 250, "events outside of the window count");
    }
}

#[test]
fn an_item_that_left_the_window_begins_anew() {
    let mut features = folded(&[(item(0), EventKind::Purchase, 1, 9.0)]);
    for n in 1..=100 {
        features.fold(&item(n), EventKind::View, 1 + i64::from(n), 1.0);
    }
    assert!(features.window().all(|(id, _)| id != item(0).as_str()));
    // Too late to enter again.
    features.fold(&item(0), EventKind::View, 1, 8.0);
    assert!(features.window().all(|(id, _)| id != item(0).as_str()));
    features.fold(&item(0), EventKind::View, 200, 2.0);
    assert_eq!(features.window().next(), Some(("i0", 2.0)));
    assert_eq!((features.window().len(), features.newest_at_ms(), features.events()), (100, Some(200), 103));
    // A late event of an item in the window changes its strength, not its place.
    features.fold(&item(50), EventKind::Cart, 3, 7.0);
    assert_eq!(features.window().position(|(id, _)| id == "i50"), Some(51));
    assert_eq!(features.window().nth(51), Some(("i50", 7.0)));
}

#[test]
fn the_encoding_never_changes() {
    let mut features = Features::default();
    assert_eq!(features.encode(), [&[1][..], &[0; 33]].concat());
    features.fold(&"ä".parse().unwrap(), EventKind::Cart, 258, 1.5);
    features.fold(&"b".parse().unwrap(), EventKind::Rating, -1, 1.0);
    let golden = [
        &[1][..],
        &[0; 8],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[0; 8],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[2],
        &[2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0x3f, 2, 0xc3, 0xa4],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x80, 0x3f, 1, b'b'],
    ]
    .concat();
    assert_eq!(features.encode(), golden);
    assert_eq!(Features::decode(&golden), Ok(features));
}

#[test]
fn the_longest_encoding_is_max_bytes() {
    let mut features = Features::default();
    for n in 0..101 {
        features.fold(&ItemId::new(&format!("{n:064}")).unwrap(), EventKind::View, n, 1.0);
    }
    assert_eq!(features.encode().len(), Features::MAX_BYTES);
    // One row of the store.
    const { assert!(Features::MAX_BYTES < 1 << 16) }
}

#[test]
fn bytes_that_no_features_have_are_refused() {
    let features = folded(&[(item(1), EventKind::View, 5, 1.0), (item(2), EventKind::View, 4, 1.0)]);
    let good = features.encode().to_vec();
    for cut in 0..good.len() {
        assert_eq!(Features::decode(&good[..cut]), Err(BadFeatures::Truncated), "cut at {cut}");
    }
    let with = |at: usize, bytes: &[u8]| {
        let mut wrong = good.clone();
        wrong[at..at + bytes.len()].copy_from_slice(bytes);
        Features::decode(&wrong).unwrap_err()
    };
    assert_eq!(Features::decode(&[good.clone(), vec![0]].concat()), Err(BadFeatures::TrailingBytes));
    assert_eq!(with(0, &[2]), BadFeatures::Version(2));
    assert_eq!(with(1, &[1]), BadFeatures::Counts);
    assert_eq!(with(33, &[101]), BadFeatures::TooManyItems(101));
    assert_eq!(with(34, &[3]), BadFeatures::Order);
    for strength in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(with(42, &strength.to_le_bytes()), BadFeatures::Strength);
    }
    assert_eq!(with(46, &[0]), BadFeatures::ItemId);
    assert_eq!(with(47, &[7]), BadFeatures::ItemId);
    assert_eq!(with(47, &[0xff]), BadFeatures::ItemId);
    assert_eq!(with(48, b"2"), BadFeatures::Order, "the same item twice");
}

proptest! {
    /// Random bytes, and valid features with a few bytes changed: decoding never panics, and what it accepts encodes to the same bytes.
    #[test]
    fn decoding_accepts_only_what_encoding_writes(
        bytes in vec(any::<u8>(), 0..200), seed: u64, changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(0..150);
        let mut valid = folded(&actions(&mut rng, count, 120)).encode().to_vec();
        let decoded = Features::decode(&valid).unwrap();
        prop_assert_eq!(decoded.encode(), &valid[..]);
        for (at, byte) in changes {
            let at = at.index(valid.len());
            valid[at] = byte;
        }
        for bytes in [bytes, valid] {
            if let Ok(features) = Features::decode(&bytes) {
                prop_assert_eq!(features.encode(), bytes);
                let distinct: HashSet<&str> = features.window().map(|(id, _)| id).collect();
                prop_assert_eq!(distinct.len(), features.window().len());
            }
        }
    }
}
