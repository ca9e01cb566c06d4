//! Replicas come and go behind nginx without a lost request, and what is lost without slots.

mod light;
mod users;

use std::{path::PathBuf, time::Duration};

use api::{ApiConfig, Profile};
use launcher::{Stack, free_port, nginx};

use self::{
    light::{Light, Received},
    users::Users,
};
use crate::{Fixture, Replica, wait_until};

const FEW: usize = 8;
const MANY: usize = 20;
const ROUNDS: usize = 10;
/// Longer than any test takes: a replica that was given less time might close a connection on a slow machine.
const LEAVE: Duration = Duration::from_secs(60);
/// Rounds in which a negative control must lose a request.
const ROUNDS_UNTIL_A_LOSS: usize = 100;
const SLOTS: nginx::Slots = nginx::Slots { skip: Duration::from_secs(1), idle: Duration::from_millis(300) };

/// nginx in front of the sockets of `count` replicas.
struct Gateway {
    stack: Stack,
    nginx: nginx::Nginx,
    options: nginx::Options,
}

impl Gateway {
    /// `None`: skipped.
    async fn start(count: usize, slots: Option<nginx::Slots>) -> Option<Self> {
        if !launcher::testing::have(&["nginx"]) {
            return None;
        }
        let mut stack = Stack::create("test-slots").unwrap();
        let upstreams = upstreams(&stack, count);
        let listen_port = free_port().unwrap();
        let options = nginx::Options { listen_port, upstreams, worker_processes: 2, access_log: None, slots };
        let nginx = nginx::start(&mut stack, &options).await.unwrap();
        Some(Self { stack, nginx, options })
    }

    fn socket(&self, n: usize) -> PathBuf {
        socket(&self.stack, n)
    }
}

fn socket(stack: &Stack, n: usize) -> PathBuf {
    stack.socket_path(&format!("api-{n}"))
}

fn upstreams(stack: &Stack, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("unix:{}", socket(stack, n).display())).collect()
}

/// Starts replicas and waits until each has answered a request.
async fn come(gateway: &Gateway, numbers: std::ops::Range<usize>, received: &Received, leave: Duration) -> Vec<Light> {
    let lights: Vec<Light> = numbers.map(|n| Light::start(gateway.socket(n), received, leave)).collect();
    wait_until("each replica has answered", async || lights.iter().all(|light| light.answered() > 0)).await;
    lights
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_from_8_to_20_to_8_replicas() {
    let Some(gateway) = Gateway::start(MANY, Some(SLOTS)).await else { return };
    let received = Received::default();
    let few: Vec<Light> = (0..FEW).map(|n| Light::start(gateway.socket(n), &received, LEAVE)).collect();
    wait_until("the first replica is there", async || few.iter().all(|light| light.is_there())).await;
    let users = Users::start(&gateway.nginx.url);
    for _ in 0..ROUNDS {
        let more = come(&gateway, FEW..MANY, &received, LEAVE).await;
        Light::stop_all(more).await;
    }
    let sent = users.stop().await;
    assert_eq!(sent.lost, [] as [String; 0], "of {} GETs and {} POSTs", sent.gets, sent.posts);
    assert!(sent.gets > 0 && sent.posts > 0);
    assert_eq!(received.posts(), sent.posts, "each POST reached one replica");
    Light::stop_all(few).await;
    gateway.stack.stop().await.unwrap();
}

/// Negative control. With hyper's graceful shutdown alone a replica closes connections on which a request has just arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_leave_requests_are_lost() {
    let Some(gateway) = Gateway::start(FEW + 4, Some(SLOTS)).await else { return };
    let received = Received::default();
    let few: Vec<Light> = (0..FEW).map(|n| Light::start(gateway.socket(n), &received, Duration::ZERO)).collect();
    wait_until("the first replicas are there", async || few.iter().all(|light| light.is_there())).await;
    let users = Users::start(&gateway.nginx.url);
    let mut rounds = 0;
    while users.lost() == 0 {
        rounds += 1;
        assert!(rounds <= ROUNDS_UNTIL_A_LOSS, "no request was lost in {} answers", users.answered());
        let more = come(&gateway, FEW..FEW + 4, &received, Duration::ZERO).await;
        Light::stop_all(more).await;
    }
    let sent = users.stop().await;
    println!(
        "lost {} of {} GETs and {} POSTs in {rounds} rounds: {:?}",
        sent.lost.len(),
        sent.gets,
        sent.posts,
        sent.lost
    );
    Light::stop_all(few).await;
    gateway.stack.stop().await.unwrap();
}

