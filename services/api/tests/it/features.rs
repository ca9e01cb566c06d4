//! Lists from prepared features: the same as from the raw log, and never an older one in place of a newer one.

use api::{FeaturesSource, Profile};
use contract::{
    Event, EventKind, UserId,
    http::{Recommendations, Source},
    keys, shard_of,
};
use model::Features;
use prometheus::Registry;
use stores::{ArrivedEvent, EventBatch, FeaturesRow, Store, StoreMetrics};

use crate::{Fixture, Replica, wait_until};

/// The position of the expiry and the arrival number in a cached list; see `ranked_list.rs`.
const FRESH_UNTIL: std::ops::Range<usize> = 12..20;
const ARRIVAL: std::ops::Range<usize> = 20..28;

async fn redis(fixture: &Fixture) -> redis::aio::MultiplexedConnection {
    redis::Client::open(fixture.redis.url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn cached(fixture: &Fixture, user: &str) -> Option<Vec<u8>> {
    redis::cmd("GET").arg(keys::recommendations(user)).query_async(&mut redis(fixture).await).await.unwrap()
}

/// Arrival number of the user's list in Redis. `None`: there is no list.
async fn arrival(fixture: &Fixture, user: &str) -> Option<u64> {
    Some(u64::from_le_bytes(cached(fixture, user).await?[ARRIVAL].try_into().unwrap()))
}

async fn forget_lists(fixture: &Fixture) {
    redis::cmd("FLUSHALL").exec_async(&mut redis(fixture).await).await.unwrap();
}

/// Writes the user's event as a worker does, and returns its arrival number. `bytes`: other features than the right ones.
async fn act(fixture: &Fixture, user: &str, item: &str, at_ms: i64, bytes: Option<&[u8]>) -> u64 {
    let store = Store::new(fixture.store.clone(), &StoreMetrics::new(&Registry::new()).unwrap()).unwrap();
    let (user_id, shard) = (UserId::new(user).unwrap(), shard_of(user));
    let position = store.event_position(shard).await.unwrap();
    let mut features = Features::default();
    let users = std::slice::from_ref(&user_id);
    let stored = store.features_of(shard, users, stores::Turn::default()).await.unwrap().remove(&user_id);
    let continues = stored.is_some();
    match stored {
        Some(stored) => features = Features::decode(&stored.bytes).unwrap(),
        None => store.whole_histories(shard, users).await.unwrap().into_values().flatten().for_each(|event| {
            features.fold(&event.item_id, event.kind, event.at_ms, event.weight);
        }),
    }
    let (item_id, kind, weight) = (item.parse().unwrap(), EventKind::Purchase, 4.0);
    features.fold(&item_id, kind, at_ms, weight);
    let arrival = position.arrival_base + position.next_offset;
    let event = Event { user_id: user_id.clone(), item_id, kind, at_ms, weight };
    let bytes = bytes.unwrap_or_else(|| features.encode()).to_vec();
    let batch = EventBatch {
        from_offset: position.next_offset,
        next_offset: position.next_offset + 1,
        arrival_base: position.arrival_base,
        events: vec![ArrivedEvent { event, arrival }],
        users: vec![FeaturesRow { user_id, arrival, bytes, added: 1, continues }],
    };
    store.write_batch(shard, &batch, 0, 1, 1).await.unwrap().unwrap();
    arrival
}

/// Far later than the data of the fixture.
const LATER_MS: i64 = 4_000_000_000_000;

async fn replica(fixture: &Fixture, features: FeaturesSource, warmup: bool) -> Replica {
    let mut config = fixture.config(Profile::Protected);
    (config.features, config.guards.warmup) = (features, warmup);
    Replica::start(config).await
}

/// The same requests with both settings, each on an empty Redis.
async fn both(fixture: &Fixture, users: &[&str]) -> [Vec<Recommendations>; 2] {
    let mut answers = [Vec::new(), Vec::new()];
    for (answers, source) in answers.iter_mut().zip([FeaturesSource::Inline, FeaturesSource::Kafka]) {
        forget_lists(fixture).await;
        let replica = replica(fixture, source, false).await;
        for user in users {
            answers.push(replica.recommend(user, 30).await);
        }
        replica.stop().await;
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_settings_give_the_same_lists() {
    let Some(fixture) = Fixture::start().await else { return };
    let [imported, acted, collector, damaged] = [1, 2, 3, 4].map(|n| fixture.user(n));
    let last = act(&fixture, acted, fixture.seen(7)[0], LATER_MS, None).await;
    // A full window, in which items repeat.
    let mut newest = 0;
    for k in 0..180 {
        let item = fixture.dataset.items[k * 7 % 140].as_str();
        newest = act(&fixture, collector, item, LATER_MS + k as i64, None).await;
    }
    let damaged_at = act(&fixture, damaged, fixture.seen(8)[0], LATER_MS, Some(b"in another format")).await;
    let users = [imported, acted, collector, damaged, "newcomer", "nobody"];
    act(&fixture, "newcomer", fixture.seen(9)[0], LATER_MS, None).await;
    let [inline, prepared] = both(&fixture, &users).await;
    assert_eq!(inline, prepared);
    for (user, answer) in users.iter().zip(&prepared) {
        let expected = if *user == "nobody" { Source::Popular } else { Source::Store };
        assert_eq!(answer.source, expected, "{user}");
    }
    let expected = [Some(0), Some(last), Some(newest), Some(damaged_at)];
    for (user, expected) in users.iter().zip(expected) {
        assert_eq!(arrival(&fixture, user).await, expected, "{user}");
    }
    assert_eq!(cached(&fixture, "nobody").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_never_replaces_a_list_of_later_events() {
    let Some(fixture) = Fixture::start().await else { return };
    let (user, other) = (fixture.user(5), fixture.user(6));
    let first = act(&fixture, user, fixture.seen(7)[0], LATER_MS, None).await;
    let replica = replica(&fixture, FeaturesSource::Kafka, false).await;
    assert_eq!(replica.recommend(user, 10).await.source, Source::Store);
    wait_until("filled", async || arrival(&fixture, user).await == Some(first)).await;
    // A list of later events than the store has, which has expired: a load follows, and its list must not stay.
    let mut later = cached(&fixture, user).await.unwrap();
    later[FRESH_UNTIL].copy_from_slice(&1_u64.to_le_bytes());
    let set = async |list: &[u8]| {
        let mut connection = redis(&fixture).await;
        redis::cmd("SET").arg(keys::recommendations(user)).arg(list).exec_async(&mut connection).await.unwrap();
    };
    later[ARRIVAL].copy_from_slice(&(first + 1).to_le_bytes());
    set(&later).await;
    assert_eq!(replica.recommend(user, 10).await.source, Source::Store);
    let outdated = async || replica.metric("cache_fills_total{result=\"outdated\"}").await;
    wait_until("the fill is refused", async || outdated().await == 1.0).await;
    assert_eq!(cached(&fixture, user).await, Some(later.clone()));
    // Of the same events: a fresh list replaces the expired one.
    later[ARRIVAL].copy_from_slice(&first.to_le_bytes());
    set(&later).await;
    let again = async || {
        replica.recommend(user, 10).await;
        cached(&fixture, user).await != Some(later.clone())
    };
    wait_until("filled again", again).await;
    assert_eq!(arrival(&fixture, user).await, Some(first));
    // Redis has lost the script.
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut redis(&fixture).await).await.unwrap();
    assert_eq!(replica.recommend(other, 10).await.source, Source::Store);
    wait_until("filled", async || arrival(&fixture, other).await == Some(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_warm_up_prepares_the_same_lists() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut acted = Vec::new();
    for n in 0..20 {
        let user = fixture.user(n);
        acted.push((user, act(&fixture, user, fixture.seen(n + 30)[0], LATER_MS, None).await));
    }
    let mut lists = [Vec::new(), Vec::new()];
    for (lists, source) in lists.iter_mut().zip([FeaturesSource::Inline, FeaturesSource::Kafka]) {
        forget_lists(&fixture).await;
        let replica = replica(&fixture, source, true).await;
        for n in 0..400 {
            let answer = replica.recommend(fixture.user(n), 20).await;
            assert_eq!(answer.source, Source::Cache, "user {n}");
            lists.push(answer);
        }
        assert_eq!(replica.metric("loads_total{result=\"led\"}").await, 0.0);
        replica.stop().await;
    }
    assert_eq!(lists[0], lists[1]);
    for (user, last) in acted {
        assert_eq!(arrival(&fixture, user).await, Some(last));
    }
    assert_eq!(arrival(&fixture, fixture.user(30)).await, Some(0));
}
