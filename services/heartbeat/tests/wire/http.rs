use std::{net::SocketAddr, sync::Arc};

use heartbeat::{
    assign::Table,
    auth::{FrameKind, Header, Reject},
    clock::wall_ms,
    codec::{Codec, Json, Protobuf},
    frame::{Poll, sign_beat, sign_control, verify_reply},
    message::{Batch, Beat},
    transport::{
        assignments::{self, Assignments},
        http::{AUTHENTICATED, PROTOBUF, Received, Unauthenticated, router},
    },
};
use reqwest::{Client, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::support::{Monitor, beat, keys};

async fn serve(monitor: &Monitor, plain: Unauthenticated) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/heartbeat", listener.local_addr().unwrap());
    let app = router(Arc::clone(&monitor.ingest), plain);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn the_articles_get_is_a_beat_each_time() {
    let mut monitor = Monitor::new();
    let url = serve(&monitor, Unauthenticated::Accepted).await;
    for _ in 0..2 {
        let answer = reqwest::get(format!("{url}?id=node-1")).await.unwrap();
        assert_eq!(answer.json::<Received>().await.unwrap().outcome, "received");
        let (peer, beat) = monitor.next().await;
        assert_eq!((beat.node_id.as_str(), beat.sequence, peer.ip().is_loopback()), ("node-1", 0, true));
    }
    // Numbered heartbeats are accepted once.
    let counted = format!("{url}?id=node-2&sequence=7&incarnation=3&load=0.5");
    for outcome in ["received", "repeated"] {
        let answer = reqwest::get(&counted).await.unwrap().json::<Received>().await.unwrap();
        assert_eq!(answer.outcome, outcome);
    }
    for query in ["", "?id=", "?id=a%0Ab", "?id=x&sequence=-1", "?id=x&load=NaN"] {
        let answer = reqwest::get(format!("{url}{query}")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.json::<Value>().await.unwrap()["status"], 400, "{query}");
    }
}

#[tokio::test]
async fn bodies_in_json_protobuf_and_sealed() {
    let mut monitor = Monitor::new();
    let url = serve(&monitor, Unauthenticated::Refused).await;
    let client = Client::new();
    let post = async |kind: &str, body: Vec<u8>| {
        client.post(&url).header(CONTENT_TYPE, kind).body(body).send().await.unwrap().status()
    };
    let (mut json, mut protobuf, mut sealed) = (Vec::new(), Vec::new(), Vec::new());
    Json.encode(&beat("a", 1), &mut json).unwrap();
    Protobuf.encode(&beat("b", 1), &mut protobuf).unwrap();
    sign_beat(&keys(), &mut Protobuf, &beat("c", 1), false, &mut sealed).unwrap();
    assert_eq!(post("application/json", json.clone()).await, StatusCode::UNAUTHORIZED);
    assert_eq!(post(PROTOBUF, protobuf.clone()).await, StatusCode::UNAUTHORIZED);
    assert_eq!(post(AUTHENTICATED, sealed.clone()).await, StatusCode::OK);
    assert_eq!(monitor.next().await.1.node_id, "c");
    *sealed.last_mut().unwrap() ^= 1;
    assert_eq!(post(AUTHENTICATED, sealed).await, StatusCode::UNAUTHORIZED);
    monitor.until_rejected(Reject::Mac, 3).await;

    let mut trusting = Monitor::new();
    let url = serve(&trusting, Unauthenticated::Accepted).await;
    let post = async |kind: &str, body: Vec<u8>| {
        client.post(&url).header(CONTENT_TYPE, kind).body(body).send().await.unwrap().status()
    };
    assert_eq!(post("application/json; charset=utf-8", json).await, StatusCode::OK);
    assert_eq!(post(PROTOBUF, protobuf).await, StatusCode::OK);
    assert_eq!((trusting.next().await.1.node_id, trusting.next().await.1.node_id), ("a".to_owned(), "b".to_owned()));
    assert_eq!(post("text/plain", b"hello".to_vec()).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(post("application/json", b"{\"node_id\":\"".to_vec()).await, StatusCode::BAD_REQUEST);
    assert_eq!(post(PROTOBUF, vec![0xff; 20]).await, StatusCode::BAD_REQUEST);
    assert_eq!(post(PROTOBUF, vec![0; 300_000]).await, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_life_that_cannot_have_begun_is_nobodys() {
    let mut monitor = Monitor::new();
    let url = serve(&monitor, Unauthenticated::Accepted).await;
    let late = |node: &str| Beat { incarnation: u64::MAX, ..beat(node, 1) };
    let get = |incarnation: u64| reqwest::get(format!("{url}?id=a&sequence=1&incarnation={incarnation}"));
    let answer = get(u64::MAX).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let problem = answer.json::<Value>().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("more than a day ahead"), "{problem}");
    let client = Client::new();
    let post = async |kind: FrameKind, codec: &mut dyn Codec, body: &[u8]| {
        let (mut frame, header) = (Vec::new(), Header { kind, codec: codec.id(), ack_wanted: false });
        let sealed = keys().sign(header, &mut frame, |out| {
            out.extend_from_slice(body);
            Ok::<_, ()>(())
        });
        sealed.unwrap();
        client.post(&url).header(CONTENT_TYPE, AUTHENTICATED).body(frame).send().await.unwrap().status()
    };
    for (n, codec) in [&mut Json as &mut dyn Codec, &mut Protobuf].into_iter().enumerate() {
        let mut body = Vec::new();
        codec.encode(&late("a"), &mut body).unwrap();
        assert_eq!(post(FrameKind::Beat, codec, &body).await, StatusCode::BAD_REQUEST);
        // The others of the batch are accepted.
        let batch = |incarnation, beats| Batch { sender: format!("agent-{n}"), sequence: 1, incarnation, beats };
        body.clear();
        codec.encode_batch(&batch(1, vec![late("a"), beat(["b", "c"][n], 1)]), &mut body).unwrap();
        assert_eq!(post(FrameKind::Batch, codec, &body).await, StatusCode::OK);
        assert_eq!(monitor.next().await.1.node_id, ["b", "c"][n]);
        body.clear();
        codec.encode_batch(&batch(u64::MAX, vec![]), &mut body).unwrap();
        assert_eq!(post(FrameKind::Batch, codec, &body).await, StatusCode::BAD_REQUEST);
    }
    monitor.until_rejected(Reject::FutureIncarnation, 7).await;
    // The node itself is not blocked.
    assert_eq!(get(wall_ms()).await.unwrap().json::<Received>().await.unwrap().outcome, "received");
    assert_eq!(monitor.next().await.1.node_id, "a");
}

#[tokio::test]
async fn a_flood_of_plain_polls_is_bounded_and_workers_still_poll() {
    let (latest, seen) = watch::channel(Arc::<Assignments>::default());
    let app = assignments::router(seen.clone()).merge(assignments::authenticated(seen, keys(), 8, |_, _| ()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/partitions", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let client = Client::new();
    let mut polls = JoinSet::new();
    for _ in 0..=256 {
        let poll = client.get(format!("{url}?wait_ms=30000"));
        polls.spawn(async move { poll.send().await.unwrap().status() });
    }
    assert_eq!(polls.join_next().await.unwrap().unwrap(), StatusCode::SERVICE_UNAVAILABLE, "one is too many");
    let post = async |body: Vec<u8>| client.post(&url).body(body).send().await.unwrap();
    let question = sign_control(&keys(), &Poll { node: "w".into(), epoch: 0, wait_ms: 30_000, nonce: 1 }).unwrap();
    let next = Assignments { table: Table { epoch: 7, ..Table::default() }.into(), ..Assignments::default() };
    let (answer, ()) = tokio::join!(post(question.clone()), async {
        assert_eq!(post(b"not sealed".to_vec()).await.status(), StatusCode::UNAUTHORIZED);
        latest.send_replace(Arc::new(next.clone()));
    });
    let reply = answer.bytes().await.unwrap();
    assert_eq!(verify_reply(&keys(), FrameKind::Table, &question, &reply), Ok(next));
    while let Some(status) = polls.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
}
