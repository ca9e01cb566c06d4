//! Batches of events: all or nothing, once, and only by the owner of the shard.

use std::time::Duration;

use contract::{Event, EventKind, ShardId, UserId, shard_of};
use prometheus::Registry;
use runtime::telemetry::Span;
use sqlx::{AssertSqlSafe, Executor, MySqlConnection, Row};
use stores::{
    ArrivedEvent, BatchRefused, EventBatch, EventKey, EventPosition, FeaturesRow, ImportEvent, MAX_EPOCH_JUMP, Refused,
    Store, StoreError, StoredFeatures,
};

use crate::{
    Servers,
    relay::{BLACK_HOLES, Relay, until},
};

const EPOCH: u64 = 5;
const ME: u64 = u64::MAX;
const OTHER: u64 = 7;
/// Of a fence that is not expected to exceed it.
const LIMIT: Duration = Duration::from_secs(60);

fn shard() -> ShardId {
    shard_of("u")
}

/// Users of `shard()`. Ids are bytes: quotes and backslashes need no escaping.
fn user(n: usize) -> UserId {
    let mut ids = (0..).map(|n| format!("u'{n}\\")).filter(|id| shard_of(id) == shard());
    ids.nth(n).unwrap().parse().unwrap()
}

fn event(user_id: UserId, at_ms: i64) -> Event {
    Event { user_id, item_id: "it\"em;--".parse().unwrap(), kind: EventKind::Cart, at_ms, weight: 0.1 }
}

/// Offsets `from..from + users`: one event of each user, at the time of its offset.
fn batch(from: u64, users: usize) -> EventBatch {
    let events = (0..users)
        .map(|n| ArrivedEvent { event: event(user(n), (from + n as u64) as i64), arrival: 1 + from + n as u64 });
    let events: Vec<ArrivedEvent> = events.collect();
    let row = |arrived: &ArrivedEvent| FeaturesRow {
        user_id: arrived.event.user_id.clone(),
        arrival: arrived.arrival,
        bytes: vec![0, b'\'', 0xff, from as u8],
        added: 1,
        continues: from > 0,
    };
    let users = events.iter().map(row).collect();
    EventBatch { from_offset: from, next_offset: from + events.len() as u64, arrival_base: 1, events, users }
}

/// The refusal of a batch when the store has this offset.
fn expects(next_offset: u64) -> Result<(), BatchRefused> {
    Err(BatchRefused::Position { stored: EventPosition { next_offset, arrival_base: 1 } })
}

async fn write(store: &Store, batch: &EventBatch) -> Result<(), BatchRefused> {
    store.write_batch(shard(), batch, 99, EPOCH, ME).await.unwrap()
}

/// What the shard has: position, events of the log, users with their counts, features.
async fn content(store: &Store, connection: &mut MySqlConnection) -> (u64, Vec<(UserId, i64)>, u64, usize) {
    let mut log = Vec::new();
    store.each_event(shard(), |user_id, _, _, at_ms, _| log.push((user_id, at_ms))).await.unwrap();
    log.sort();
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(events), 0) AS UNSIGNED), (SELECT COUNT(*) FROM {0}.features) FROM {0}.users",
        shard().schema()
    );
    let row = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    let features: i64 = row.get(1);
    (store.event_position(shard()).await.unwrap().next_offset, log, row.get(0), features as usize)
}