/// Negative control. The replicas stay: the reload alone loses requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_reload_requests_are_lost() {
    let Some(mut gateway) = Gateway::start(FEW, None).await else { return };
    let received = Received::default();
    let lights: Vec<Light> = (0..MANY).map(|n| Light::start(gateway.socket(n), &received, LEAVE)).collect();
    wait_until("the replicas are there", async || lights.iter().all(|light| light.is_there())).await;
    let users = Users::start(&gateway.nginx.url);
    let mut rounds = 0;
    while users.lost() == 0 {
        rounds += 1;
        assert!(rounds <= ROUNDS_UNTIL_A_LOSS, "no request was lost in {} answers", users.answered());
        gateway.options.upstreams = upstreams(&gateway.stack, if rounds % 2 == 1 { MANY } else { FEW });
        gateway.nginx.reload(&mut gateway.stack, &gateway.options).unwrap();
        let before = users.answered();
        wait_until("every user goes on", async || users.answered() > before + 2 * users::COUNT as u64).await;
    }
    let sent = users.stop().await;
    println!(
        "lost {} of {} GETs and {} POSTs in {rounds} reloads: {:?}",
        sent.lost.len(),
        sent.gets,
        sent.posts,
        sent.lost
    );
    gateway.stack.stop().await.unwrap();
    Light::stop_all(lights).await;
}

fn config(fixture: &Fixture, gateway: &Gateway, n: usize) -> ApiConfig {
    let mut config = fixture.config(Profile::Protected);
    config.http.listen = runtime::Endpoint::Unix(gateway.socket(n));
    config.http.leave_ms = LEAVE.as_millis() as u64;
    config
}

async fn answers(replica: &Replica) -> f64 {
    replica.metric("http_server_request_duration_seconds_count").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_come_and_go_under_load() {
    let Some(gateway) = Gateway::start(4, Some(SLOTS)).await else { return };
    let Some(fixture) = Fixture::start().await else { return };
    let few = [0, 1].map(|n| Replica::start(config(&fixture, &gateway, n)));
    let [first, second] = few;
    let (first, second) = (first.await, second.await);
    let users = Users::start(&gateway.nginx.url);
    for _ in 0..2 {
        let (third, fourth) =
            tokio::join!(Replica::start(config(&fixture, &gateway, 2)), Replica::start(config(&fixture, &gateway, 3)));
        wait_until("the new replicas answer", async || answers(&third).await > 0.0 && answers(&fourth).await > 0.0)
            .await;
        tokio::join!(third.stop(), fourth.stop());
        assert!(!gateway.socket(2).exists() && !gateway.socket(3).exists());
    }
    let sent = users.stop().await;
    assert_eq!(sent.lost, [] as [String; 0], "of {} GETs and {} POSTs", sent.gets, sent.posts);

    // A killed one leaves its file. Its slot costs no request, and can be used again.
    second.kill().await;
    assert!(gateway.socket(1).exists());
    let users = Users::start(&gateway.nginx.url);
    let again = Replica::start(config(&fixture, &gateway, 1)).await;
    wait_until("the new replica answers", async || answers(&again).await > 0.0).await;
    let sent = users.stop().await;
    assert_eq!(sent.lost, [] as [String; 0], "of {} GETs and {} POSTs", sent.gets, sent.posts);
    tokio::join!(first.stop(), again.stop());
    gateway.stack.stop().await.unwrap();
}
