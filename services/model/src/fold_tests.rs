use std::{collections::BTreeMap, num::NonZero};

use contract::EventKind;
use proptest::{prelude::*, sample::Index};
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::{
    dataset::{Dataset, DatasetBuilder},
    features::Features,
    neighbours::{NEIGHBOURS_KEPT, NeighbourModel},
    parse::{BadRows, parse},
    quality::{QualityReport, judge, movielens},
};

const DAY: i64 = 86_400_000;
const ONE: NonZero<usize> = NonZero::<usize>::MIN;
const TWO: NonZero<usize> = NonZero::new(2).unwrap();

fn segments() -> Vec<SegmentId> {
    SegmentId::all().collect()
}

fn all_of(fold: &Fold) -> Vec<PublishedSegment> {
    SegmentId::all().filter_map(|segment| fold.publish(segment)).collect()
}

fn dataset(events: &[(u8, u8, i64, f32)]) -> Dataset {
    let mut b = DatasetBuilder::default();
    for &(user, item, at_ms, weight) in events {
        b.push(&user.to_string(), &item.to_string(), EventKind::View, at_ms, weight).unwrap();
    }
    b.finish().0
}

/// Each log's events with their arrival numbers, which are those of `Fold::of`.
fn logs(data: &Dataset) -> Vec<Vec<(u64, Event)>> {
    let mut logs = vec![Vec::new(); 16];
    for e in &data.events {
        let (user_id, item_id) = (data.users[e.user as usize].clone(), data.items[e.item as usize].clone());
        let event = Event { user_id, item_id, kind: e.kind, at_ms: e.at_ms, weight: e.weight };
        let log = &mut logs[shard_of(event.user_id.as_str()).index()];
        log.push((log.len() as u64 + 1, event));
    }
    logs
}

/// Reads the logs in batches of random logs and lengths. A fifth of the batches are read again, as after a failure.
fn stream(logs: &[Vec<(u64, Event)>], held: &[SegmentId], seed: u64) -> Fold {
    let mut random = StdRng::seed_from_u64(seed);
    let mut fold = Fold::new(held.iter().copied());
    let mut next = vec![0; logs.len()];
    let longest = random.random_range(1..=200);
    while let Some(left) = (0..16).filter(|&log| next[log] < logs[log].len()).min_by_key(|_| random.random::<u32>()) {
        let end = logs[left].len().min(next[left] + random.random_range(1..=longest));
        let again = if random.random_bool(0.2) { 2 } else { 1 };
        for time in 0..again {
            for (arrival, event) in &logs[left][next[left]..end] {
                assert_eq!(fold.add(event, *arrival), time == 0);
            }
        }
        next[left] = end;
    }
    fold
}

fn in_order_of_time(data: &Dataset) -> Dataset {
    let mut sorted = data.clone();
    let key = |e: &crate::Interaction| (e.at_ms, data.items[e.item as usize].clone(), e.kind);
    sorted.events.sort_by_cached_key(key);
    sorted
}

/// The definition, with real numbers and without any cleverness: visitors, and the sums of pairs.
fn by_definition(data: &Dataset) -> (BTreeMap<ItemId, f64>, BTreeMap<(ItemId, ItemId), f64>) {
    let (mut visitors, mut pairs) = (BTreeMap::new(), BTreeMap::new());
    let mut windows: BTreeMap<UserId, Vec<(i64, ItemId, f32)>> = BTreeMap::new();
    for e in &data.events {
        let (user, item) = (&data.users[e.user as usize], &data.items[e.item as usize]);
        let window = windows.entry(user.clone()).or_default();
        if let Some(known) = window.iter_mut().find(|known| known.1 == *item) {
            known.0 = known.0.max(e.at_ms);
            known.2 = known.2.max(e.weight);
            window.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
            continue;
        }
        window.push((e.at_ms, item.clone(), e.weight));
        window.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        window.truncate(Features::MAX_ITEMS);
        let Some(place) = window.iter().position(|known| known.1 == *item) else { continue };
        *visitors.entry(item.clone()).or_default() += 1.0;
        for (other_place, other) in window.iter().enumerate().filter(|(at, _)| *at != place) {
            let days = (e.at_ms - other.0).abs() as f64 / DAY as f64;
            let gap = 0.5_f64.powf(place.abs_diff(other_place) as f64 / 10.0) / (1.0 + days / 30.0);
            let amount = gap * f64::from(e.weight).powf(0.25) * f64::from(other.2).powf(0.25);
            *pairs.entry((item.clone(), other.1.clone())).or_default() += amount;
            *pairs.entry((other.1.clone(), item.clone())).or_default() += amount;
        }
    }
    (visitors, pairs)
}

