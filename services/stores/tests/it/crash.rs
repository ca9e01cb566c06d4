//! Acknowledged writes survive a kill of the server.

use std::time::Duration;

use contract::{Event, EventKind, shard_of};
use prometheus::Registry;
use runtime::telemetry::Span;

use crate::Servers;

/// A user, an event and a fence, each acknowledged just before the kill. Repeated, because the server may happen to flush its log in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9() {
    let Some(mut servers) = Servers::start(1).await else { return };
    for round in 1..=3_u64 {
        servers.registry = Registry::new();
        let store = servers.store();
        let event = Event {
            user_id: format!("acted {round}").parse().unwrap(),
            item_id: "item".parse().unwrap(),
            kind: EventKind::View,
            at_ms: 1,
            weight: 1.0,
        };
        let signed_up = format!("signed up {round}").parse().unwrap();
        let shard = shard_of("any");
        assert!(store.create_user(&signed_up, 0, &Span::NONE).await.unwrap());
        store.append(std::slice::from_ref(&event), 0, &Span::NONE).await.unwrap();
        store.fence(shard, round, 7, Duration::from_secs(60)).await.unwrap().unwrap();
        assert_eq!(store.count(shard, round, 7).await.unwrap(), Ok(round));
        servers.kill_first().await;
        servers.restart_first().await;

        servers.registry = Registry::new();
        let store = servers.store();
        assert!(!store.create_user(&signed_up, 0, &Span::NONE).await.unwrap(), "the user is gone, round {round}");
        let history = store.history(&event.user_id, None, &Span::NONE).await.unwrap();
        assert_eq!(history.len(), 1, "the event is gone, round {round}");
        let ownership = store.ownership(shard).await.unwrap();
        assert_eq!((ownership.epoch, ownership.owner, ownership.counter), (round, 7, round), "the fence is gone");
    }
}
