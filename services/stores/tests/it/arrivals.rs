//! Every row of the log gets an arrival number, and readers go by it.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use contract::{Event, EventKind, ShardId, UserId, shard_of};
use futures::future::join_all;
use prometheus::Registry;
use runtime::telemetry::Span;
use sqlx::{AssertSqlSafe, Executor, MySqlConnection, Row};
use stores::{ArrivedEvent, BatchRefused, EventBatch, EventKey, EventPosition, FeaturesRow, ImportEvent, Store};

use crate::{
    Servers,
    relay::{BLACK_HOLES, Relay, until},
};

const PAGE: usize = 7;
const LIMIT: Duration = Duration::from_secs(60);

fn shard() -> ShardId {
    shard_of("u")
}

fn user(n: usize) -> UserId {
    (0..).map(|n| format!("u{n}")).filter(|id| shard_of(id) == shard()).nth(n).unwrap().parse().unwrap()
}

fn event(user: &UserId, item: &str, at_ms: i64) -> Event {
    let item_id = item.parse().unwrap();
    Event { user_id: user.clone(), item_id, kind: EventKind::Rating, at_ms, weight: 0.1 }
}

async fn import(store: &Store, events: &[Event]) -> u64 {
    store.import(events.iter().map(ImportEvent::of).collect(), |_| ()).await.unwrap().added
}

/// Sends events as a worker does, and reads the position again until they are written. No event is in the log.
async fn write_batch(store: &Store, events: &[Event]) {
    loop {
        let position = store.event_position(shard()).await.unwrap();
        match write_at(store, position, events).await {
            Ok(()) => return,
            Err(BatchRefused::Position { .. } | BatchRefused::Features) => {}
            Err(BatchRefused::Fence(_)) => unreachable!("nobody else sets a fence"),
        }
    }
}

async fn write_at(store: &Store, position: EventPosition, events: &[Event]) -> Result<(), BatchRefused> {
    let EventPosition { next_offset: from_offset, arrival_base } = position;
    let numbers = arrival_base + from_offset..;
    let events: Vec<ArrivedEvent> =
        numbers.zip(events).map(|(arrival, event)| ArrivedEvent { event: event.clone(), arrival }).collect();
    let mut users: BTreeMap<UserId, FeaturesRow> = BTreeMap::new();
    let ids: Vec<UserId> = events.iter().map(|arrived| arrived.event.user_id.clone()).collect();
    let stored = store.features_of(shard(), &ids, stores::Turn::default()).await.unwrap();
    for ArrivedEvent { event, arrival } in &events {
        let user_id = event.user_id.clone();
        let continues = stored.contains_key(&user_id);
        let new = FeaturesRow { user_id: user_id.clone(), arrival: 0, bytes: vec![1], added: 0, continues };
        let row = users.entry(user_id).or_insert(new);
        (row.arrival, row.added) = (*arrival, row.added + 1);
    }
    let next_offset = from_offset + events.len() as u64;
    let batch = EventBatch { from_offset, next_offset, arrival_base, events, users: users.into_values().collect() };
    store.write_batch(shard(), &batch, 0, 1, 1).await.unwrap()
}

/// The whole log in pages.
async fn log(store: &Store, page: usize) -> Vec<ArrivedEvent> {
    let mut log: Vec<ArrivedEvent> = Vec::new();
    loop {
        let after = log.last().map_or(0, |last| last.arrival);
        let more = store.log_after(shard(), after, page).await.unwrap();
        assert!(more.len() <= page);
        if more.is_empty() {
            return log;
        }
        log.extend(more);
    }
}

fn numbers(log: &[ArrivedEvent]) -> Vec<u64> {
    log.iter().map(|arrived| arrived.arrival).collect()
}

