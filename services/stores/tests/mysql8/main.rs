//! The tests of `it` on Oracle's MySQL 8, which has another optimiser, other locks and another syntax for statement timeouts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../it/arrivals.rs"]
mod arrivals;
#[path = "../it/crash.rs"]
mod crash;
#[path = "../it/failure.rs"]
mod failure;
#[path = "../it/fence.rs"]
mod fence;
#[path = "../it/ingest.rs"]
mod ingest;
#[path = "../it/relay.rs"]
mod relay;
#[path = "../it/servers.rs"]
mod servers;
#[path = "../it/shards.rs"]
mod shards;
#[path = "../it/silence.rs"]
mod silence;
#[path = "../it/transactions.rs"]
mod transactions;

use launcher::mariadb::{Flavour, Server};

use servers::Servers;

/// 140 MB and two seconds each.
const MANY: usize = 4;

/// The server of these tests; `None`: skipped.
async fn flavour() -> Option<Server> {
    match launcher::mysql8::provide().await {
        Ok(server) => {
            assert!(server.flavour == Flavour::MySql && server.version.starts_with("8."), "{server}");
            Some(server)
        }
        Err(reason) => {
            launcher::testing::skip(&format!("MySQL 8: {reason}"));
            None
        }
    }
}
