use api::Profile;
use contract::{http::Source, keys};
use reqwest::StatusCode;

use crate::{Fixture, Replica, wait_until};

async fn flush_redis(fixture: &Fixture) {
    let client = redis::Client::open(fixture.redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_ids_cost_no_store_query_and_warm_users_none_either() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Protected).await;
    let before = replica.metric("store_queries_total").await;
    for n in 0..400 {
        let answer = replica.recommend(fixture.user(n), 10).await;
        assert_eq!((answer.source, answer.items.len()), (Source::Cache, 10));
    }
    let mut let_through = 0;
    for n in 0..2000 {
        assert_eq!(replica.recommend(&format!("unknown-{n}"), 1).await.source, Source::Popular);
        let_through = replica.metric("store_queries_total").await as u64 - before as u64;
    }
    // 0.1 % of 2000 is 2; 12 have a probability below one in a million.
    assert!(let_through <= 12, "{let_through} of 2000 unknown ids reached the store");
    assert!(replica.metric("guard_bloom_false_positive_ratio").await <= 0.002);
    assert_eq!(replica.metric("guard_bloom_users").await, 400.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_guard_has_its_own_switch() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut no_warmup = fixture.config(Profile::Protected);
    no_warmup.guards.warmup = false;
    let replica = Replica::start(no_warmup).await;
    assert_eq!(replica.recommend(fixture.user(0), 1).await.source, Source::Store);
    replica.recommend("unknown", 1).await;
    assert_eq!(replica.metric("guard_checks_total{result=\"absent\"}").await, 1.0);
    replica.stop().await;

    flush_redis(&fixture).await;
    let mut no_bloom = fixture.config(Profile::Protected);
    no_bloom.guards.bloom = false;
    let replica = Replica::start(no_bloom).await;
    assert_eq!(replica.recommend(fixture.user(0), 1).await.source, Source::Cache);
    let before = replica.metric("store_queries_total").await;
    replica.recommend("unknown", 1).await;
    assert_eq!(replica.metric("store_queries_total").await - before, 1.0);
}

/// Four replicas start at once: together they write each list once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_warm_up() {
    let Some(fixture) = Fixture::start().await else { return };
    let replicas = futures::future::join_all((0..4).map(|_| fixture.replica(Profile::Protected))).await;
    let mut warmed = 0.0;
    for replica in &replicas {
        warmed += replica.metric("warmup_users_total").await;
        assert_eq!(replica.metric("warmup_progress_ratio").await, 1.0);
    }
    assert_eq!(warmed, 400.0);
}

/// A user who signs up through one replica is known to the others at once, and a lost set makes nobody unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_are_known_everywhere() {
    let Some(fixture) = Fixture::start().await else { return };
    let (one, other) = (fixture.replica(Profile::Protected).await, fixture.replica(Profile::Protected).await);
    let item = fixture.seen(3)[0];
    for n in 0..20 {
        let user = format!("newcomer-{n}");
        let created = one.post("/users", &format!(r#"{{"user_id":"{user}"}}"#)).await;
        assert_eq!(created.status(), StatusCode::CREATED);
        let event = format!(r#"{{"user_id":"{user}","item_id":"{item}","event":"cart"}}"#);
        assert_eq!(one.post("/events", &event).await.status(), StatusCode::ACCEPTED);
        assert_eq!(other.recommend(&user, 5).await.source, Source::Store, "{user}");
    }
    flush_redis(&fixture).await;
    for n in 0..20 {
        assert_eq!(other.recommend(&format!("newcomer-{n}"), 5).await.source, Source::Store);
    }
    assert!(other.metric("guard_checks_total{result=\"unsure\"}").await >= 20.0);
    // Who signs up now is in a set that has no generation: still not to be trusted.
    let client = redis::Client::open(fixture.redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let generation: Option<String> =
        redis::cmd("GET").arg(keys::NEWCOMERS_GENERATION).query_async(&mut connection).await.unwrap();
    assert_eq!(generation, None);
}

/// A unit of warm-up whose replica died is done by another one, once the lease has run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_replicas_unit_is_taken_over() {
    let Some(fixture) = Fixture::start().await else { return };
    let client = redis::Client::open(fixture.redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    // What a replica leaves behind that died just after it took the unit.
    for shard in 0..3 {
        let lease = redis::cmd("SET").arg(keys::warmup_unit("m1", shard)).arg("dead").arg("PX").arg(1500).clone();
        lease.query_async::<()>(&mut connection).await.unwrap();
    }
    let replica = fixture.replica(Profile::Protected).await;
    assert_eq!(replica.metric("warmup_users_total").await, 400.0);
    wait_until("answers come from the cache", async || {
        replica.recommend(fixture.user(1), 1).await.source == Source::Cache
    })
    .await;
}
