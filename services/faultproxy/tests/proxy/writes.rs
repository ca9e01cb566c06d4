//! Faults of writes, in front of a real server.

use std::time::Duration;

use faultproxy::{Fault, FaultKind, WriteError};
use sqlx::{Connection, Executor, MySqlConnection};
use tokio::time::timeout;

use crate::support::{Bed, CLASSIC, DEADLINE};

const ALL: Fault = Fault::FailWrites { pct: 100.0, seed: 1, error: WriteError::DiskFull };

/// Adds one row with a prepared statement, as the stores do.
async fn insert(sql: &mut MySqlConnection, id: i64) -> Result<(), String> {
    let inserted = sqlx::query("INSERT INTO d.t VALUES (?)").bind(id).execute(sql).await;
    match inserted {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) => {
            let number = error.try_downcast::<sqlx::mysql::MySqlDatabaseError>().unwrap().number();
            Err(number.to_string())
        }
        Err(other) => panic!("{other}"),
    }
}

async fn rows(sql: &mut MySqlConnection) -> i64 {
    sqlx::query_scalar("SELECT COUNT(*) FROM d.t").fetch_one(sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_fail_reads_pass_and_connections_stay_usable() {
    let Some(bed) = Bed::start("writes").await else { return };
    let (mut sql, client) = (bed.proxy.sqlx().await, &bed.proxy.client);
    sql.execute("CREATE DATABASE d; CREATE TABLE d.t (id BIGINT)").await.unwrap();
    // Prepared before the fault.
    insert(&mut sql, 1).await.unwrap();
    client.add_fault(ALL).await.unwrap();
    assert_eq!(insert(&mut sql, 2).await, Err("1021".into()));
    assert_eq!(rows(&mut sql).await, 1);
    // As text, in pieces, and longer than the proxy's buffer.
    let mut raw = bed.proxy.raw(CLASSIC).await;
    let long = [b"\x03UPDATE d.t SET id = 7 -- ".as_slice(), &[b'x'; 100_000]].concat();
    raw.send(0, &long).await.unwrap();
    let (seq, error) = raw.packet().await.unwrap();
    assert_eq!((seq, &error[..9]), (1, b"\xff\xfd\x03#HY000".as_slice()));
    raw.ping().await.unwrap();
    let read_only = Fault::FailWrites { pct: 100.0, seed: 1, error: WriteError::ReadOnly };
    client.add_fault(read_only).await.unwrap();
    assert_eq!(insert(&mut sql, 3).await, Err("1290".into()), "the newest fault of a kind is in force");
    // A commit is a write; what it would have committed is rolled back.
    client.clear().await.unwrap();
    let mut transaction = sql.begin().await.unwrap();
    insert(&mut transaction, 4).await.unwrap();
    client.add_fault(read_only).await.unwrap();
    transaction.commit().await.unwrap_err();
    sql.execute("ROLLBACK").await.unwrap();
    client.clear().await.unwrap();
    insert(&mut sql, 5).await.unwrap();
    assert_eq!(rows(&mut sql).await, 2);
    let state = bed.proxy.state().await;
    assert_eq!((state.listeners[0].failed_writes_total, state.malformed_total), (4, 0));
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_the_writes_fails() {
    let Some(bed) = Bed::start("share").await else { return };
    let mut sql = bed.proxy.sqlx().await;
    sql.execute("CREATE DATABASE d; CREATE TABLE d.t (id BIGINT)").await.unwrap();
    let share = Fault::FailWrites { pct: 30.0, seed: 5, error: WriteError::ReadOnly };
    bed.proxy.client.add_fault(share).await.unwrap();
    let mut failed = 0;
    for id in 0..400 {
        failed += i64::from(insert(&mut sql, id).await.is_err());
    }
    assert!((80..=160).contains(&failed), "{failed} of 400");
    assert_eq!(rows(&mut sql).await, 400 - failed);
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_stall_and_reads_pass() {
    let Some(bed) = Bed::start("stalled").await else { return };
    let (mut sql, mut other) = (bed.proxy.sqlx().await, bed.proxy.sqlx().await);
    sql.execute("CREATE DATABASE d; CREATE TABLE d.t (id BIGINT)").await.unwrap();
    bed.proxy.client.add_fault(Fault::StallWrites).await.unwrap();
    let writing = tokio::spawn(async move { insert(&mut sql, 1).await });
    bed.proxy.until("the write has arrived", |state| state.in_flight == 1).await;
    assert_eq!(rows(&mut other).await, 0);
    let mut writing = std::pin::pin!(writing);
    assert!(timeout(Duration::from_millis(50), &mut writing).await.is_err());
    bed.proxy.client.lift(FaultKind::StallWrites).await.unwrap();
    timeout(DEADLINE, writing).await.unwrap().unwrap().unwrap();
    assert_eq!(rows(&mut other).await, 1);
    bed.stack.stop().await.unwrap();
}
