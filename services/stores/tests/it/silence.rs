//! A server whose host has vanished sends nothing: every wait for it ends, and calls succeed again after it is back.

use std::time::Duration;

use contract::{Event, EventKind, UserId, shard_of};
use prometheus::Registry;
use runtime::telemetry::Span;
use stores::{Store, StoreError};
use tokio::time::Instant;

use crate::{
    Servers,
    relay::{BLACK_HOLES, BOUND, Relay, bounded, until},
};

/// Of a fence.
const LIMIT: Duration = Duration::from_secs(1);

/// A store behind a relay, with short timeouts.
async fn store_behind_relay(servers: &mut Servers) -> (Relay, Store) {
    let relay = Relay::start(servers.servers[0].port).await;
    servers.config.instances[0].address = relay.address.to_string();
    servers.config.statement_timeout_ms = 1_000;
    servers.config.checkout_timeout_ms = 1_000;
    servers.config.connect_timeout_ms = 1_000;
    servers.registry = Registry::new();
    let store = servers.store();
    store.open(4, BOUND).await.unwrap();
    (relay, store)
}

fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

/// The requests have shorter deadlines than an attempt to connect: the server must count as down nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misses_fail_at_once_soon_and_are_answered_again() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let (relay, store) = store_behind_relay(&mut servers).await;
    let ask = async |n| {
        let deadline = Instant::now() + Duration::from_millis(300);
        bounded("a miss", store.history(&user(n), Some(deadline), &Span::NONE)).await
    };
    for fault in BLACK_HOLES {
        until("answered", async || ask(0).await.is_ok()).await;
        relay.vanish(fault).await;
        until("connecting counts as failed", async || {
            let errors = futures::future::join_all((0..8).map(&ask)).await;
            errors.into_iter().any(|answer| matches!(answer, Err(StoreError::Down)))
        })
        .await;
        until("no query holds a connection", async || servers.gauge("db_client_connection_count", "used") == 0.0).await;
        relay.come_back().await;
        until("answered again", async || ask(0).await.is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_fences_end() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let (relay, store) = store_behind_relay(&mut servers).await;
    let event =
        Event { user_id: user(1), item_id: "item".parse().unwrap(), kind: EventKind::View, at_ms: 1, weight: 1.0 };
    let shard = shard_of("any");
    relay.vanish(BLACK_HOLES[0]).await;
    bounded("a sign-up", store.create_user(&user(1), 0, &Span::NONE)).await.unwrap_err();
    bounded("a batch", store.append(std::slice::from_ref(&event), 0, &Span::NONE)).await.unwrap_err();
    bounded("a fence", store.fence(shard, 1, 7, LIMIT)).await.unwrap_err();
    bounded("a check", store.verify(shard, 1, 7, LIMIT)).await.unwrap_err();
    bounded("a count", store.count(shard, 1, 7)).await.unwrap_err();
    bounded("warm-up", store.most_active(shard, 1)).await.unwrap_err();
    bounded("warm-up", store.histories(shard, &[user(1)], stores::Turn::default())).await.unwrap_err();
    bounded("a migration", stores::migrate(&servers.config)).await.unwrap_err();
    relay.come_back().await;
    until("written again", async || store.append(std::slice::from_ref(&event), 0, &Span::NONE).await.is_ok()).await;
    assert_eq!(store.fence(shard, 1, 7, BOUND).await.unwrap(), Ok(()));
}

/// The host vanished and came back without any request. One request finds out and retries; not one per idle connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_silent_connection_idle_ones_are_not_used() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let (relay, store) = store_behind_relay(&mut servers).await;
    relay.vanish(BLACK_HOLES[0]).await;
    relay.come_back().await;
    assert_eq!(servers.gauge("db_client_connection_count", "idle"), 4.0);
    bounded("a miss", store.history(&user(0), None, &Span::NONE)).await.unwrap();
    assert_eq!(servers.count("store_retries_total"), 1);
    // All four concurrently.
    let ask = async |n| store.history(&user(n), None, &Span::NONE).await;
    for answer in bounded("a miss", futures::future::join_all((1..5).map(&ask))).await {
        answer.unwrap();
    }
    assert_eq!(servers.count("store_retries_total"), 1);
}
