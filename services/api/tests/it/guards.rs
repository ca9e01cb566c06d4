use api::Profile;
use contract::{
    http::{Source, problem as kinds},
    keys,
};
use launcher::Signal;
use reqwest::StatusCode;

use crate::{Fixture, Replica, problem, wait_until};

async fn flush_redis(fixture: &Fixture) {
    let client = redis::Client::open(fixture.redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_warm_users_cause_no_store_query() {
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

/// Redis loses its lists: a replica writes them again, beside the requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_cache_is_warmed_up_again() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.guards.warmup_again_pct = 50;
    let (one, other) = futures::future::join(Replica::start(config.clone()), fixture.replica(Profile::Protected)).await;
    // Few enough not to hide the loss in the same half second.
    for n in 0..20 {
        assert_eq!(one.recommend(fixture.user(n), 1).await.source, Source::Cache);
    }
    assert_eq!(one.metric("warmup_again_total").await, 0.0, "no list was missing");
    flush_redis(&fixture).await;
    let warmed = async || one.metric("warmup_users_total").await;
    let before = warmed().await;
    futures::future::join_all((0..200).map(|n| one.recommend(fixture.user(n), 1))).await;
    wait_until("all lists are written again", async || warmed().await - before == 400.0).await;
    wait_until("that is counted", async || one.metric("warmup_again_total").await == 1.0).await;
    assert_eq!(other.metric("warmup_again_total").await, 0.0, "it is off there");
    for n in 0..400 {
        assert_eq!(other.recommend(fixture.user(n), 1).await.source, Source::Cache);
    }
}

/// A user who signs up through one replica is known to the others at once. A lost set makes no user absent.
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
    // The sets are lost: every user that is not in the filter may exist, until the filter is rebuilt.
    flush_redis(&fixture).await;
    for n in 0..20 {
        assert_eq!(other.recommend(&format!("newcomer-{n}"), 5).await.source, Source::Store);
    }
    wait_until("the filter is built anew", async || {
        other.metric("guard_rebuilds_total{reason=\"generation\"}").await >= 1.0
            && other.metric("guard_generation_valid").await == 1.0
    })
    .await;
    assert_eq!(other.metric("guard_bloom_users").await, 420.0);
    let before = other.metric("guard_checks_total{result=\"absent\"}").await;
    for n in 0..20 {
        other.recommend(&format!("unknown-{n}"), 5).await;
    }
    assert!(other.metric("guard_checks_total{result=\"absent\"}").await - before >= 18.0);
}

/// Evicting the set evicts its marks, so that an incomplete set is never trusted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_set_makes_no_user_absent() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.guards.warmup = false;
    let replica = Replica::start(config).await;
    let client = redis::Client::open(fixture.redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let item = fixture.seen(3)[0];
    for (n, key) in [keys::NEWCOMERS, keys::NEWCOMERS_PREVIOUS, keys::NEWCOMERS_GENERATION].iter().enumerate() {
        let user = format!("evicted-{n}");
        replica.post("/users", &format!(r#"{{"user_id":"{user}"}}"#)).await;
        replica.post("/events", &format!(r#"{{"user_id":"{user}","item_id":"{item}","event":"cart"}}"#)).await;
        redis::cmd("DEL").arg(key).exec_async(&mut connection).await.unwrap();
        // Another user signs up: the set exists again, without its marks.
        replica.post("/users", &format!(r#"{{"user_id":"other-{n}"}}"#)).await;
        assert_eq!(replica.recommend(&user, 5).await.source, Source::Store, "{key}");
    }
}

/// Unverified users are looked up, in a bounded number at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsure_loads_are_bounded() {
    let Some(mut fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.guards.warmup = false;
    config.guards.unsure_loads = 2;
    let replica = Replica::start(config).await;
    fixture.stack.kill(fixture.redis.child, Signal::SIGKILL).unwrap();
    fixture.stack.stop_child(fixture.redis.child).await.unwrap();
    let lock = fixture.lock_tables().await;
    let held: Vec<_> = (0..2)
        .map(|n| tokio::spawn(replica.http.get(format!("{}/recommendations?user_id=unsure-{n}", replica.base)).send()))
        .collect();
    wait_until("two are looked up", async || replica.metric(crate::USED).await == 2.0).await;
    let answer = replica.get("/recommendations?user_id=unsure-2").await;
    assert_eq!(answer.headers()["retry-after"], "1");
    let (status, problem) = problem(answer).await;
    assert_eq!((status, problem.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::STORE_OVERLOADED));
    // Without Redis there are no rebuilds; after its restart there may be one. The assertions hold in both cases.
    assert!(!problem.detail.contains("rebuil"), "{}", problem.detail);
    assert_eq!(replica.metric("guard_unsure_refused_total").await, 1.0);
    drop(lock);
    for answer in held {
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

/// Many sign-ups: the filter is rebuilt with them, and the set starts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_filter_is_rebuilt_on_size_and_on_schedule() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.guards.warmup = false;
    config.guards.bloom_rebuild_newcomers = 10;
    let replica = Replica::start(config).await;
    for n in 0..20 {
        replica.post("/users", &format!(r#"{{"user_id":"many-{n}"}}"#)).await;
    }
    wait_until("rebuilt on size", async || {
        replica.metric("guard_rebuilds_total{reason=\"size\"}").await >= 1.0
            && replica.metric("guard_bloom_users").await == 420.0
            && replica.metric("guard_newcomers").await <= 10.0
    })
    .await;
    let mut config = fixture.config(Profile::Protected);
    config.guards.warmup = false;
    config.guards.bloom_rebuild_ms = 1;
    let replica = Replica::start(config).await;
    wait_until("rebuilt on schedule", async || {
        replica.metric("guard_rebuilds_total{reason=\"schedule\"}").await >= 2.0
    })
    .await;
}

/// When the lease of a replica that stopped expires, another replica does its warm-up unit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_replicas_unit_is_taken_over() {
    let Some(fixture) = Fixture::start().await else { return };
    let client = redis::Client::open(fixture.redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    // The state that a replica leaves behind if it stops just after it took the unit.
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

/// Finished users of a stopped replica's unit are not warmed up again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_replicas_unit_is_resumed() {
    let Some(fixture) = Fixture::start().await else { return };
    let client = redis::Client::open(fixture.redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for shard in 0..16 {
        redis::cmd("SET").arg(keys::warmup_cursor("m1", shard)).arg(3).exec_async(&mut connection).await.unwrap();
    }
    let replica = fixture.replica(Profile::Protected).await;
    assert_eq!(replica.metric("warmup_users_total").await, 400.0 - 3.0 * 16.0);
    assert_eq!(replica.metric("warmup_resumed_total").await, 16.0);
    let left: Option<u64> =
        redis::cmd("GET").arg(keys::warmup_cursor("m1", 0)).query_async(&mut connection).await.unwrap();
    assert_eq!(left, None);
}

/// The step in `/readyz` and the metrics of a replica that is not ready yet.
async fn wait_for_step(admin: &str, step: &str) {
    let http = reqwest::Client::new();
    wait_until(step, async || {
        let Ok(answer) = http.get(format!("{admin}/readyz")).send().await else { return false };
        answer.text().await.is_ok_and(|text| text.contains(step))
    })
    .await;
}

/// Compose starts Redis and replicas at nearly the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_starts_late_is_warmed_up() {
    let Some(mut fixture) = Fixture::start().await else { return };
    fixture.stack.kill(fixture.redis.child, launcher::Signal::SIGKILL).unwrap();
    fixture.stack.stop_child(fixture.redis.child).await.unwrap();
    let config = fixture.config(Profile::Protected);
    let admin = format!("http://{}", config.http.admin);
    let (replica, ()) = tokio::join!(Replica::start(config), async {
        wait_for_step(&admin, "warm-up: 0 of 16 shards, retrying after a failure").await;
        let options = launcher::redis::Options { port: Some(fixture.redis.port), ..Default::default() };
        launcher::redis::start(&mut fixture.stack, &options).await.unwrap();
    });
    assert_eq!(replica.metric("warmup_progress_ratio").await, 1.0);
    assert_eq!(replica.metric("warmup_users_total").await, 400.0);
}

/// A server that answers every connection with an error and closes it, as Redis does in protected mode, with too many clients, and while it
/// loads a file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_first_refuses_is_warmed_up_when_it_accepts() {
    use tokio::io::AsyncWriteExt as _;

    let Some(mut fixture) = Fixture::start().await else { return };
    fixture.stack.kill(fixture.redis.child, launcher::Signal::SIGKILL).unwrap();
    fixture.stack.stop_child(fixture.redis.child).await.unwrap();
    for answers in [1, 2] {
        let refusing = tokio::net::TcpListener::bind(("127.0.0.1", fixture.redis.port)).await.unwrap();
        let refusing = tokio::spawn(async move {
            while let Ok((mut client, _)) = refusing.accept().await {
                let denied = "-DENIED Redis is running in protected mode\r\n".repeat(answers);
                _ = client.write_all(denied.as_bytes()).await;
                _ = client.shutdown().await;
            }
        });
        let config = fixture.config(Profile::Protected);
        let admin = format!("http://{}", config.http.admin);
        let (replica, redis) = tokio::join!(Replica::start(config), async {
            wait_for_step(&admin, "warm-up: 0 of 16 shards, retrying after a failure").await;
            refusing.abort();
            assert!(refusing.await.unwrap_err().is_cancelled());
            let options = launcher::redis::Options { port: Some(fixture.redis.port), ..Default::default() };
            launcher::redis::start(&mut fixture.stack, &options).await.unwrap()
        });
        assert_eq!(replica.metric("warmup_progress_ratio").await, 1.0);
        fixture.stack.kill(redis.child, launcher::Signal::SIGKILL).unwrap();
        fixture.stack.stop_child(redis.child).await.unwrap();
    }
}
