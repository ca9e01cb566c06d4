//! A failed transaction leaves nothing behind.

use contract::{Event, EventKind, ShardId, UserId, shard_of};
use runtime::telemetry::Span;
use sqlx::{AssertSqlSafe, Executor, MySqlConnection};

use crate::Servers;

fn event(user_id: &UserId) -> Event {
    Event { user_id: user_id.clone(), item_id: "item".parse().unwrap(), kind: EventKind::View, at_ms: 1, weight: 1.0 }
}

async fn run(connection: &mut MySqlConnection, sql: String) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop)
}

/// The first user's rows are written; another session has locked the second user's rows until the server's lock timeout. Then the
/// first user's rows must be unlocked at once, and the connection must be usable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_one_holds_no_locks() {
    let Some(mut servers) = Servers::start(1).await else { return };
    servers.config.pool_size = 1;
    let (mut holder, mut other) = (servers.connect().await, servers.connect().await);
    // Applies to new sessions.
    run(&mut other, "SET GLOBAL innodb_lock_wait_timeout = 1".into()).await.unwrap();
    let store = servers.store();
    let shard = ShardId::all().next().unwrap();
    let mut users: Vec<UserId> = (0..200)
        .map(|n| format!("u{n}").parse().unwrap())
        .filter(|id: &UserId| shard_of(id.as_str()) == shard)
        .collect();
    users.sort_unstable();
    let (first, second) = (&users[0], &users[1]);
    for user in [first, second] {
        store.create_user(user, 0, &Span::NONE).await.unwrap();
    }
    let lock = |user: &UserId, how: &str| {
        format!("SELECT events FROM {}.users WHERE user_id = '{user}' FOR UPDATE {how}", shard.schema())
    };
    run(&mut holder, "BEGIN".into()).await.unwrap();
    run(&mut holder, lock(second, "")).await.unwrap();

    store.append(&[event(first), event(second)], 0, &Span::NONE).await.unwrap_err();
    run(&mut other, lock(first, "NOWAIT")).await.expect("the failed transaction still locks its rows");
    assert_eq!(store.history(first, None, &Span::NONE).await.unwrap(), [], "it is rolled back whole");

    run(&mut holder, "ROLLBACK".into()).await.unwrap();
    store.append(&[event(first), event(second)], 0, &Span::NONE).await.unwrap();
    assert_eq!(store.history(second, None, &Span::NONE).await.unwrap().len(), 1);
    assert_eq!(servers.count("store_connects_total"), 1, "rolled back, not closed");
}
