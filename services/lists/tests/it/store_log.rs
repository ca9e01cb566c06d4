//! The fold of the store's logs equals the fold of the dataset.

use std::num::NonZero;

use contract::{Event, EventKind, SegmentId, ShardId, VersionVector, shard_of};
use launcher::{Stack, mariadb};
use lists::{LogError, advance, fold_log};
use model::{Dataset, Fold, GenerateParams, PublishedSegment};
use prometheus::Registry;
use runtime::telemetry::Span;
use stores::{ImportEvent, Store, StoreConfig, StoreMetrics};

/// `None`: no server here.
async fn start() -> Option<(Stack, Store)> {
    if !launcher::testing::have(&["mariadbd|mysqld"]) {
        return None;
    }
    let mut stack = Stack::create("test-segments").unwrap();
    let mysql = mariadb::start(&mut stack, "mysql", &mariadb::Options::default()).await.unwrap();
    let mut config = StoreConfig::spread_over(&[format!("127.0.0.1:{}", mysql.port)]);
    config.statement_timeout_ms = 60_000;
    stores::migrate(&config).await.unwrap();
    Some((stack, Store::new(config, &StoreMetrics::new(&Registry::new()).unwrap()).unwrap()))
}

/// More than a page of events in some logs.
fn dataset() -> Dataset {
    model::generate(&GenerateParams { users: 2_500, items: 300, clusters: 10, ..GenerateParams::default() }).unwrap()
}

async fn import(store: &Store, data: &Dataset) -> u64 {
    let row = |event: &model::Interaction| ImportEvent {
        user_id: &data.users[event.user as usize],
        item_id: &data.items[event.item as usize],
        kind: event.kind,
        at_ms: event.at_ms,
        weight: event.weight,
    };
    store.import(data.events.iter().map(row).collect(), |_| ()).await.unwrap().added
}

fn segments() -> Vec<SegmentId> {
    SegmentId::all().collect()
}

fn published(fold: &Fold) -> Vec<PublishedSegment> {
    SegmentId::all().filter_map(|segment| fold.publish(segment)).collect()
}

fn logs() -> impl Iterator<Item = ShardId> {
    ShardId::all()
}

fn event(user: &str, at_ms: i64) -> Event {
    let (user_id, item_id) = (user.parse().unwrap(), "late".parse().unwrap());
    Event { user_id, item_id, kind: EventKind::Cart, at_ms, weight: 0.1 }
}

/// The fold after the new events, of which there are so many.
async fn advanced(fold: Fold, store: &Store, new: u64) -> Fold {
    let before = fold.events();
    let (fold, read) = advance(fold, store).await.unwrap();
    read.unwrap();
    assert_eq!(fold.events() - before, new);
    fold
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_logs_of_a_store_fold_to_the_same_as_their_dataset() {
    let Some((_stack, store)) = start().await else { return };
    let data = dataset();
    assert_eq!(import(&store, &data).await, data.events.len() as u64);
    let expected = Fold::of(&data, &segments(), NonZero::new(2).unwrap());
    let fold = fold_log(&store, &segments(), None).await.unwrap();
    assert!(logs().any(|log| fold.version().position(log) > 2_000), "more than a page");
    assert_eq!(fold.version(), expected.version());
    assert!(published(&fold) == published(&expected));
    let version = *fold.version();
    let fold = advanced(fold, &store, 0).await;

    // Any version, also beside others that hold less or read further.
    let (mut positions, mut sum) = (*version.positions(), 0);
    for (n, position) in positions.iter_mut().enumerate() {
        *position = *position * n as u64 / 15;
        sum += *position;
    }
    let part = VersionVector::new(positions);
    let held = [SegmentId::new(3).unwrap()];
    let early = fold_log(&store, &held, Some(part)).await.unwrap();
    assert_eq!(*early.version(), part);
    assert_eq!(early.publish(held[0]).unwrap().events, sum);
    let early = advanced(early, &store, data.events.len() as u64 - sum).await;
    assert!(early.publish(held[0]) == fold.publish(held[0]));

    // A repeated import leaves numbers out, and events come after them.
    assert_eq!(import(&store, &data).await, 0);
    let fold = advanced(fold, &store, 0).await;
    assert_eq!(*fold.version(), version);
    let log = shard_of("newcomer");
    let gap = 2 * version.position(log);
    store.append(&[event("newcomer", 1), event("newcomer", 2)], 0, &Span::NONE).await.unwrap();
    let fold = advanced(fold, &store, 2).await;
    assert_eq!(fold.version().position(log), gap + 2);
    for until in [gap - 1, gap + 1] {
        let mut positions = version;
        positions.set(log, until);
        let fold = fold_log(&store, &held, Some(positions)).await.unwrap();
        assert_eq!(*fold.version(), positions);
        let events = data.events.len() as u64 + until.saturating_sub(gap);
        assert_eq!(fold.publish(held[0]).unwrap().events, events);
    }
    let mut beyond = version;
    beyond.set(log, gap + 3);
    let refused = fold_log(&store, &held, Some(beyond)).await.unwrap_err();
    assert!(
        matches!(refused, LogError::TooShort { shard, last, wanted } if (shard, last, wanted) == (log, gap + 2, gap + 3)),
        "{refused}"
    );
}
