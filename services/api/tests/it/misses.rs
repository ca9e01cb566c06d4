//! Misses: shared loads, negative caching, refresh ahead, answers from memory.

use std::time::Duration;

use api::Profile;
use contract::{
    http::{Recommendations, Source},
    keys,
};
use futures::StreamExt;
use reqwest::StatusCode;

use crate::{Fixture, Replica, wait_until};

/// The position of the expiry in a cached list; see `ranked_list.rs`.
const FRESH_UNTIL: std::ops::Range<usize> = 12..20;

async fn redis(fixture: &Fixture) -> redis::aio::MultiplexedConnection {
    redis::Client::open(fixture.redis.url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Changes the user's cached list so that it expired in 1970.
async fn expire(fixture: &Fixture, user: &str) {
    let (mut connection, key) = (redis(fixture).await, keys::recommendations(user));
    let mut list: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
    list[FRESH_UNTIL].copy_from_slice(&1_u64.to_le_bytes());
    redis::cmd("SET").arg(&key).arg(list).exec_async(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_on_an_expired_key_are_one_load_per_replica() {
    const EACH: usize = 1_000;
    const LED: &str = "loads_total{result=\"led\"}";
    let Some(fixture) = Fixture::start().await else { return };
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let mut config = fixture.config(Profile::Protected);
        config.http.deadline_ms = 60_000;
        config.store.checkout_timeout_ms = 60_000;
        // The load lasts until all requests are in flight, however busy the machine is.
        config.store.statement_timeout_ms = 60_000;
        // Two thousand concurrent requests may be slow on a busy machine. This test is not about timeouts of Redis.
        config.redis.response_timeout_ms = 60_000;
        replicas.push(Replica::start(config).await);
    }
    for round in 0..3 {
        let user = fixture.user(round).to_owned();
        expire(&fixture, &user).await;
        let before = [replicas[0].metric(LED).await, replicas[1].metric(LED).await];
        let lock = fixture.lock_tables().await;
        let requests: Vec<_> = (0..2 * EACH)
            .map(|n| {
                let replica = &replicas[n % 2];
                tokio::spawn(
                    replica.http.get(format!("{}/recommendations?user_id={user}&limit=10", replica.base)).send(),
                )
            })
            .collect();
        for replica in &replicas {
            wait_until("all are in flight", async || replica.metric("http_admission_in_flight").await == EACH as f64)
                .await;
        }
        drop(lock);
        for request in requests {
            let answer: Recommendations = request.await.unwrap().unwrap().json().await.unwrap();
            assert!(matches!(answer.source, Source::Store | Source::Cache), "{answer:?}");
        }
        for (replica, before) in replicas.iter().zip(before) {
            let loads = replica.metric(LED).await - before;
            assert_eq!(loads, 1.0, "loads for one key, round {round}");
        }
    }
    let joined = replicas[0].metric("loads_total{result=\"joined\"}").await;
    assert!(joined > EACH as f64, "too few shared a load: this tested little");
}

/// A request for a longer list than the load in flight computes gets a longer list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_loads_are_long_enough_for_everybody() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.guards.warmup = false;
    let replica = Replica::start(config).await;
    let requests = (0..300).map(|n| {
        let limit = [5, 20, 60, 100][n % 4];
        let (user, replica) = (fixture.user(n / 100), &replica);
        async move { (replica.recommend(user, limit).await, limit) }
    });
    let answers: Vec<_> = futures::stream::iter(requests).buffer_unordered(300).collect().await;
    for (answer, limit) in answers {
        assert_eq!(answer.items.len(), limit, "{}", answer.user_id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_there_is_nothing_is_remembered_until_there_is_something() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.guards.bloom = false;
    config.guards.warmup = false;
    config.cache.negative_ms = 60_000;
    let replica = Replica::start(config).await;
    for _ in 0..5 {
        assert_eq!(replica.recommend("cold", 5).await.source, Source::Popular);
    }
    assert_eq!(replica.metric("loads_total{result=\"led\"}").await, 1.0);
    assert_eq!(replica.metric("cache_negative_hits_total").await, 4.0);
    let event = format!(r#"{{"user_id":"cold","item_id":"{}","event":"purchase"}}"#, fixture.seen(3)[0]);
    assert_eq!(replica.post("/events", &event).await.status(), StatusCode::ACCEPTED);
    assert_eq!(replica.recommend("cold", 5).await.source, Source::Store);
}

/// A list that is requested shortly before it expires is recomputed in the background, by one replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_refreshes_ahead_of_expiry() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let mut config = fixture.config(Profile::Protected);
        // Every hit is shortly before its expiry.
        config.cache.refresh_ahead_ms = 2 * config.cache.fresh_ms;
        replicas.push(Replica::start(config).await);
    }
    let user = fixture.user(4);
    for _ in 0..10 {
        for replica in &replicas {
            assert_eq!(replica.recommend(user, 10).await.source, Source::Cache);
        }
    }
    let sum = async |series: &str| replicas[0].metric(series).await + replicas[1].metric(series).await;
    wait_until("one has refreshed and one has left it to it", async || {
        let (ok, taken) =
            (sum("cache_refreshes_total{result=\"ok\"}").await, sum("cache_refreshes_total{result=\"taken\"}").await);
        (ok, taken) == (1.0, 1.0)
    })
    .await;
    assert_eq!(sum("loads_total{result=\"led\"}").await, 1.0);
    // Off: a hit is a hit.
    let mut off = fixture.config(Profile::Protected);
    off.guards.refresh_ahead = false;
    off.cache.refresh_ahead_ms = 2 * off.cache.fresh_ms;
    let replica = Replica::start(off).await;
    replica.recommend(fixture.user(5), 10).await;
    assert_eq!(replica.metric("cache_refreshes_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_in_memory_need_no_redis_and_are_dropped_when_the_user_acts() {
    let Some(mut fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.cache.local_ms = 60_000;
    let replica = Replica::start(config).await;
    let user = fixture.user(6).to_owned();
    let first = replica.recommend(&user, 10).await;
    let again = replica.recommend(&user, 10).await;
    assert_eq!((again.source, again.items), (Source::Cache, first.items.clone()));
    assert_eq!(replica.metric("cache_local_hits_total").await, 1.0);
    let item = &first.items[0].item_id;
    let event = format!(r#"{{"user_id":"{user}","item_id":"{item}","event":"purchase"}}"#);
    assert_eq!(replica.post("/events", &event).await.status(), StatusCode::ACCEPTED);
    let changed = replica.recommend(&user, 10).await;
    assert_eq!(changed.source, Source::Store);
    assert!(changed.items.iter().all(|scored| scored.item_id != *item));
    fixture.stack.kill(fixture.redis.child, launcher::Signal::SIGKILL).unwrap();
    fixture.stack.stop_child(fixture.redis.child).await.unwrap();
    assert_eq!(replica.recommend(&user, 10).await.source, Source::Cache);
}

/// An expired list is also the answer when the store does not fail but takes too long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_is_answered_for_by_an_expired_list() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.http.deadline_ms = 500;
    let replica = Replica::start(config).await;
    expire(&fixture, fixture.user(1)).await;
    let lock = fixture.lock_tables().await;
    let answers = futures::future::join_all((0..50).map(|_| replica.recommend(fixture.user(1), 5))).await;
    assert!(answers.iter().all(|answer| answer.source == Source::Stale));
    // The server has aborted the queries of the requests that timed out.
    wait_until("no query is left", async || replica.metric(crate::USED).await == 0.0).await;
    assert!(replica.metric("store_errors_total{reason=\"statement_timeout\"}").await >= 1.0);
    drop(lock);
    tokio::time::timeout(Duration::from_secs(20), async {
        while replica.recommend(fixture.user(1), 5).await.source == Source::Stale {}
    })
    .await
    .unwrap();
}
