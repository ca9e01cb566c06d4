use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Json, Router, routing::any};
use heartbeat::{assign::Table, transport::assignments::Assignments};
use stores::StoreConfig;
use tokio_util::sync::CancellationToken;
use worker::{WorkerConfig, config::Monitor};

const DEADLINE: Duration = Duration::from_secs(60);
/// Forged answers after which the worker would have followed one of them.
const ANSWERS: usize = 5;

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waited).await.is_ok(), "not within {DEADLINE:?}: {what}");
}

#[tokio::test]
async fn a_worker_does_not_follow_a_table_without_the_monitors_seal() {
    let (asked, listener) =
        (Arc::new(AtomicUsize::new(0)), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let monitor = listener.local_addr().unwrap();
    let forged = Assignments { table: Table { epoch: u64::MAX, ..Table::default() }.into(), ..Assignments::default() };
    let (forged, count) = (Arc::new(forged), Arc::clone(&asked));
    let answer = move || {
        count.fetch_add(1, Relaxed);
        std::future::ready(Json(Arc::clone(&forged)))
    };
    let fake = Router::new().route("/partitions", any(answer));
    tokio::spawn(async move { axum::serve(listener, fake).await.unwrap() });

    let free = || SocketAddr::from(([127, 0, 0, 1], launcher::free_port().unwrap()));
    let mut config = WorkerConfig::new("w", StoreConfig::spread_over(&[free().to_string()]));
    config.node.key = "a key for tests".into();
    (config.listen.http, config.listen.udp, config.listen.admin) = (free(), free(), free());
    config.listen.drain_ms = 0;
    config.beats.interval_ms = 100;
    config
        .monitors
        .insert("m".into(), Monitor { http: monitor.to_string(), beats: free().to_string(), rpc: String::new() });
    let (stop, http) = (CancellationToken::new(), runtime::http::plain().timeout(DEADLINE).build().unwrap());
    let url = format!("http://{}/partitions", config.listen.http);
    let serving = tokio::spawn(worker::serve(config, stop.clone()));
    eventually("the forged table was polled", async || asked.load(Relaxed) >= ANSWERS).await;
    let mut epoch = None;
    eventually("the worker answers", async || {
        let Ok(answer) = http.get(&url).send().await else { return false };
        epoch = Some(answer.json::<Table>().await.unwrap().epoch);
        true
    })
    .await;
    assert_eq!(epoch, Some(0), "the worker follows a forged table");
    stop.cancel();
    serving.await.unwrap().unwrap();
}
