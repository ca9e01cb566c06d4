//! Redis on a host that vanishes without closing connections.

use std::time::Duration;

use prometheus::Registry;
use redis::AsyncCommands;
use runtime::telemetry::Span;
use stores::{StoreMetrics, redis::RedisConfig};
use tokio::time::Instant;

use crate::relay::{BLACK_HOLES, Relay, bounded, until};

/// Also if no caller waits as long as the timeout of Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_counts_as_down_and_is_used_again() {
    if !launcher::testing::have(&["redis-server"]) {
        return;
    }
    let mut stack = launcher::Stack::create("test-stores-redis").unwrap();
    let server = launcher::redis::start(&mut stack, &launcher::redis::Options::default()).await.unwrap();
    for (fault, patience_ms) in [(BLACK_HOLES[0], 60_000), (BLACK_HOLES[1], 60_000), (BLACK_HOLES[0], 50)] {
        let relay = Relay::start(server.port).await;
        let url = format!("redis://{}/", relay.address);
        let config = RedisConfig { url, response_timeout_ms: 300, connect_timeout_ms: 300 };
        let metrics = StoreMetrics::new(&Registry::new()).unwrap().redis;
        let redis = config.guarded(metrics).unwrap();
        let ask = async || {
            let mut redis = redis.until(Instant::now() + Duration::from_millis(patience_ms), &Span::NONE);
            bounded("a command", redis.set::<_, _, ()>("key", "value")).await
        };
        until("it answers", async || ask().await.is_ok()).await;
        relay.vanish(fault).await;
        until("no further command is sent", async || {
            ask().await.is_err_and(|error| error.to_string().contains("redis is down"))
        })
        .await;
        relay.come_back().await;
        until("it is asked again", async || ask().await.is_ok()).await;
    }
}
