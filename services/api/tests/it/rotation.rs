//! Filters rotate during many sign-ups, and every replica keeps a valid filter: existing users get answers all the time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::Profile;
use contract::http::{Recommendations, Source};
use reqwest::{Client, StatusCode};

use crate::{Fixture, Replica, wait_until};

const REPLICAS: usize = 3;
/// Rotations after which each replica has to rebuild.
const ROTATIONS: f64 = 5.0;
const ROTATE_AFTER: u64 = 300;
/// Unknown ids in one request.
const BATCH: usize = 150;

async fn post(http: &Client, base: &str, path: &str, body: String) -> StatusCode {
    let request = http.post(format!("{base}{path}")).header("content-type", "application/json");
    request.body(body).send().await.unwrap().status()
}

/// Sends events of new users until `stop`. Each request is bounded.
async fn flood(base: String, number: usize, item: String, stop: Arc<AtomicBool>) {
    let http = Client::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let event =
            |n: usize| format!(r#"{{"user_id":"flood-{number}-{round}-{n}","item_id":"{item}","event":"view"}}"#);
        let events: Vec<String> = (0..BATCH).map(event).collect();
        let status = post(&http, &base, "/events", format!("[{}]", events.join(","))).await;
        assert!(matches!(status, StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE), "{status}");
    }
}

/// Signs up, acts, and is read through every replica from then on.
async fn sign_up(bases: Vec<String>, item: String, users: Arc<Mutex<Vec<String>>>, stop: Arc<AtomicBool>) {
    let http = Client::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (user, base) = (format!("real-{n}"), &bases[n % bases.len()]);
        let event = format!(r#"{{"user_id":"{user}","item_id":"{item}","event":"purchase"}}"#);
        assert_eq!(post(&http, base, "/users", format!(r#"{{"user_id":"{user}"}}"#)).await, StatusCode::CREATED);
        assert_eq!(post(&http, base, "/events", event).await, StatusCode::ACCEPTED);
        users.lock().unwrap().push(user);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads the latest user repeatedly.
async fn read(base: String, users: Arc<Mutex<Vec<String>>>, reads: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    let http = Client::new();
    while !stop.load(Ordering::Relaxed) {
        let recent: Vec<String> = users.lock().unwrap().iter().rev().take(100).cloned().collect();
        for user in &recent {
            let answer = http.get(format!("{base}/recommendations?user_id={user}&limit=3")).send().await.unwrap();
            let (status, body) = (answer.status(), answer.bytes().await.unwrap());
            assert_eq!(status, StatusCode::OK, "{user}: {}", String::from_utf8_lossy(&body));
            let answer: Recommendations = serde_json::from_slice(&body).unwrap();
            assert_ne!(answer.source, Source::Popular, "{user} signed up and is called unknown");
            reads.fetch_add(1, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_new_users_leave_every_filter_valid() {
    let Some(fixture) = Fixture::start().await else { return };
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        let mut config = fixture.config(Profile::Protected);
        config.guards.warmup = false;
        config.guards.bloom_rebuild_newcomers = ROTATE_AFTER;
        // Unverified users are refused: no list in Redis hides that.
        config.guards.unsure_loads = 1;
        config.cache.fresh_ms = 1;
        config.cache.stale_ms = 0;
        // The machine is shared with other tests; this test is not about timeouts.
        config.http.deadline_ms = 60_000;
        config.redis.response_timeout_ms = 30_000;
        config.store.checkout_timeout_ms = 30_000;
        replicas.push(Replica::start(config).await);
    }
    let bases: Vec<String> = replicas.iter().map(|replica| replica.base.clone()).collect();
    let (stop, users, reads) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::new(AtomicUsize::new(0)));
    let item = fixture.seen(7)[0].to_owned();
    let mut tasks = vec![tokio::spawn(sign_up(bases.clone(), item.clone(), Arc::clone(&users), Arc::clone(&stop)))];
    for (n, base) in bases.iter().enumerate() {
        // Two requests at a time, each possibly for an unverified user.
        for _ in 0..2 {
            let (users, reads, stop) = (Arc::clone(&users), Arc::clone(&reads), Arc::clone(&stop));
            tasks.push(tokio::spawn(read(base.clone(), users, reads, stop)));
        }
        tasks.push(tokio::spawn(flood(base.clone(), n, item.clone(), Arc::clone(&stop))));
    }
    let sum = async |series: &str| {
        let mut sum = 0.0;
        for replica in &replicas {
            sum += replica.metric(series).await;
        }
        sum
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while sum("guard_rebuilds_total{reason=\"size\"}").await < ROTATIONS {
        assert!(tasks.iter().all(|task| !task.is_finished()), "a task failed");
        assert!(tokio::time::Instant::now() < deadline, "too few rotations");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Until every filter is of the current generation.
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(reads.load(Ordering::Relaxed) >= 100, "too few reads: this tested little");
    assert_eq!(sum("guard_checks_total{result=\"unsure\"}").await, 0.0);
    assert_eq!(sum("guard_rebuilds_total{reason=\"generation\"}").await, 0.0);
    wait_until("all have followed", async || {
        let current = sum("guard_generation_current").await;
        current == REPLICAS as f64
    })
    .await;
}