async fn run(connection: &mut MySqlConnection, sql: &str) {
    let sql = sql.replace("SHARD", &shard().schema());
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_written_once_and_read_back() {
    let Some(mut servers) = Servers::start(1).await else { return };
    servers.config.pool_size = 1;
    let (store, mut connection) = (servers.store(), servers.connect().await);
    assert_eq!(store.event_position(shard()).await.unwrap(), EventPosition { next_offset: 0, arrival_base: 1 });
    store.fence(shard(), EPOCH, ME, LIMIT).await.unwrap().unwrap();
    let first = batch(0, 3);
    assert_eq!(write(&store, &first).await, Ok(()));
    let written = content(&store, &mut connection).await;
    let log: Vec<(UserId, i64)> = (0..3).map(|n| (user(n), n as i64)).collect();
    assert_eq!((written.0, written.2, written.3), (3, 3, 3));
    assert!(written.1.len() == 3 && log.iter().all(|logged| written.1.contains(logged)), "{written:?}");

    // The same batch again, as after an answer that was lost.
    assert_eq!(write(&store, &first).await, expects(3));
    assert_eq!(content(&store, &mut connection).await, written);
    // A gap, and an empty batch: messages that are not events.
    assert_eq!(write(&store, &batch(4, 1)).await, expects(3));
    let empty = EventBatch { from_offset: 3, next_offset: 5, arrival_base: 1, events: Vec::new(), users: Vec::new() };
    assert_eq!(write(&store, &empty).await, Ok(()));
    let none = EventBatch { from_offset: 5, ..empty };
    assert_eq!(write(&store, &none).await, Ok(()), "nothing changes, and nothing is refused");

    // Rows that the log has already change nothing.
    let mut second = batch(5, 2);
    second.events.push(ArrivedEvent { event: event(user(0), 0), arrival: 9 });
    second.users[0].added = 0;
    assert_eq!(write(&store, &second).await, Ok(()));
    let after = content(&store, &mut connection).await;
    assert_eq!((after.0, after.1.len(), after.2, after.3), (7, 5, 4, 3));
    let arrivals = format!("SELECT arrival FROM {}.behaviour ORDER BY arrival", shard().schema());
    let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(arrivals))).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<u64>>(), [1, 2, 3, 6, 7]);

    let users = [user(0), user(2), user(50)];
    let features = store.features_of(shard(), &users, stores::Turn::default()).await.unwrap();
    let stored = |arrival, last| StoredFeatures { arrival, bytes: vec![0, b'\'', 0xff, last] };
    assert_eq!(features.len(), 2);
    assert_eq!((&features[&user(0)], &features[&user(2)]), (&stored(6, 5), &stored(3, 0)));
    for (user_id, expected) in users.iter().zip([Some(stored(6, 5)), Some(stored(3, 0)), None]) {
        assert_eq!(store.features(user_id, None, &Span::NONE).await.unwrap(), expected, "{user_id}");
    }
    assert_eq!(store.features_of(shard(), &[], stores::Turn::default()).await.unwrap().len(), 0);

    // Features that were deleted since they were read, and a row that nobody expected.
    run(&mut connection, &format!("DELETE FROM SHARD.features WHERE arrival = {}", features[&user(0)].arrival)).await;
    let after = content(&store, &mut connection).await;
    let mut third = batch(7, 2);
    for continues in [[true, true], [false, false]] {
        third.users.iter_mut().zip(continues).for_each(|(row, continues)| row.continues = continues);
        assert_eq!(write(&store, &third).await, Err(BatchRefused::Features), "{continues:?}");
        assert_eq!(content(&store, &mut connection).await, after);
    }
    third.users[1].continues = true;
    assert_eq!(write(&store, &third).await, Ok(()));
    assert_eq!(content(&store, &mut connection).await.3, 3);
    assert_eq!(servers.count("store_connects_total"), 2, "one for fences, and no refusal closes the other one");
    let ownership = store.ownership(shard()).await.unwrap();
    assert_eq!((ownership.epoch, ownership.owner), (EPOCH, ME));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_read_is_one_command() {
    let Some(servers) = Servers::start(1).await else { return };
    let store = servers.store();
    write(&store, &batch(0, 3)).await.unwrap();
    let events: Vec<Event> = (0..100).map(|n| event(user(n % 5), n as i64)).collect();
    let candidates: Vec<&Event> = events.iter().collect();
    assert_eq!(servers.commands(async { drop(store.features(&user(0), None, &Span::NONE).await.unwrap()) }).await, 1);
    assert_eq!(servers.commands(async { drop(store.logged(shard(), &candidates).await.unwrap()) }).await, 1);
    let users: Vec<UserId> = (0..10).map(user).collect();
    assert_eq!(
        servers
            .commands(async { drop(store.features_of(shard(), &users, stores::Turn::default()).await.unwrap()) })
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_owner_of_the_fence_writes() {
    let Some(servers) = Servers::start(1).await else { return };
    let (store, mut connection) = (servers.store(), servers.connect().await);
    store.fence(shard(), EPOCH, ME, LIMIT).await.unwrap().unwrap();
    write(&store, &batch(0, 2)).await.unwrap();
    let before = content(&store, &mut connection).await;
    let next = batch(2, 2);
    for (epoch, owner, refused) in [
        (EPOCH - 1, ME, Refused::LaterEpoch { current: EPOCH }),
        (EPOCH, OTHER, Refused::OtherOwner { epoch: EPOCH, owner: ME }),
        (EPOCH + MAX_EPOCH_JUMP + 1, OTHER, Refused::EpochJump { current: EPOCH }),
    ] {
        let written = store.write_batch(shard(), &next, 0, epoch, owner).await.unwrap();
        assert_eq!(written, Err(BatchRefused::Fence(refused)));
        assert_eq!(content(&store, &mut connection).await, before);
    }
    // A later owner whose fence is not set yet sets it.
    assert_eq!(store.write_batch(shard(), &next, 0, EPOCH + 1, OTHER).await.unwrap(), Ok(()));
    let late = BatchRefused::Fence(Refused::LaterEpoch { current: EPOCH + 1 });
    assert_eq!(write(&store, &batch(4, 1)).await, Err(late));
    assert_eq!(write(&store, &next).await, Err(late), "the fence is named before the position");
}

/// The last statement fails: the first ones have left nothing, no lock, and a clean connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_written_whole_or_not_at_all() {
    let Some(mut servers) = Servers::start(1).await else { return };
    servers.config.pool_size = 1;
    let (store, mut connection) = (servers.store(), servers.connect().await);
    write(&store, &batch(0, 2)).await.unwrap();
    let before = content(&store, &mut connection).await;
    let mut bad = batch(2, 2);
    bad.users[1].bytes = vec![1; 1 << 16];
    let error = store.write_batch(shard(), &bad, 0, EPOCH, ME).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    run(&mut connection, "SELECT * FROM SHARD.ownership FOR UPDATE NOWAIT").await;
    assert_eq!(content(&store, &mut connection).await, before);
    write(&store, &batch(2, 2)).await.unwrap();
    assert_eq!(servers.count("store_connects_total"), 1, "rolled back, not closed");
}

/// Of two owners that write at once, the later one wins, and no offset is written twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_two_owners_never_mix() {
    let Some(servers) = Servers::start(1).await else { return };
    let (store, mut connection) = (servers.store(), servers.connect().await);
    let writer = |epoch, owner| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut written = Vec::new();
            let mut from = 0;
            while written.len() < 40 {
                match store.write_batch(shard(), &batch(from, 2), 0, epoch, owner).await.unwrap() {
                    Ok(()) => {
                        written.push(from);
                        from += 2;
                    }
                    Err(BatchRefused::Position { stored }) => from = stored.next_offset,
                    Err(BatchRefused::Fence(_)) => break,
                    Err(BatchRefused::Features) => unreachable!("the row of the user is never deleted"),
                }
            }
            written
        })
    };
    let (old, new) = (writer(1, OTHER), writer(2, ME));
    let (old, new) = (old.await.unwrap(), new.await.unwrap());
    assert_eq!(new.len(), 40);
    assert!(old.iter().max() < new.iter().min(), "{old:?} {new:?}");
    let (position, log, counted, _) = content(&store, &mut connection).await;
    let batches = (old.len() + new.len()) as u64;
    assert_eq!((position, log.len() as u64, counted), (2 * batches, 2 * batches, 2 * batches));
}

