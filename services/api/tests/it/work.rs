//! The declared cost of a request, on a virtual CPU and for real.

use std::time::{Duration, Instant};

use api::Profile;
use contract::http::Source;
use futures::future::join_all;
use reqwest::StatusCode;

use crate::{Fixture, Replica, wait_until};

const USED: &str = "api_cpu_seconds_total";
const THROTTLED: &str = "api_cpu_throttled_seconds_total";

async fn until_used(replica: &Replica, seconds: f64) {
    wait_until("the virtual CPU is idle", async || (replica.metric(USED).await - seconds).abs() < 1e-6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_the_virtual_cpu_and_only_recommendations_cost() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    (config.http.work_us, config.http.cpu_quota) = (1_000, 0.05);
    // Answers from memory cost the same.
    config.cache.local_ms = 600_000;
    let replica = Replica::start(config).await;
    assert_eq!(replica.metric("api_cpu_quota_cores").await, 0.05);

    let started = Instant::now();
    let answers = join_all((0..20).map(|_| replica.recommend(fixture.user(0), 10))).await;
    assert!(answers.iter().all(|answer| answer.source == Source::Cache));
    // A rate of quota / cost: 20 ms for each. This cannot be shorter, on any machine.
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
    until_used(&replica, 0.020).await;
    assert!((replica.metric(THROTTLED).await - 0.380).abs() < 1e-6);
    assert_eq!(replica.metric("api_cpu_wait_seconds_count").await, 20.0);

    for path in ["/healthz", "/readyz", "/metrics"] {
        replica.http.get(format!("{}{path}", replica.admin)).send().await.unwrap();
    }
    assert_eq!(replica.get("/popular").await.status(), StatusCode::OK);
    assert_eq!(replica.get("/recommendations?user_id=").await.status(), StatusCode::BAD_REQUEST);
    assert!(replica.post("/users", "{\"user_id\":\"new-1\"}").await.status().is_success());
    until_used(&replica, 0.020).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_would_be_late_is_refused_and_costs_nothing() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    // Each takes 3 s of its 5 s: a second one of the same moment would end after 6 s.
    (config.http.work_us, config.http.cpu_quota) = (30_000, 0.01);
    let replica = Replica::start(config).await;
    let path = format!("/recommendations?user_id={}", fixture.user(0));
    let answers = join_all([replica.get(&path), replica.get(&path)]).await;
    let statuses: Vec<StatusCode> = answers.iter().map(reqwest::Response::status).collect();
    assert!(statuses.contains(&StatusCode::OK), "{statuses:?}");
    let ok = statuses.iter().filter(|status| **status == StatusCode::OK).count();
    // If the machine stopped for a second between the two, both are in time.
    assert!(
        statuses.iter().all(|status| [StatusCode::OK, StatusCode::GATEWAY_TIMEOUT].contains(status)),
        "{statuses:?}"
    );
    until_used(&replica, 0.030 * ok as f64).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quota_the_cost_is_real_cpu_time() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.http.work_us = 20_000;
    let replica = Replica::start(config).await;
    let before = replica.metric(USED).await;
    for _ in 0..10 {
        replica.recommend(fixture.user(0), 10).await;
    }
    let used = replica.metric(USED).await - before;
    assert!(used >= 0.2, "{used} s of CPU time for 10 requests of 20 ms");
    assert_eq!((replica.metric(THROTTLED).await, replica.metric("api_cpu_quota_cores").await), (0.0, 0.0));
    assert_eq!(replica.metric("api_cpu_wait_seconds_count").await, 0.0);
    replica.stop().await;
}