async fn run(connection: &mut MySqlConnection, sql: &str) {
    let sql = sql.replace("SHARD", &shard().schema());
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_follow_the_order_of_the_input_and_of_the_writes() {
    const IMPORTED: u64 = 12_000;
    let Some(servers) = Servers::start(1).await else { return };
    let (store, [a, b]) = (servers.store(), [user(0), user(1)]);
    // Neither by user nor by time. More than one transaction.
    let mut written: Vec<Event> =
        (0..IMPORTED as usize).map(|n| event([&b, &a][n % 2], "i", (n as i64 * 7919) % 10_007)).collect();
    assert_eq!(import(&store, &written).await, IMPORTED);
    assert_eq!(
        store.event_position(shard()).await.unwrap(),
        EventPosition { next_offset: 0, arrival_base: IMPORTED + 1 }
    );
    let appended: Vec<Event> = [9, 3, 5].map(|at_ms| event(&b, "appended", at_ms)).to_vec();
    store.append(&appended, 0, &Span::NONE).await.unwrap();
    let sent: Vec<Event> = [8, 2].map(|at_ms| event(&a, "sent", at_ms)).to_vec();
    write_batch(&store, &sent).await;
    let last = [event(&b, "last", 1), event(&a, "last", 0)];
    store.append(&last, 0, &Span::NONE).await.unwrap();
    written.extend([appended, sent, last.to_vec()].concat());
    let read = log(&store, 1_000).await;
    assert_eq!(numbers(&read), (1..=written.len() as u64).collect::<Vec<u64>>());
    assert!(read.iter().map(|arrived| &arrived.event).eq(&written));
    assert_eq!(
        store.event_position(shard()).await.unwrap(),
        EventPosition { next_offset: 2, arrival_base: IMPORTED + 6 },
        "2 came through Kafka, and 5 more did not"
    );
    // What the log has keeps its number, and what is new gets one above all others.
    assert_eq!(import(&store, &written).await, 0);
    store.append(&written[..50], 0, &Span::NONE).await.unwrap();
    assert!(log(&store, 4_000).await == read);
    let new = event(&a, "new", 4);
    store.append(&[written[3].clone(), new.clone()], 0, &Span::NONE).await.unwrap();
    let tail = store.log_after(shard(), IMPORTED + 7, PAGE).await.unwrap();
    assert_eq!(tail.iter().map(|arrived| &arrived.event).collect::<Vec<_>>(), [&new]);
    assert!(store.log_after(shard(), u64::MAX, PAGE).await.unwrap().is_empty());
}

/// The batch was numbered before an append took these numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_an_outdated_base_is_refused() {
    let Some(servers) = Servers::start(1).await else { return };
    let (store, user) = (servers.store(), user(0));
    let before = store.event_position(shard()).await.unwrap();
    store.append(&[event(&user, "appended", 1)], 0, &Span::NONE).await.unwrap();
    let now = EventPosition { next_offset: 0, arrival_base: 2 };
    let sent = [event(&user, "sent", 2)];
    assert_eq!(write_at(&store, before, &sent).await, Err(BatchRefused::Position { stored: now }));
    assert_eq!(write_at(&store, now, &sent).await, Ok(()));
    assert_eq!(numbers(&log(&store, PAGE).await), [1, 2]);
}

/// Each row that a reader finds is the next one of the final log: it never goes past a row that comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_misses_nothing_while_others_write() {
    const ROUNDS: i64 = 25;
    let Some(mut servers) = Servers::start(1).await else { return };
    servers.config.pool_size = 8;
    let (store, users) = (servers.store(), [user(0), user(1), user(2)]);
    let write = async |n: usize, name: &str| {
        for round in 0..ROUNDS {
            let new = (0..5).map(|k| event(&users[(k + n) % 3], name, -(round * 5 + k as i64)));
            let mut events: Vec<Event> = new.collect();
            if name != "batch" {
                // Two writers of one kind also write each other's events.
                events.push(event(&users[0], &name[..6], round / 2));
            }
            match &name[..5] {
                "batch" => write_batch(&store, &events).await,
                "appen" => store.append(&events, 0, &Span::NONE).await.unwrap(),
                _ => drop(import(&store, &events).await),
            }
        }
    };
    let names = ["append-0", "append-1", "import-0", "import-1", "batch"].into_iter().enumerate();
    let writers = join_all(names.map(|(n, name)| write(n, name)));
    let read_on = async |read: &mut Vec<ArrivedEvent>| {
        let after = read.last().map_or(0, |last| last.arrival);
        read.extend(store.log_after(shard(), after, PAGE).await.unwrap());
    };
    let mut read: Vec<ArrivedEvent> = Vec::new();
    let mut writers = pin!(writers);
    loop {
        // The reads and the writes go on at once: a read that is dropped is made again.
        tokio::select! {
            _ = &mut writers => break,
            () = read_on(&mut read) => {}
        }
    }
    let last = log(&store, 1_000).await;
    while read.len() < last.len() {
        read_on(&mut read).await;
    }
    assert!(read == last, "the reader has {} of {} rows", read.len(), last.len());
    assert!(numbers(&last).is_sorted_by(|a, b| a < b));
    let mut keys: Vec<EventKey> = last.iter().map(|arrived| EventKey::of(&arrived.event)).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len() as i64, ROUNDS * 5 * 5 + 2 * (ROUNDS + 1) / 2, "each event once");
    let mut at_once = Vec::new();
    store.each_event(shard(), |user_id, _, _, at_ms, _| at_once.push((user_id, at_ms))).await.unwrap();
    let paged = last.into_iter().map(|arrived| (arrived.event.user_id, arrived.event.at_ms));
    assert!(paged.eq(at_once), "the log at once is the log by pages");
}