fn events(items: u8, len: usize) -> impl Strategy<Value = Vec<(u8, u8, i64, f32)>> {
    // Few times: many events have the same.
    prop::collection::vec((0_u8..12, 0..items, (0_i64..40).prop_map(|at| at * 3 * DAY), 0.1_f32..8.0), 0..len)
}

proptest! {
    #[test]
    fn a_stream_equals_the_batch_however_the_logs_are_mixed(
        events in events(30, 300),
        seed: u64,
        held in prop::collection::vec(any::<Index>(), 0..16),
        threads in 1_usize..20,
    ) {
        let data = dataset(&events);
        let batch = Fold::of(&data, &segments(), NonZero::new(threads).unwrap());
        let streamed = stream(&logs(&data), &segments(), seed);
        prop_assert_eq!(all_of(&streamed), all_of(&batch));
        // A worker that holds some segments publishes the same rows.
        let held: Vec<SegmentId> = held.iter().map(|index| *index.get(&segments())).collect();
        let some = stream(&logs(&data), &held, seed ^ 1);
        for segment in SegmentId::all() {
            prop_assert_eq!(some.publish(segment), held.contains(&segment).then(|| batch.publish(segment).unwrap()));
        }
    }

    #[test]
    fn any_version_is_the_fold_of_its_prefixes(events in events(30, 200), ends in prop::array::uniform16(any::<Index>()), seed: u64) {
        let data = dataset(&events);
        let mut whole = logs(&data);
        let mut prefixes = whole.clone();
        for (log, end) in prefixes.iter_mut().zip(ends) {
            log.truncate(end.index(log.len() + 1));
        }
        // One process stops at the version and publishes; another one publishes earlier versions on its way.
        let stopped = stream(&prefixes, &segments(), seed);
        let mut passing = Fold::new(segments());
        for (log, prefix) in whole.iter_mut().zip(&prefixes).rev() {
            for (arrival, event) in log.iter().take(prefix.len()) {
                passing.add(event, *arrival);
                passing.publish(SegmentId::all().next().unwrap());
            }
        }
        prop_assert_eq!(stopped.version(), passing.version());
        prop_assert_eq!(all_of(&stopped), all_of(&passing));
    }

    #[test]
    fn scores_are_the_definition(events in events(12, 250)) {
        let data = dataset(&events);
        let (visitors, pairs) = by_definition(&data);
        let published = all_of(&Fold::of(&data, &segments(), ONE));
        let rows: Vec<&PublishedRow> = published.iter().flat_map(|segment| &segment.rows).collect();
        prop_assert_eq!(rows.iter().map(|row| row.neighbours.len()).sum::<usize>(), pairs.len());
        for row in rows {
            prop_assert!(row.neighbours.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            for (other, score) in &row.neighbours {
                let counts = (visitors[&row.item] + 2.0) * (visitors[other] + 2.0);
                let want = pairs[&(row.item.clone(), other.clone())] / counts.sqrt();
                prop_assert!((f64::from(*score) - want).abs() < 1e-5 * want, "{score} instead of {want}");
            }
        }
    }
}

#[test]
fn rows_are_in_their_segment_sorted_and_short() {
    let mut fold = Fold::new(segments());
    let (user_id, kind) = (UserId::new("u").unwrap(), EventKind::View);
    for n in 0_u8..150 {
        let event = Event {
            user_id: user_id.clone(),
            item_id: ItemId::new(&format!("i{n}")).unwrap(),
            kind,
            at_ms: i64::from(n),
            weight: 1.0,
        };
        assert!(fold.add(&event, u64::from(n) + 1));
    }
    let published = all_of(&fold);
    assert_eq!(published.iter().map(|segment| segment.rows.len()).sum::<usize>(), 150);
    for segment in &published {
        assert!(segment.rows.windows(2).all(|pair| pair[0].item < pair[1].item));
        assert!(segment.rows.iter().all(|row| segment_of(row.item.as_str()) == segment.segment));
        assert!(segment.rows.iter().all(|row| row.neighbours.len() <= NEIGHBOURS_KEPT));
        assert_eq!((segment.users, segment.events), (1, 150));
    }
    // 99 others when it came, and 99 after it: the nearest are kept, equal ones in order of id.
    let i100 = published.iter().flat_map(|segment| &segment.rows).find(|row| row.item.as_str() == "i100").unwrap();
    let near: Vec<&str> = i100.neighbours.iter().take(4).map(|(id, _)| id.as_str()).collect();
    assert_eq!((near, i100.neighbours.len()), (vec!["i101", "i99", "i102", "i98"], NEIGHBOURS_KEPT));
}

#[test]
fn parts_with_one_log_in_common_are_refused() {
    let data = dataset(&[(1, 1, 0, 1.0), (1, 2, 0, 1.0)]);
    let mut fold = Fold::of(&data, &segments(), ONE);
    let before = all_of(&fold);
    assert_eq!(fold.merge(fold.clone()), Err(Overlap(shard_of("1").index())));
    assert_eq!(all_of(&fold), before);
}

#[test]
fn a_log_may_leave_numbers_out() {
    let log = ShardId::all().nth(3).unwrap();
    let mut fold = Fold::new([]);
    fold.pass(log, 9);
    fold.pass(log, 5);
    assert_eq!(fold.version().position(log), 9);
}

#[test]
fn the_model_of_segments_ranks_popular_items_across_them() {
    let mut events: Vec<(u8, u8, i64, f32)> = (0..12).map(|user| (user, 7, 0, 1.0)).collect();
    events.extend([(0, 8, 90 * DAY, 1.0), (1, 8, 90 * DAY, 1.0), (0, 9, 90 * DAY, 1.0)]);
    let data = dataset(&events);
    let model = NeighbourModel::from_segments(&all_of(&Fold::of(&data, &segments(), ONE)));
    let popular: Vec<(&str, f32)> =
        model.popular().iter().map(|&(item, score)| (model.item(item).unwrap().as_str(), score)).collect();
    // 12 events, three half-lives ago.
    assert_eq!(popular, [("8", 2.0), ("7", 1.5), ("9", 1.0)]);
    assert_eq!(model.built_from().events, 15);
    assert_eq!(NeighbourModel::from_segments(&[]).items().len(), 0);
}

/// Compares the fold of the whole file, a stream of it, and the protocol of `leave_last_out`. Which items are held out depends on the
/// order of the file, so only the training data is put in order.
fn check_movielens(order: fn(&Dataset) -> Dataset, at_least: f64) {
    let Some(file) = movielens() else { return };
    let (data, _) = parse(file, BadRows::Refuse).unwrap();
    let ordered = order(&data);
    let batch = Fold::of(&ordered, &segments(), TWO);
    assert!(all_of(&batch) == all_of(&stream(&logs(&ordered), &segments(), 19)));
    assert!(NeighbourModel::build(&ordered, TWO) == NeighbourModel::from_segments(&all_of(&batch)));
    drop(batch);

    let build = |train: &Dataset| NeighbourModel::from_segments(&all_of(&Fold::of(&order(train), &segments(), TWO)));
    let QualityReport { model, popularity, .. } = judge(&data, build, |_| ()).unwrap();
    println!(
        "ml-100k, folded: NDCG@10 {:.4} ± {:.4}, popularity {:.4}",
        model.ndcg, model.ndcg_standard_error, popularity.ndcg
    );
    assert!(model.ndcg >= at_least && model.ndcg >= 2.0 * popularity.ndcg, "{model:?}, {popularity:?}");
}

#[test]
fn movielens_in_order_of_the_file() {
    // About one standard error below the model that was built from whole histories.
    check_movielens(Dataset::clone, 0.1156 - 0.009);
}

#[test]
fn movielens_in_order_of_time() {
    check_movielens(in_order_of_time, 0.1156 - 0.009);
}

#[test]
fn a_segment_that_is_released_is_not_published_and_the_others_stay() {
    let events: Vec<_> = (0..200_u8).map(|n| (n % 23, n % 17, i64::from(n) * DAY, 1.0)).collect();
    let data = dataset(&events);
    let whole = Fold::of(&data, &segments(), ONE);
    let mut fold = whole.clone();
    let gone = segments()[3];
    fold.release(gone);
    for segment in segments() {
        let expected = if segment == gone { None } else { whole.publish(segment) };
        assert_eq!(fold.publish(segment), expected);
    }
}
