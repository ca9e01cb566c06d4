use std::collections::{BTreeMap, HashSet};

use contract::{Event, EventKind, ItemId, ShardId, UserId, shard_of};
use runtime::telemetry::Span;
use stores::ImportEvent;

use crate::Servers;

fn event(user: &str, item: &str, at_ms: i64) -> Event {
    Event { user_id: user.parse().unwrap(), item_id: item.parse().unwrap(), kind: EventKind::View, at_ms, weight: 1.5 }
}

async fn works_on(instances: usize) {
    let Some(servers) = Servers::start(instances).await else { return };
    let store = servers.store();
    let users: Vec<UserId> = (0..200).map(|n| UserId::new(&format!("user {n} ")).unwrap()).collect();
    let mut log: Vec<Event> = users
        .iter()
        .enumerate()
        .flat_map(|(n, user)| (0..n % 5).map(move |k| event(user.as_str(), &format!("i{k}"), k as i64)))
        .collect();
    store.append(&log, 7, &Span::NONE).await.unwrap();
    // An event that is sent twice counts once.
    store.append(&log, 8, &Span::NONE).await.unwrap();
    assert!(store.create_user(&users[0], 9, &Span::NONE).await.unwrap());
    assert!(!store.create_user(&users[1], 9, &Span::NONE).await.unwrap());

    for (n, user) in users.iter().enumerate() {
        let history = store.history(user, None, &Span::NONE).await.unwrap();
        let times: Vec<i64> = history.iter().map(|event| event.at_ms).collect();
        assert_eq!(times, (0..n as i64 % 5).rev().collect::<Vec<_>>(), "newest first, {user}");
        assert!(history.iter().all(|e| e.kind == EventKind::View && e.weight == 1.5));
    }
    assert_eq!(store.history(&"nobody".parse().unwrap(), None, &Span::NONE).await.unwrap(), []);
    // Ids are compared as bytes: trailing spaces and case matter.
    assert_eq!(store.history(&"user 4".parse().unwrap(), None, &Span::NONE).await.unwrap(), []);
    assert_eq!(store.history(&"USER 4 ".parse().unwrap(), None, &Span::NONE).await.unwrap(), []);

    let mut seen = HashSet::new();
    for shard in ShardId::all() {
        store.each_user(shard, |id| assert!(seen.insert(id.to_vec()))).await.unwrap();
        let active = store.most_active(shard, 3).await.unwrap();
        assert!(active.len() <= 3 && active.iter().all(|user| shard_of(user.as_str()) == shard));
        let histories = store.histories(shard, &active, stores::Turn::default()).await.unwrap();
        for (user, history) in histories {
            assert_eq!(history, store.history(&user, None, &Span::NONE).await.unwrap());
        }
    }
    // `append` creates no users without events; `create_user` created the first one.
    assert_eq!(seen.len(), users.iter().enumerate().filter(|(n, _)| n % 5 > 0).count() + 1);

    log.sort_by(|a, b| (&a.user_id, a.at_ms).cmp(&(&b.user_id, b.at_ms)));
    let mut read: BTreeMap<(UserId, i64), ItemId> = BTreeMap::new();
    for shard in ShardId::all() {
        store
            .each_event(shard, |user, item, _, at_ms, _| assert!(read.insert((user, at_ms), item).is_none()))
            .await
            .unwrap();
    }
    let written = log.into_iter().map(|event| ((event.user_id, event.at_ms), event.item_id));
    assert_eq!(read, written.collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_shards_on_one_server() {
    works_on(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_shards_on_many_servers() {
    works_on(crate::MANY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_is_repeatable() {
    let Some(servers) = Servers::start(1).await else { return };
    let store = servers.store();
    let users: Vec<UserId> = (0..500).map(|n| UserId::new(&format!("u'{n}\\")).unwrap()).collect();
    let item: ItemId = "it\"em;--".parse().unwrap();
    let rows: Vec<ImportEvent<'_>> = users
        .iter()
        .flat_map(|user_id| {
            let item_id = &item;
            (0..10).map(move |at_ms| ImportEvent { user_id, item_id, kind: EventKind::Rating, at_ms, weight: 4.5 })
        })
        .collect();
    let first = store.import(rows.clone(), |_| ()).await.unwrap();
    assert_eq!((first.added, first.present), (5000, 0));
    let second = store.import(rows, |_| ()).await.unwrap();
    assert_eq!((second.added, second.present), (0, 5000));
    let history = store.history(&users[7], None, &Span::NONE).await.unwrap();
    assert_eq!(history.len(), 10);
    assert!(history.iter().all(|event| event.item_id == item && event.weight == 4.5));
    let active = store.most_active(shard_of(users[7].as_str()), 1000).await.unwrap();
    assert!(active.contains(&users[7]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_versioned_and_loaded_whole() {
    let Some(servers) = Servers::start(1).await else { return };
    let store = servers.store();
    assert_eq!(store.latest_model().await.unwrap(), None);
    let rows: Vec<(ItemId, Vec<u8>)> =
        (0..1200_u32).map(|n| (ItemId::new(&format!("i{n:04}")).unwrap(), n.to_le_bytes().repeat(50))).collect();
    let mut versions = Vec::new();
    for n in 0..4_u8 {
        versions.push(store.save_model(&[n], &rows, 0).await.unwrap());
    }
    assert!(versions.is_sorted_by(|a, b| a < b));
    let newest = store.latest_model().await.unwrap().unwrap();
    assert_eq!((newest.version, newest.header), (versions[3], vec![3]));
    let mut read = newest.rows;
    read.sort();
    assert_eq!(read, rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_run_concurrently_and_again() {
    let Some(servers) = Servers::start(2).await else { return };
    let all = futures::future::join_all((0..8).map(|_| stores::migrate(&servers.config))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let store = servers.store();
    store.create_user(&"u".parse().unwrap(), 0, &Span::NONE).await.unwrap();
    stores::migrate(&servers.config).await.unwrap();
    assert!(!store.create_user(&"u".parse().unwrap(), 0, &Span::NONE).await.unwrap(), "a repeat keeps the data");
}

/// Concurrent migrations of empty servers: the schemas that the first one creates must not disturb the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_migrations_may_race() {
    let Some(servers) = Servers::start_bare(1).await else { return };
    let all = futures::future::join_all((0..6).map(|_| stores::migrate(&servers.config))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
}

/// Batches with the same events in opposite orders, new and known ones, do not deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_in_opposite_orders_do_not_deadlock() {
    const WRITERS: usize = 4;
    const ROUNDS: i64 = 12;
    /// Events of a user in a round; half of them are from the round before.
    const EACH: i64 = 56;
    let Some(servers) = Servers::start(1).await else { return };
    let store = servers.store();
    // Users of one shard: each batch is one transaction.
    let users: Vec<String> =
        (0..).map(|n| format!("u{n}")).filter(|user| shard_of(user).index() == 5).take(4).collect();
    for round in 0..ROUNDS {
        let of_user = |user| (0..EACH).map(move |k| event(user, &format!("i{}", k % 7), round * EACH / 2 + k));
        let events: Vec<Event> = users.iter().flat_map(|user| of_user(user)).collect();
        let writers = (0..WRITERS).map(|n| {
            // Two writers send all events, two send every third.
            let mut events: Vec<Event> = events.iter().step_by(1 + n / 2 * 2).cloned().collect();
            if n % 2 == 1 {
                events.reverse();
            }
            let store = store.clone();
            tokio::spawn(async move { store.append(&events, 0, &Span::NONE).await })
        });
        for written in futures::future::join_all(writers).await {
            written.unwrap().unwrap();
        }
    }
    for user in &users {
        let mut log = Vec::new();
        let shard = shard_of(user);
        store
            .each_event(shard, |of, _, _, at_ms, _| {
                if of.as_str() == user {
                    log.push(at_ms)
                }
            })
            .await
            .unwrap();
        log.sort_unstable();
        assert_eq!(log, (0..(ROUNDS + 1) * EACH / 2).collect::<Vec<i64>>(), "each event once");
    }
}
