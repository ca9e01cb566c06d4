//! A replica reports its state and its errors correctly.

use api::Profile;
use contract::{
    http::{Problem, problem as kinds},
    shard_of,
};
use reqwest::StatusCode;
use sqlx::{ConnectOptions, Executor, mysql::MySqlConnectOptions};

use crate::{Fixture, Replica, problem, wait_until};

/// A gateway must send no further request to a stopping replica, however long its last requests take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_drains_is_not_ready() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    let lock = fixture.lock_tables().await;
    let url = format!("{}/recommendations?user_id={}", replica.base, fixture.user(1));
    let last = tokio::spawn(replica.http.get(url).send());
    wait_until("the last request is in flight", async || replica.metric(crate::USED).await == 1.0).await;
    replica.stop.cancel();
    let answer = replica.http.get(format!("{}/readyz", replica.admin)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().await.unwrap().contains("stopping"));
    drop(lock);
    assert_eq!(last.await.unwrap().unwrap().status(), StatusCode::OK);
    replica.stop().await;
}

/// A row that cannot be decoded is a permanent error: the response has no Retry-After.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_read_is_an_internal_error() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    let options = MySqlConnectOptions::new().host("127.0.0.1").port(fixture.mysql.port).username("root");
    let mut connection = options.connect().await.unwrap();
    let insert = format!(
        "INSERT INTO {}.behaviour (user_id, at_ms, item_id, kind, weight) VALUES ('odd', 1, 'i', 99, 1)",
        shard_of("odd").schema()
    );
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(insert))).await.unwrap();
    let queries = replica.metric("store_queries_total").await;
    let answer = replica.get("/recommendations?user_id=odd").await;
    assert!(!answer.headers().contains_key("retry-after"));
    let (status, problem) = problem(answer).await;
    assert_eq!((status, problem.kind.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, kinds::INTERNAL));
    assert_eq!(replica.metric("store_queries_total").await - queries, 1.0, "asking again would change nothing");
    assert_eq!(replica.metric("store_errors_total{reason=\"invalid\"}").await, 1.0);
    assert_eq!(replica.metric("store_errors_total{reason=\"unavailable\"}").await, 0.0);
}

/// The error of a shared load states each request's own wait, not the leader's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_error_of_a_shared_load_states_each_requests_wait() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.guards.warmup = false;
    config.store.pool_size = 1;
    config.store.checkout_timeout_ms = 4_000;
    // The first query occupies the connection for longer than the others wait.
    config.store.statement_timeout_ms = 60_000;
    config.http.deadline_ms = 60_000;
    let replica = Replica::start(config).await;
    let _lock = fixture.lock_tables().await;
    let ask = |user: usize| {
        let url = format!("{}/recommendations?user_id={}", replica.base, fixture.user(user));
        tokio::spawn(replica.http.get(url).send())
    };
    let _holds = ask(1);
    wait_until("the connection is in use", async || replica.metric(crate::USED).await == 1.0).await;
    let first = ask(2);
    wait_until("the first waits", async || replica.metric("http_server_active_requests").await == 2.0).await;
    // The leader started earlier by this time.
    let later_ms = 500;
    tokio::time::sleep(std::time::Duration::from_millis(later_ms)).await;
    let second = ask(2);
    let mut waited = Vec::new();
    for answer in [first, second] {
        let (status, problem) = problem(answer.await.unwrap().unwrap()).await;
        assert_eq!((status, problem.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::STORE_CHECKOUT_TIMEOUT));
        waited.push(waited_ms(&problem));
    }
    assert_eq!(replica.metric("loads_total{result=\"joined\"}").await, 1.0);
    assert!(waited[1] + later_ms <= waited[0], "{waited:?}");
}

fn waited_ms(problem: &Problem) -> u64 {
    problem.detail.split(' ').find_map(|word| word.parse().ok()).unwrap()
}
