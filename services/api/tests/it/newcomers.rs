//! A user who signed up is never absent: two replicas, sign-ups, reads, rotations, and a Redis that is restarted at arbitrary times.

use std::{
    collections::VecDeque,
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

const WRITERS: usize = 4;
const RESTARTS: usize = 5;
/// At least this number of users sign up before the last restart is over, so that the test is meaningful.
const ENOUGH: usize = 100;

/// The loop of a writer, until `stop`.
struct Writer {
    http: Client,
    bases: [String; 2],
    item: String,
    stop: Arc<AtomicBool>,
    signed_up: Arc<AtomicUsize>,
    recent: Recent,
}

/// The latest sign-ups. They are not in a filter yet, so that a guard could report them as absent.
type Recent = Arc<Mutex<VecDeque<String>>>;
const RECENT: usize = 30;

impl Writer {
    async fn run(self, number: usize) -> Vec<String> {
        let mut users = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let user = format!("w{number}-{}", users.len());
            // Another client asks for the id before, during and after the sign-up; its response is not checked.
            for base in &self.bases {
                let _ = self.http.get(format!("{base}/recommendations?user_id={user}")).send().await;
            }
            let asking = tokio::spawn({
                let (http, bases, user) = (self.http.clone(), self.bases.clone(), user.clone());
                async move {
                    for n in 0..6 {
                        let _ = http.get(format!("{}/recommendations?user_id={user}", bases[n % 2])).send().await;
                    }
                }
            });
            let here = &self.bases[users.len() % 2];
            self.insist(here, "/users", &format!(r#"{{"user_id":"{user}"}}"#)).await;
            let event = format!(r#"{{"user_id":"{user}","item_id":"{}","event":"purchase"}}"#, self.item);
            self.insist(here, "/events", &event).await;
            for base in self.bases.iter().chain(&self.bases) {
                must_be_known(&self.http, base, &user).await;
            }
            asking.await.unwrap();
            self.signed_up.fetch_add(1, Ordering::Relaxed);
            let mut recent = self.recent.lock().unwrap();
            recent.push_back(user.clone());
            if recent.len() > RECENT {
                recent.pop_front();
            }
            drop(recent);
            users.push(user);
        }
        users
    }

    /// Retries until the sign-up succeeds: while Redis is down, sign-ups are refused.
    async fn insist(&self, base: &str, path: &str, body: &str) {
        loop {
            let request = self.http.post(format!("{base}{path}")).header("content-type", "application/json");
            let status = request.body(body.to_owned()).send().await.unwrap().status();
            if status.is_success() {
                return;
            }
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Reads the latest users repeatedly, also at the time at which Redis is back and has lost them.
async fn read(base: String, recent: Recent, stop: Arc<AtomicBool>) {
    let http = Client::new();
    while !stop.load(Ordering::Relaxed) {
        let users: Vec<String> = recent.lock().unwrap().iter().rev().cloned().collect();
        for user in users {
            must_be_known(&http, &base, &user).await;
        }
        tokio::task::yield_now().await;
    }
}

/// The user has behaviour: any other response than a personal list means that the store was not asked.
async fn must_be_known(http: &Client, base: &str, user: &str) {
    let answer = http.get(format!("{base}/recommendations?user_id={user}&limit=3")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{user}");
    let answer: Recommendations = answer.json().await.unwrap();
    assert_ne!(answer.source, Source::Popular, "{user} signed up and is called unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_ups_race_reads_rotations_and_restarts_of_redis() {
    let Some(mut fixture) = Fixture::start().await else { return };
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let mut config = fixture.config(Profile::Protected);
        // Switched off, so that every read is checked: coalescing and negative caching could reuse another result.
        config.guards.coalesce = false;
        config.guards.negative = false;
        config.guards.warmup = false;
        // Rotations all the time, so that the other replica's filter becomes invalid.
        config.guards.bloom_rebuild_ms = 300;
        config.guards.unsure_loads = 10_000;
        replicas.push(Replica::start(config).await);
    }
    let bases = [replicas[0].base.clone(), replicas[1].base.clone()];
    let (stop, signed_up) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let recent = Recent::default();
    let readers = bases.clone().map(|base| tokio::spawn(read(base, Arc::clone(&recent), Arc::clone(&stop))));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let writer = Writer {
                http: Client::new(),
                bases: bases.clone(),
                item: fixture.seen(7)[0].to_owned(),
                stop: Arc::clone(&stop),
                signed_up: Arc::clone(&signed_up),
                recent: Arc::clone(&recent),
            };
            tokio::spawn(writer.run(number))
        })
        .collect();
    for restart in 1..=RESTARTS {
        // Restarts follow the writers' progress, so that they happen at any point of a round.
        while signed_up.load(Ordering::Relaxed) < restart * ENOUGH / RESTARTS {
            assert!(writers.iter().all(|writer| !writer.is_finished()), "a writer failed");
            tokio::time::sleep(Duration::from_millis(restart as u64)).await;
        }
        fixture.restart_redis().await;
    }
    // Continues without restarts until rotations have happened as well.
    for replica in &replicas {
        wait_until("it has rotated", async || {
            assert!(writers.iter().all(|writer| !writer.is_finished()), "a writer failed");
            replica.metric("guard_rebuilds_total{reason=\"schedule\"}").await >= 3.0
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let mut users = Vec::new();
    for writer in writers {
        users.extend(writer.await.unwrap());
    }
    assert!(users.len() >= ENOUGH);
    for user in &users {
        for base in &bases {
            must_be_known(&replicas[0].http, base, user).await;
        }
    }
    for replica in &replicas {
        assert!(replica.metric("guard_rebuilds_total{reason=\"generation\"}").await >= 1.0);
        // The guard is active: it answers for unknown ids. (Between two rotations the result may be unverified.)
        wait_until("an unknown id is called so", async || {
            replica.recommend("ghost", 1).await;
            replica.metric("guard_checks_total{result=\"absent\"}").await >= 1.0
        })
        .await;
    }
}