/// The worker vanishes while the server works on its batch: the server completes it, and no lock is left for the next owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_gone_leaves_no_lock() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let direct = servers.store();
    let relay = Relay::start(servers.servers[0].port).await;
    servers.config.instances[0].address = relay.address.to_string();
    servers.registry = Registry::new();
    let gone = servers.store();
    gone.open(1, LIMIT).await.unwrap();
    let (mut holder, mut other) = (servers.connect().await, servers.connect().await);
    // A good batch, and one whose last statement fails: its session is in a transaction when its client is gone.
    let mut bad = batch(2, 2);
    // Out of range, because the user has an event already.
    bad.users[1].added = u32::MAX;
    for (batch, position) in [(batch(0, 2), 2), (bad, 2)] {
        run(&mut holder, "BEGIN; SELECT * FROM SHARD.users FOR UPDATE").await;
        let store = gone.clone();
        let writing = tokio::spawn(async move { store.write_batch(shard(), &batch, 0, EPOCH, ME).await });
        until("the batch waits for the lock", async || {
            let lock = format!("SELECT * FROM {}.ownership FOR UPDATE NOWAIT", shard().schema());
            let locked = other.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await;
            locked.is_err()
        })
        .await;
        relay.vanish(BLACK_HOLES[0]).await;
        run(&mut holder, "ROLLBACK").await;
        // A fence that waits for longer than a statement may take fails, and is set again.
        until("the next owner sets its fence", async || {
            matches!(direct.fence(shard(), EPOCH, ME, LIMIT).await, Ok(Ok(())))
        })
        .await;
        let written = content(&direct, &mut holder).await;
        assert_eq!((written.0, written.1.len(), written.2, written.3), (position, 2, 2, 2));
        assert!(writing.await.unwrap().is_err(), "its answer is lost");
        relay.come_back().await;
        until("the relay answers again", async || gone.event_position(shard()).await.is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_which_events_it_has() {
    let Some(servers) = Servers::start(1).await else { return };
    let store = servers.store();
    let mut events: Vec<Event> = (0..600).map(|n| event(user(n % 7), n as i64 / 7)).collect();
    events[3].item_id = "ä ".parse().unwrap();
    events[4].kind = EventKind::View;
    store.append(&events[..300], 0, &Span::NONE).await.unwrap();
    let mut asked: Vec<Event> = events.iter().step_by(2).cloned().collect();
    // Each differs in one column from a logged one.
    for (n, changed) in asked.iter_mut().take(4).enumerate() {
        match n {
            0 => changed.at_ms = -1,
            1 => changed.kind = EventKind::Rating,
            2 => changed.item_id = "it\"em;-- ".parse().unwrap(),
            _ => changed.user_id = user(20),
        }
    }
    let asked: Vec<&Event> = asked.iter().collect();
    let logged = store.logged(shard(), &asked).await.unwrap();
    let expected = asked.iter().filter(|event| events[..300].contains(event)).map(|event| EventKey::of(event));
    assert_eq!(logged, expected.collect());
    assert!(logged.len() > 100);
    assert!(store.logged(shard(), &[&events[599]]).await.unwrap().is_empty());
    assert!(store.logged(shard(), &[]).await.unwrap().is_empty());
}

/// Imported events are what a worker folds first for a user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_histories_are_the_newest_thousand_from_the_oldest_on() {
    let Some(servers) = Servers::start(1).await else { return };
    let store = servers.store();
    let mut events: Vec<Event> = (0..1_300).map(|n| event(user(0), n)).collect();
    // Ties: by item, then by kind. A weight that has no short decimal.
    for (item, kind) in [("b", EventKind::View), ("a", EventKind::Rating), ("b", EventKind::Cart)] {
        let item_id = item.parse().unwrap();
        events.push(Event { item_id, kind, weight: std::f32::consts::PI, ..event(user(1), 7) });
    }
    store.append(&events, 0, &Span::NONE).await.unwrap();
    let users = [user(0), user(1), user(2)];
    let histories = store.whole_histories(shard(), &users).await.unwrap();
    assert_eq!(histories.len(), 2);
    let times: Vec<i64> = histories[&users[0]].iter().map(|event| event.at_ms).collect();
    assert_eq!(times, (300..1_300).collect::<Vec<i64>>());
    let ties = |events: &[stores::LoggedEvent]| -> Vec<(String, EventKind)> {
        assert!(events.iter().all(|event| event.weight == std::f32::consts::PI), "{events:?}");
        events.iter().map(|event| (event.item_id.to_string(), event.kind)).collect()
    };
    let expected = [("a", EventKind::Rating), ("b", EventKind::View), ("b", EventKind::Cart)]
        .map(|(id, kind)| (id.to_owned(), kind));
    assert_eq!(ties(&histories[&users[1]]), expected);
    let mut newest_first = store.history(&users[1], None, &Span::NONE).await.unwrap();
    newest_first.reverse();
    assert_eq!(ties(&newest_first), expected);
    assert_eq!(store.history(&users[0], None, &Span::NONE).await.unwrap().len(), 1_000);
}

/// The order by the whole key costs no sort, and a list of keys is looked up row by row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_sorts_or_scans() {
    let Some(servers) = Servers::start(1).await else { return };
    let (store, mut connection) = (servers.store(), servers.connect().await);
    let events: Vec<Event> = (0..2_000).map(|n| event(user(n % 10), n as i64)).collect();
    store.append(&events, 0, &Span::NONE).await.unwrap();
    run(&mut connection, "ANALYZE TABLE SHARD.behaviour; FLUSH STATUS").await;
    let sorted = async |connection: &mut MySqlConnection| -> (i64, i64) {
        let mut counts = [0, 0];
        for (name, count) in ["Sort_rows", "Handler_read_rnd_next"].iter().zip(&mut counts) {
            let sql = format!("SHOW GLOBAL STATUS LIKE '{name}'");
            let row = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
            *count = row.get_unchecked::<String, _>(1).parse().unwrap();
        }
        (counts[0], counts[1])
    };
    let before = sorted(&mut connection).await;
    assert_eq!(store.history(&user(3), None, &Span::NONE).await.unwrap().len(), 200);
    let users: Vec<UserId> = (0..5).map(user).collect();
    assert_eq!(store.histories(shard(), &users, stores::Turn::default()).await.unwrap().len(), 5);
    for after in [0, 1_000, 1_990] {
        let read = store.log_after(shard(), after, 20).await.unwrap();
        assert_eq!((read.len(), read[0].arrival), (20.min(2_000 - after as usize), after + 1));
    }
    let middle = sorted(&mut connection).await;
    assert_eq!(middle.0, before.0, "rows were sorted");
    assert!(middle.1 - before.1 < 1_500, "the log was scanned: {middle:?} after {before:?}");
    let asked: Vec<&Event> = events.iter().take(50).collect();
    assert_eq!(store.logged(shard(), &asked).await.unwrap().len(), 50);
    let after = sorted(&mut connection).await;
    // The list itself is read once, and the status tables are read as well.
    assert!(after.1 - middle.1 < 1_500, "the log was scanned: {after:?} after {middle:?}");
}

