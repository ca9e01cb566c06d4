//! Deadlines of clients, and work that is left behind by clients that gave up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::Profile;
use contract::http::REQUEST_DEADLINE;
use reqwest::{Response, StatusCode};

use crate::{Fixture, Replica, problem, wait_until};

const READS: &str = "store_reads_abandoned_total";
const LOADS: &str = "loads_abandoned_total";
const GONE: &str = "http_server_requests_abandoned_total{http_route=\"/recommendations\"}";

fn in_ms(ms: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    (now + ms).to_string()
}

async fn get(replica: &Replica, user: &str, deadline: &str) -> Response {
    let url = format!("{}/recommendations?user_id={user}", replica.base);
    replica.http.get(url).header(REQUEST_DEADLINE, deadline).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_deadline_is_honoured_only_if_the_replica_is_told_to() {
    let Some(fixture) = Fixture::start().await else { return };
    let ignoring = fixture.replica(Profile::Baseline).await;
    for ignored in ["soon", &in_ms(-1_000), &in_ms(60_000)] {
        assert_eq!(get(&ignoring, fixture.user(1), ignored).await.status(), StatusCode::OK, "{ignored}");
    }
    let mut config = fixture.config(Profile::Baseline);
    config.http.honour_deadline = true;
    let replica = Replica::start(config).await;
    let path = async |path: &str| replica.metric(&format!("recommendation_paths_total{{path=\"{path}\"}}")).await;
    for served in [in_ms(60_000), u64::MAX.to_string()] {
        assert_eq!(get(&replica, fixture.user(2), &served).await.status(), StatusCode::OK, "{served}");
    }
    assert_eq!(replica.get(&format!("/recommendations?user_id={}", fixture.user(2))).await.status(), StatusCode::OK);

    let (status, garbage) = problem(get(&replica, fixture.user(3), "soon").await).await;
    assert_eq!((status, garbage.field.as_deref()), (StatusCode::BAD_REQUEST, Some(REQUEST_DEADLINE)));
    assert!(garbage.detail.contains("must be one Unix time in milliseconds"), "{}", garbage.detail);
    assert_eq!((path("invalid").await, path("refused").await), (1.0, 0.0));

    let queries = replica.metric("store_queries_total").await;
    let (status, late) = problem(get(&replica, fixture.user(4), &in_ms(-1_000)).await).await;
    assert_eq!((status, late.kind.as_str()), (StatusCode::GATEWAY_TIMEOUT, "/problems/deadline-exceeded"));
    assert!(late.detail.contains("ms after the deadline in its header x-request-deadline-ms"), "{}", late.detail);
    assert_eq!((path("invalid").await, path("refused").await), (1.0, 1.0));
    assert_eq!(replica.metric("store_queries_total").await, queries, "no work was begun");

    // The store does not answer, and the server's own deadline is five seconds.
    let lock = fixture.lock_tables().await;
    let (status, exceeded) = problem(get(&replica, fixture.user(5), &in_ms(800)).await).await;
    assert_eq!((status, exceeded.kind.as_str()), (StatusCode::GATEWAY_TIMEOUT, "/problems/deadline-exceeded"));
    drop(lock);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_for_a_client_that_has_gone_is_counted() {
    let Some(fixture) = Fixture::start().await else { return };
    // With coalescing the load outlives its requests, and its read has a caller to the end.
    for (profile, reads, loads) in [(Profile::Baseline, 1.0, 0.0), (Profile::Protected, 0.0, 1.0)] {
        let mut config = fixture.config(profile);
        // Neither ends before the lock is dropped, however busy the machine is.
        (config.http.deadline_ms, config.store.statement_timeout_ms) = (60_000, 60_000);
        (config.guards.warmup, config.guards.refresh_ahead) = (false, false);
        let replica = Replica::start(config).await;
        // Whose list is not cached yet.
        let user = fixture.user(if profile == Profile::Baseline { 10 } else { 11 });
        let lock = fixture.lock_tables().await;
        let url = format!("{}/recommendations?user_id={user}", replica.base);
        let left = replica.http.get(url).timeout(Duration::from_millis(300)).send().await;
        assert!(left.unwrap_err().is_timeout());
        wait_until("the client has gone", async || replica.metric(GONE).await == 1.0).await;
        assert_eq!((replica.metric(READS).await, replica.metric(LOADS).await), (0.0, 0.0), "{profile}");
        drop(lock);
        wait_until("the work was in vain", async || replica.metric(READS).await + replica.metric(LOADS).await > 0.0)
            .await;
        assert_eq!((replica.metric(READS).await, replica.metric(LOADS).await), (reads, loads), "{profile}");
        // A client that waits gets its answer, and its work is not in vain.
        assert_eq!(replica.recommend(fixture.user(12), 5).await.items.len(), 5);
        assert_eq!((replica.metric(READS).await, replica.metric(LOADS).await), (reads, loads), "{profile}");
    }
}
