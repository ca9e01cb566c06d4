use launcher::Signal;
use sqlx::Executor;
use tokio::net::TcpStream;

use crate::support::{Bed, CLASSIC, DEADLINE, Running, rest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_mid_command_costs_the_connection_only() {
    let Some(mut bed) = Bed::start("killed").await else { return };
    let mut busy = bed.proxy.sqlx().await;
    let sleeping = tokio::spawn(async move { busy.execute("DO SLEEP(60)").await.map(drop) });
    bed.proxy.until("busy", |state| state.in_flight == 1).await;
    bed.stack.kill(bed.server.child, Signal::SIGKILL).unwrap();
    let error = tokio::time::timeout(DEADLINE, sleeping).await.unwrap().unwrap().unwrap_err();
    assert!(error.as_database_error().is_none(), "{error}");
    let state = bed.proxy.until("empty", |state| state.in_flight == 0 && state.connections == 0).await;
    assert_eq!(state.malformed_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_lets_commands_finish() {
    let Some(bed) = Bed::start("drain").await else { return };
    let mut idle = bed.proxy.raw(CLASSIC).await;
    let mut busy = bed.proxy.sqlx().await;
    let sleeping = tokio::spawn(async move { busy.execute("DO SLEEP(0.5)").await.map(drop) });
    bed.proxy.until("busy", |state| state.in_flight == 1).await;
    bed.proxy.shutdown.cancel();
    assert!(rest(&mut idle.stream).await.is_empty());
    sleeping.await.unwrap().unwrap();
    tokio::time::timeout(DEADLINE, bed.proxy.served).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(bed.proxy.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_does_not_wait_for_ever() {
    let Some(bed) = Bed::start("deadline").await else { return };
    let mut raw = bed.proxy.raw(CLASSIC).await;
    raw.send(0, b"\x03DO SLEEP(600)").await.unwrap();
    bed.proxy.until("busy", |state| state.in_flight == 1).await;
    bed.proxy.shutdown.cancel();
    tokio::time::timeout(DEADLINE, bed.proxy.served).await.unwrap().unwrap().unwrap();
    assert!(rest(&mut raw.stream).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_limited() {
    let Some(bed) = Bed::start("limit").await else { return };
    let proxy = Running::with_max_connections(bed.direct(), 1).await;
    let mut first = proxy.raw(CLASSIC).await;
    let refusal = rest(&mut TcpStream::connect(proxy.address).await.unwrap()).await;
    assert_eq!(refusal, b"\x17\0\0\0\xff\x10\x04Too many connections");
    first.ping().await.unwrap();
    drop(first);
    proxy.until("empty", |state| state.connections == 0).await;
    proxy.raw(CLASSIC).await.ping().await.unwrap();
    bed.stack.stop().await.unwrap();
}