/// Features that lack events of the log must not stay: the next batch makes them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_without_kafka_delete_the_features_that_lack_them() {
    let Some(servers) = Servers::start(1).await else { return };
    let store = servers.store();
    write(&store, &batch(0, 4)).await.unwrap();
    let users: Vec<UserId> = (0..4).map(user).collect();
    let left = async || {
        let features = store.features_of(shard(), &users, stores::Turn::default()).await.unwrap();
        users.iter().map(|user_id| features.contains_key(user_id)).collect::<Vec<bool>>()
    };
    let known: Vec<Event> = (0..4).map(|n| event(user(n), n as i64)).collect();
    let import = async |event: &Event| {
        let Event { user_id, item_id, kind, at_ms, weight } = event;
        let (kind, at_ms, weight) = (*kind, *at_ms, *weight);
        store.import(vec![ImportEvent { user_id, item_id, kind, at_ms, weight }], |_| ()).await.unwrap();
    };
    store.append(&known, 0, &Span::NONE).await.unwrap();
    import(&known[0]).await;
    assert_eq!(left().await, [true; 4], "the log had these events");
    store.append(&[event(user(1), 50)], 0, &Span::NONE).await.unwrap();
    import(&event(user(2), 50)).await;
    assert_eq!(left().await, [true, false, false, true]);
}