/// The process vanishes while the server works on its append: the server completes it or rolls it back, and the next
/// writer waits for no lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_gone_leaves_no_lock() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let direct = servers.store();
    let relay = Relay::start(servers.servers[0].port).await;
    servers.config.instances[0].address = relay.address.to_string();
    servers.registry = Registry::new();
    let gone = servers.store();
    gone.open(1, LIMIT).await.unwrap();
    let (mut holder, mut other) = (servers.connect().await, servers.connect().await);
    run(&mut holder, "BEGIN; SELECT * FROM SHARD.users FOR UPDATE").await;
    let events = [event(&user(0), "i", 1), event(&user(1), "i", 1)];
    let writing = tokio::spawn(async move { gone.append(&events, 0, &Span::NONE).await });
    until("the append waits for the lock", async || {
        let lock = format!("SELECT * FROM {}.ownership FOR UPDATE NOWAIT", shard().schema());
        other.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await.is_err()
    })
    .await;
    relay.vanish(BLACK_HOLES[0]).await;
    run(&mut holder, "ROLLBACK").await;
    direct.append(&[event(&user(2), "i", 1)], 0, &Span::NONE).await.unwrap();
    let numbers = numbers(&log(&direct, PAGE).await);
    assert!([vec![1], vec![1, 2, 3]].contains(&numbers), "all of it or nothing: {numbers:?}");
    assert!(writing.await.unwrap().is_err(), "its answer is lost");
}

/// Rows of earlier versions, as the migration finds them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_migration_numbers_rows_without_a_number() {
    let Some(servers) = Servers::start(1).await else { return };
    let (store, mut connection) = (servers.store(), servers.connect().await);
    let (a, b) = (user(0), user(1));
    let old = [event(&b, "old", 3), event(&a, "old", 5), event(&a, "old", 4), event(&b, "older", 3)];
    import(&store, &old).await;
    run(&mut connection, "UPDATE SHARD.behaviour SET arrival = 0; UPDATE SHARD.ownership SET arrival_base = 1").await;
    write_batch(&store, &[event(&a, "sent", 1), event(&b, "sent", 1)]).await;
    run(&mut connection, "DELETE FROM SHARD._sqlx_migrations WHERE version = 5").await;
    for _ in 0..2 {
        stores::migrate(&servers.config).await.unwrap();
        let read = log(&store, PAGE).await;
        assert_eq!(numbers(&read), [1, 2, 3, 4, 5, 6]);
        let of: Vec<(&str, i64)> =
            read.iter().map(|arrived| (arrived.event.item_id.as_str(), arrived.event.at_ms)).collect();
        assert_eq!(of, [("sent", 1), ("sent", 1), ("old", 3), ("older", 3), ("old", 4), ("old", 5)]);
        assert_eq!(store.event_position(shard()).await.unwrap(), EventPosition { next_offset: 2, arrival_base: 5 });
    }
    let row = connection
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(format!(
            "SELECT COUNT(*) FROM {}.behaviour WHERE arrival = 0",
            shard().schema()
        ))))
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
    store.append(&[event(&a, "next", 0)], 0, &Span::NONE).await.unwrap();
    assert_eq!(numbers(&log(&store, PAGE).await), [1, 2, 3, 4, 5, 6, 7]);
}
