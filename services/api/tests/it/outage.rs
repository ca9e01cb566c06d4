use std::time::Duration;

use api::{ApiConfig, Profile};
use contract::http::{CRITICALITY, Source, problem as kinds};
use launcher::{Signal, mariadb, redis};
use reqwest::StatusCode;
use sqlx::MySqlConnection;
use tokio::task::JoinHandle;

use crate::{Fixture, Replica, problem, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_gone_cached_users_are_answered_and_others_get_retry_after() {
    let Some(mut fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    let user = fixture.user(1).to_owned();
    wait_until("cached", async || replica.recommend(&user, 5).await.source == Source::Cache).await;
    fixture.stack.kill(fixture.mysql.child, Signal::SIGKILL).unwrap();
    fixture.stack.stop_child(fixture.mysql.child).await.unwrap();

    assert_eq!(replica.recommend(&user, 5).await.source, Source::Cache);
    let answer = replica.get(&format!("/recommendations?user_id={}", fixture.user(2))).await;
    assert!(answer.headers().contains_key("retry-after"));
    let (status, problem) = problem(answer).await;
    assert_eq!((status, problem.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::STORE_UNAVAILABLE));
    let text = serde_json::to_string(&problem).unwrap().to_lowercase();
    assert!(!text.contains("refused") && !text.contains("127.0.0.1"), "no internals: {text}");

    let options = mariadb::Options { port: Some(fixture.mysql.port), ..mariadb::Options::default() };
    mariadb::start(&mut fixture.stack, "mysql", &options).await.unwrap();
    // The next attempt to connect is at most a back-off away.
    let path = format!("/recommendations?user_id={}", fixture.user(2));
    wait_until("the store is used again", async || replica.get(&path).await.status() == StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_list_is_better_than_none() {
    let Some(mut fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Baseline);
    config.cache.fresh_ms = 1;
    let replica = Replica::start(config).await;
    let first = replica.recommend(fixture.user(1), 5).await;
    wait_until("filled", async || replica.metric("cache_fills_total{result=\"ok\"}").await >= 1.0).await;
    // Expired at once: the store is asked as long as it answers.
    assert_eq!(replica.recommend(fixture.user(1), 5).await.source, Source::Store);
    fixture.stack.kill(fixture.mysql.child, Signal::SIGKILL).unwrap();
    fixture.stack.stop_child(fixture.mysql.child).await.unwrap();
    let stale = replica.recommend(fixture.user(1), 5).await;
    assert_eq!((stale.source, stale.items), (Source::Stale, first.items));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_gone_the_store_answers_and_no_user_becomes_absent() {
    let Some(mut fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Protected).await;
    fixture.stack.kill(fixture.redis.child, Signal::SIGKILL).unwrap();
    fixture.stack.stop_child(fixture.redis.child).await.unwrap();
    assert_eq!(replica.recommend(fixture.user(1), 5).await.source, Source::Store);
    assert_eq!(replica.recommend("unknown", 5).await.source, Source::Popular);
    assert!(replica.metric("guard_checks_total{result=\"unsure\"}").await >= 1.0);
    // A sign-up that cannot be announced does not happen.
    let (status, problem) = problem(replica.post("/users", r#"{"user_id":"late"}"#).await).await;
    assert_eq!((status, problem.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::CACHE_UNAVAILABLE));

    // Known users still get answers, and not every request tries Redis.
    for n in 0..100 {
        assert_eq!(replica.recommend(fixture.user(n), 5).await.source, Source::Store);
    }
    assert!(replica.metric("redis_skipped_total").await > 100.0);

    let options = redis::Options { port: Some(fixture.redis.port), ..redis::Options::default() };
    redis::start(&mut fixture.stack, &options).await.unwrap();
    wait_until("the cache is used again", async || replica.recommend(fixture.user(1), 5).await.source == Source::Cache)
        .await;
}

/// A locked table occupies the pool's two connections: further misses time out in the queue, and their error says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_has_a_problem_type_of_its_own() {
    use sqlx::Connection;

    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Baseline);
    config.store.pool_size = 2;
    config.store.checkout_timeout_ms = 300;
    config.http.deadline_ms = 20_000;
    let replica = Replica::start(config).await;
    let locker = fixture.lock_tables().await;
    let held: Vec<_> = (0..2)
        .map(|n| tokio::spawn(replica.http.get(format!("{}/recommendations?user_id=h{n}", replica.base)).send()))
        .collect();
    wait_until("both connections are in use", async || replica.metric(crate::USED).await == 2.0).await;
    let answer = replica.get("/recommendations?user_id=waits").await;
    assert_eq!(answer.headers()["retry-after"], "1");
    let (status, problem) = problem(answer).await;
    assert_eq!((status, problem.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::STORE_CHECKOUT_TIMEOUT));
    assert_eq!(replica.metric("store_errors_total{reason=\"checkout_timeout\"}").await, 1.0);
    locker.close().await.unwrap();
    for answer in held {
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_takes_too_long_is_504() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Baseline);
    config.http.deadline_ms = 200;
    let replica = Replica::start(config).await;
    let _locker = fixture.lock_tables().await;
    let (status, problem) = problem(replica.get("/recommendations?user_id=slow").await).await;
    assert_eq!((status, problem.kind.as_str()), (StatusCode::GATEWAY_TIMEOUT, kinds::DEADLINE_EXCEEDED));
}

/// One request may be in flight and none may wait: the second one gets Retry-After, and the first one succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_admission_limit_is_503_at_once() {
    use sqlx::Connection;

    let Some(fixture) = Fixture::start().await else { return };
    for (n, policy) in ["fixed", "adaptive", "vegas", "gradient2", "codel"].into_iter().enumerate() {
        let mut config = fixture.config(Profile::Baseline);
        config.http.admission = policy.to_owned();
        config.http.admission_limit = 1;
        config.http.admission_waiting = 0;
        config.http.deadline_ms = 20_000;
        let replica = Replica::start(config).await;
        let locker = fixture.lock_tables().await;
        let user = fixture.user(n + 1);
        let first = tokio::spawn(replica.http.get(format!("{}/recommendations?user_id={user}", replica.base)).send());
        wait_until("it is admitted", async || replica.metric("http_admission_in_flight").await == 1.0).await;
        assert_eq!(replica.metric("http_server_active_requests").await, 1.0);
        let answer = replica.get("/recommendations?user_id=second").await;
        assert_eq!(answer.headers()["retry-after"], "1");
        let (status, problem) = problem(answer).await;
        assert_eq!((status, problem.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::OVERLOADED));
        assert_eq!(replica.metric("http_admission_rejected_total{reason=\"line_full\"}").await, 1.0);
        // Most refusals of a second are only counted.
        let more: Vec<String> = (0..40).map(|n| format!("/recommendations?user_id=more-{n}")).collect();
        futures::future::join_all(more.iter().map(|path| replica.get(path))).await;
        assert_eq!(replica.metric("http_admission_rejected_total{reason=\"line_full\"}").await, 41.0);
        let unrecorded = replica.metric("http_refusals_unrecorded_total").await;
        assert!((1.0..=31.0).contains(&unrecorded), "{unrecorded}");
        locker.close().await.unwrap();
        assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
        assert_eq!(replica.get("/recommendations?user_id=third").await.status(), StatusCode::OK);
        assert_eq!(replica.metric("http_admission_in_flight").await, 0.0);
        assert_eq!(replica.metric("http_server_active_requests").await, 0.0);
    }
}

/// One request may be in flight and one may wait. Whichever comes first, the more critical one waits, and the other is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_critical_request_waits_for_admission() {
    use sqlx::Connection;

    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Baseline);
    config.http.admission = "fixed".to_owned();
    (config.http.admission_limit, config.http.admission_waiting) = (1, 1);
    (config.http.admission_wait_ms, config.http.deadline_ms) = (20_000, 20_000);
    let replica = Replica::start(config).await;
    let locker = fixture.lock_tables().await;
    let send = |n: usize, criticality: &str| {
        let url = format!("{}/recommendations?user_id={}", replica.base, fixture.user(n));
        replica.http.get(url).header(CRITICALITY, criticality).send()
    };
    let first = tokio::spawn(send(1, "default"));
    wait_until("it is admitted", async || replica.metric("http_admission_in_flight").await == 1.0).await;
    let critical = tokio::spawn(send(2, "critical"));
    let (status, problem) = problem(send(3, "sheddable").await.unwrap()).await;
    assert_eq!((status, problem.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::OVERLOADED));
    locker.close().await.unwrap();
    for served in [first, critical] {
        assert_eq!(served.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

fn send(replica: &Replica, user: &str, criticality: &str) -> JoinHandle<reqwest::Result<reqwest::Response>> {
    let url = format!("{}/recommendations?user_id={user}", replica.base);
    tokio::spawn(replica.http.get(url).header(CRITICALITY, criticality).send())
}

/// A replica with one connection, which its first request uses until the tables are unlocked; nothing times out before.
async fn with_its_connection_in_use(
    fixture: &Fixture,
    mut config: ApiConfig,
) -> (Replica, MySqlConnection, JoinHandle<reqwest::Result<reqwest::Response>>) {
    (config.store.pool_size, config.store.checkout_timeout_ms) = (1, 20_000);
    (config.store.statement_timeout_ms, config.http.deadline_ms) = (20_000, 20_000);
    let replica = Replica::start(config).await;
    let locker = fixture.lock_tables().await;
    let before = replica.metric("store_queries_total").await;
    let first = send(&replica, fixture.user(1), "default");
    wait_until("it uses the connection", async || replica.metric("store_queries_total").await > before).await;
    (replica, locker, first)
}

/// One request may use the store and one may wait for it: a more critical one takes the place of a less critical one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_critical_request_gets_the_next_connection() {
    use sqlx::Connection;

    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Baseline);
    config.store.max_waiting = 1;
    let (replica, locker, first) = with_its_connection_in_use(&fixture, config).await;
    let send = |n, criticality| send(&replica, fixture.user(n), criticality);
    let sheddable = send(2, "sheddable");
    let pending = "db_client_connection_pending_requests";
    wait_until("the next one waits", async || replica.metric(pending).await == 1.0).await;
    let critical = send(3, "critical");
    let (status, overloaded) = problem(sheddable.await.unwrap().unwrap()).await;
    assert_eq!((status, overloaded.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::STORE_OVERLOADED));
    let (status, _) = problem(send(4, "default").await.unwrap().unwrap()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    locker.close().await.unwrap();
    for served in [first, critical] {
        assert_eq!(served.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

/// While a request has been waiting for longer than the limit, others wait for no longer than that, unless they are critical.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_in_a_standing_queue_are_short() {
    use sqlx::Connection;

    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Baseline);
    config.store.standing_wait_ms = 100;
    let (replica, locker, first) = with_its_connection_in_use(&fixture, config).await;
    let send = |n, criticality| send(&replica, fixture.user(n), criticality);
    let burst = send(2, "default");
    let pending = "db_client_connection_pending_requests";
    wait_until("a burst of one waits", async || replica.metric(pending).await == 1.0).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let (status, refused) = problem(send(3, "default").await.unwrap().unwrap()).await;
    assert_eq!((status, refused.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::STORE_CHECKOUT_TIMEOUT));
    assert_eq!(refused.detail, "waited 100 ms for a connection to the store");
    let critical = send(4, "critical");
    wait_until("the critical one waits too", async || replica.metric(pending).await == 2.0).await;
    assert_eq!(replica.metric("db_client_connection_timeouts_total").await, 1.0);
    locker.close().await.unwrap();
    for served in [first, burst, critical] {
        assert_eq!(served.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_criticality_is_refused_by_name() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = Replica::start(fixture.config(Profile::Protected)).await;
    let url = format!("{}/recommendations?user_id={}", replica.base, fixture.user(1));
    let (status, problem) = problem(replica.http.get(url).header(CRITICALITY, "urgent").send().await.unwrap()).await;
    assert_eq!((status, problem.field.as_deref()), (StatusCode::BAD_REQUEST, Some(CRITICALITY)));
    assert_eq!(problem.detail, "x-criticality must be one of critical, default, sheddable");
}

/// A request in flight when the replica stops is still answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_drains() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    let client = replica.http.clone();
    let urls: Vec<String> =
        (0..50).map(|n| format!("{}/recommendations?user_id={}", replica.base, fixture.user(n))).collect();
    let requests: Vec<_> = urls.into_iter().map(|url| tokio::spawn(client.get(url).send())).collect();
    wait_until("requests arrive", async || replica.metric("store_queries_total").await >= 5.0).await;
    tokio::time::timeout(Duration::from_secs(20), replica.stop()).await.unwrap();
    let mut answered = 0;
    for request in requests {
        match request.await.unwrap() {
            Ok(answer) => {
                assert_eq!(answer.status(), StatusCode::OK);
                answered += 1;
            }
            // Not yet accepted when the listener closed.
            Err(error) => assert!(error.is_connect() || error.is_request(), "{error:?}"),
        }
    }
    assert!(answered >= 1);
}
