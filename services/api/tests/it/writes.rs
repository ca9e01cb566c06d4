//! Events: their time, their order, and complete writes even if the client has disconnected.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::Profile;
use contract::{
    UserId,
    http::{Source, problem as kinds},
    keys,
};
use prometheus::Registry;
use reqwest::StatusCode;
use runtime::telemetry::Span;
use stores::{Store, StoreMetrics};

use crate::{Fixture, Replica, problem, wait_until};

fn event(user: &str, item: &str) -> String {
    format!(r#"{{"user_id":"{user}","item_id":"{item}","event":"view"}}"#)
}

/// Items of the user's history, newest first.
async fn history(fixture: &Fixture, user: &str) -> Vec<String> {
    let store = Store::new(fixture.store.clone(), &StoreMetrics::new(&Registry::new()).unwrap()).unwrap();
    let history = store.history(&UserId::new(user).unwrap(), None, &Span::NONE).await.unwrap();
    history.into_iter().map(|event| event.item_id.as_str().to_owned()).collect()
}

/// Events in the far future would always be the newest ones: a hundred of them would hide all later behaviour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_the_future_are_refused() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = |timestamp: u64| format!(r#"{{"user_id":"ahead","item_id":"i","event":"view","timestamp":{timestamp}}}"#);
    let good = at(now_s);
    for (body, field) in [
        (at(now_s + 600), "timestamp"),
        (at(4_102_444_800), "timestamp"),
        (format!("[{good},{}]", at(now_s + 86_400)), "events[1].timestamp"),
    ] {
        let (status, problem) = problem(replica.post("/events", &body).await).await;
        assert_eq!((status, problem.kind.as_str()), (StatusCode::BAD_REQUEST, kinds::INVALID_REQUEST), "{body}");
        assert_eq!(problem.field.as_deref(), Some(field));
        assert!(problem.detail.contains("300 s"), "the limit is named: {}", problem.detail);
    }
    assert_eq!(history(&fixture, "ahead").await, Vec::<String>::new(), "nothing of a refused batch is written");
    // Clocks differ a little.
    assert_eq!(replica.post("/events", &at(now_s + 120)).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_without_timestamps_keeps_its_order() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Baseline).await;
    // Not in the order of a key; two users alternate.
    let items: Vec<String> = (0..500).map(|n| format!("i{:05}", n * 7919 % 500)).collect();
    let events: Vec<String> = items.iter().flat_map(|item| [event("first", item), event("second", item)]).collect();
    assert_eq!(replica.post("/events", &format!("[{}]", events.join(","))).await.status(), StatusCode::ACCEPTED);
    let newest: Vec<&String> = items.iter().rev().collect();
    for user in ["first", "second"] {
        assert_eq!(history(&fixture, user).await.iter().collect::<Vec<_>>(), newest, "{user}");
    }
    // Events after the batch are newer than all of it.
    for (user, item) in [("first", "later"), ("second", "a")] {
        assert_eq!(replica.post("/events", &event(user, item)).await.status(), StatusCode::ACCEPTED);
        assert_eq!(history(&fixture, user).await[0], item);
    }
}

/// Posts an event that waits in the server, as the table is locked.
async fn blocked_post(replica: &Replica, user: &str, item: &str) -> tokio::task::JoinHandle<StatusCode> {
    let request = replica.http.post(format!("{}/events", replica.base)).header("content-type", "application/json");
    let request = request.body(event(user, item)).send();
    let answer = tokio::spawn(async move { request.await.unwrap().status() });
    wait_until("it is being written", async || replica.metric(crate::USED).await >= 1.0).await;
    answer
}

/// After a disconnect or a 504 the write continues: the old list must not stay in Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_client_has_left_still_deletes_the_old_list() {
    let Some(fixture) = Fixture::start().await else { return };
    for hangs_up in [true, false] {
        let mut config = fixture.config(Profile::Protected);
        config.http.deadline_ms = if hangs_up { 60_000 } else { 300 };
        let replica = Replica::start(config).await;
        let user = fixture.user(if hangs_up { 11 } else { 12 });
        let before = replica.recommend(user, 10).await;
        assert_eq!(before.source, Source::Cache);
        let item = before.items[0].item_id.as_str();
        let lock = fixture.lock_tables().await;
        let answer = blocked_post(&replica, user, item).await;
        if hangs_up {
            answer.abort();
            wait_until("the hang-up is noticed", async || replica.metric("http_server_active_requests").await == 0.0)
                .await;
        } else {
            assert_eq!(answer.await.unwrap(), StatusCode::GATEWAY_TIMEOUT);
        }
        drop(lock);
        wait_until("the answer takes the event in", async || {
            let answer = replica.get(&format!("/recommendations?user_id={user}&limit=10")).await;
            // With this short deadline a load may time out.
            let Ok(answer) = answer.json::<contract::http::Recommendations>().await else { return false };
            answer.items.iter().all(|scored| scored.item_id != item)
        })
        .await;
        assert_eq!(history(&fixture, user).await[0], item);
    }
}

/// A stopping replica completes the writes that it has started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_ends_before_its_replica_does() {
    let Some(fixture) = Fixture::start().await else { return };
    let replica = fixture.replica(Profile::Protected).await;
    let user = fixture.user(13);
    assert_eq!(replica.recommend(user, 10).await.source, Source::Cache);
    let lock = fixture.lock_tables().await;
    let answer = blocked_post(&replica, user, "i00001").await;
    answer.abort();
    wait_until("the hang-up is noticed", async || replica.metric("http_server_active_requests").await == 0.0).await;
    replica.stop.cancel();
    drop(lock);
    tokio::time::timeout(Duration::from_secs(20), replica.stop()).await.unwrap();
    assert_eq!(history(&fixture, user).await[0], "i00001");
    let client = redis::Client::open(fixture.redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let list: Option<Vec<u8>> =
        redis::cmd("GET").arg(keys::recommendations(user)).query_async(&mut connection).await.unwrap();
    assert_eq!(list, None, "the old list");
}

/// Writes have a separate limit from reads. A write whose client has left counts until it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_beyond_their_limit_are_refused_and_reads_go_on() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut config = fixture.config(Profile::Protected);
    config.http.writes_limit = 1;
    config.http.admission_limit = 1;
    config.http.admission_waiting = 0;
    config.http.deadline_ms = 60_000;
    let replica = Replica::start(config).await;
    let lock = fixture.lock_tables().await;
    let first = blocked_post(&replica, fixture.user(14), "i00001").await;
    let more = event(fixture.user(15), "i00001");
    for (path, body) in [("/events", more.as_str()), ("/users", r#"{"user_id":"one more"}"#)] {
        let answer = replica.post(path, body).await;
        assert_eq!(answer.headers()["retry-after"], "1", "{path}");
        let (status, problem) = problem(answer).await;
        assert_eq!((status, problem.kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, kinds::OVERLOADED), "{path}");
    }
    assert_eq!(replica.metric("http_writes_admission_rejected_total{reason=\"line_full\"}").await, 2.0);
    assert_eq!(replica.recommend(fixture.user(16), 10).await.source, Source::Cache);
    first.abort();
    wait_until("the hang-up is noticed", async || replica.metric("http_server_active_requests").await == 0.0).await;
    assert_eq!(replica.metric("http_writes_admission_in_flight").await, 1.0);
    assert_eq!(replica.post("/events", &more).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(lock);
    wait_until("the next one is taken", async || replica.post("/events", &more).await.status() == StatusCode::ACCEPTED)
        .await;
    assert_eq!(history(&fixture, fixture.user(14)).await[0], "i00001");
}
