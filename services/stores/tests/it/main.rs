//! Tests on a real server: the installed one, usually MariaDB. `mysql8` runs the same tests on MySQL 8.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod arrivals;
mod crash;
mod failure;
mod fence;
mod ingest;
mod redis;
mod relay;
mod servers;
mod shards;
mod silence;
mod transactions;

use launcher::mariadb::Server;

use servers::Servers;

/// The servers of a test with several instances.
const MANY: usize = 16;

/// The server of these tests; `None`: skipped.
async fn flavour() -> Option<Server> {
    launcher::testing::have(&["mariadbd|mysqld"]).then(|| Server::find().unwrap())
}
