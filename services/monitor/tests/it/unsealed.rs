//! Input of senders without the key, or recorded from those with it.

use std::collections::BTreeMap;

use axum::{Json, Router, routing::any};
use heartbeat::{
    auth::{FrameKind, Keys},
    clock::wall_ms,
    codec::Protobuf,
    frame::{sign_beat, sign_control, verify_reply},
    message::Beat,
    node_state::State,
    registry::{Registered, Registration},
    transport::http::AUTHENTICATED,
    vote::Ballot,
};
use launcher::testing;
use monitor::status::Status;
use tokio::{net::UdpSocket, task::JoinSet};

use crate::support::{INTERVAL, KEY, Monitors, eventually};

fn incarnation_and_state(status: &Status, id: &str) -> Option<(u64, State)> {
    status.nodes.iter().find(|node| &*node.id == id).map(|node| (node.incarnation, node.state))
}

/// The beat's datagram as the worker sends it.
fn datagram(node_id: &str, incarnation: u64, sequence: u64) -> Vec<u8> {
    let beat = Beat { node_id: node_id.into(), sequence, incarnation, timestamp: wall_ms(), ..Beat::default() };
    let mut datagram = Vec::new();
    sign_beat(&Keys::new(KEY.as_bytes()), &mut Protobuf, &beat, false, &mut datagram).unwrap();
    datagram
}

/// Registers, and believes only an authentic reply.
async fn register(monitors: &Monitors, registration: &Registration) {
    let keys = Keys::new(KEY.as_bytes());
    let question = sign_control(&keys, registration).unwrap();
    eventually("a monitor accepts the registration", async || {
        let post = monitors.sealed(0, registration).header("accept", AUTHENTICATED);
        let Ok(answer) = post.send().await else { return false };
        let reply = answer.bytes().await.unwrap();
        verify_reply(&keys, FrameKind::Registered, &question, &reply) == Ok(Registered::Registered)
    })
    .await;
}

#[tokio::test]
async fn a_forged_probe_answer_neither_refutes_a_suspicion_nor_hides_later_beats() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let monitors = Monitors::start("test-forged", 1).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (http, incarnation) = (listener.local_addr().unwrap().to_string(), wall_ms());
    let answer = || std::future::ready(Json(serde_json::json!({ "id": "a", "incarnation": u64::MAX })));
    let forger = Router::new().route("/probe", any(answer));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, forger).await.unwrap() });
    // Nothing answers probes over UDP.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let udp = silent.local_addr().unwrap().to_string();
    let registration = Registration { id: "a".into(), incarnation, process: 1, http, udp, leaving: false };
    register(&monitors, &registration).await;
    monitors
        .until(0, "the silent worker is failed", |status| {
            let Some((known, state)) = incarnation_and_state(status, "a") else { return false };
            assert_eq!(known, incarnation, "the monitor believes a forged incarnation");
            state.is_failed()
        })
        .await;
    monitors.stop().await;
}

#[tokio::test]
async fn recorded_beats_do_not_keep_a_dead_worker_alive_at_a_restarted_monitor() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut monitors = Monitors::start("test-recorded", 1).await;
    let worker = monitors.worker("a").await;
    monitors.until(0, "a is admitted", |status| status.table.is_online("a")).await;
    let incarnation = worker.registration.incarnation;
    monitors.end(0).await;
    drop(worker);
    monitors.run(0);

    // In order and at their rate, as the dead worker would send them.
    let (target, socket) = (monitors.configs[0].listen.udp, UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let mut replay = JoinSet::new();
    replay.spawn(async move {
        for sequence in 1.. {
            socket.send_to(&datagram("a", incarnation, sequence), target).await.ok();
            tokio::time::sleep(INTERVAL).await;
        }
    });
    monitors
        .until(0, "the dead worker is failed", |status| {
            incarnation_and_state(status, "a").is_some_and(|(_, state)| state.is_failed())
        })
        .await;
    let accepted = "testbed_heartbeat_beats_total{outcome=\"accepted\"} ";
    eventually("the recorded beats were authentic", async || {
        let metrics = monitors.metrics(0).await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(accepted));
        line.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 3)
    })
    .await;

    // A later process of the worker is heard at once.
    let _later = monitors.worker("a").await;
    monitors.until(0, "the next incarnation is admitted", |status| status.table.is_online("a")).await;
    monitors.stop().await;
}

#[tokio::test]
async fn the_workers_key_does_not_vote_where_the_monitors_have_their_own() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut monitors = Monitors::start("test-voters", 1).await;
    monitors.end(0).await;
    let secret = "a key of the monitors";
    monitors.configs[0].node.monitor_key = secret.into();
    monitors.run(0);
    monitors.until(0, "it is back", |status| status.registry_up).await;
    let ballot = async |key: &str| {
        let empty = BTreeMap::new;
        let ballot = Ballot {
            from: "m1".into(),
            session: 1,
            monitors_version: 1,
            round: 1,
            seen: empty(),
            failed: empty(),
            fit: empty(),
        };
        let frame = sign_control(&Keys::new(key.as_bytes()), &ballot).unwrap();
        let post = monitors.http.post(monitors.url(0, "/ballot")).header("content-type", AUTHENTICATED).body(frame);
        post.send().await.unwrap().status().as_u16()
    };
    assert_eq!((ballot(KEY).await, ballot(secret).await), (401, 204));
    monitors.stop().await;
}

#[tokio::test]
async fn monitors_and_workers_change_their_key_one_after_the_other() {
    if !testing::have(&["etcd"]) {
        return;
    }
    let mut monitors = Monitors::start("test-rotation", 3).await;
    let later = "a later key for tests";
    for n in 0..3 {
        monitors.end(n).await;
        let node = &mut monitors.configs[n].node;
        // The first monitor signs with the later key already.
        (node.key, node.accepted_key) = if n == 0 { (later.into(), KEY.into()) } else { (KEY.into(), later.into()) };
        monitors.run(n);
    }
    for n in 0..3 {
        monitors.until(n, "all monitors vote", |status| status.present == 3).await;
    }
    // This worker has the former key.
    let _worker = monitors.worker("a").await;
    for n in 0..3 {
        monitors.until(n, "the worker is admitted", |status| status.table.is_online("a")).await;
    }
    monitors.stop().await;
}
