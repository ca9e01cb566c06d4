use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use faultproxy::{Client, Config, Fault, FaultKind, Law, Proxy, Route, bench::RawClient};
use runtime::{Endpoint, net::Stream};
use sqlx::Executor;
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Bed, CLASSIC, DEADLINE, connect, free};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latency_until_it_lifts_itself() {
    let Some(bed) = Bed::start("latency").await else { return };
    let mut raw = bed.proxy.raw(CLASSIC).await;
    bed.proxy.client.add_fault(Fault::Latency { ms: 120.0, jitter_ms: 20.0 }).await.unwrap();
    let start = Instant::now();
    raw.ping().await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(99));
    // In addition to the law, which ends on a grid of at most 8 ms.
    bed.proxy
        .client
        .set_law(Law::Linear { base_ms: 80.0, slope_ms: 0.0, crosstalk_ms: 0.0, spread: 0.0 })
        .await
        .unwrap();
    let start = Instant::now();
    raw.ping().await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(175));
    bed.proxy.client.set_law(Law::None).await.unwrap();
    let state = bed.proxy.state().await;
    assert_eq!(state.faults.len(), 1);
    assert_eq!((state.faults[0].spec.fault.kind(), state.faults[0].remaining_ms), (FaultKind::Latency, None));

    let short = Fault::Latency { ms: 1.0, jitter_ms: 0.0 }.for_ms(50);
    bed.proxy.client.add_fault(short).await.unwrap();
    bed.proxy.until("lifted", |state| state.faults.is_empty()).await;
    let added = bed.proxy.metric("faultproxy_added_delay_seconds_sum").await;
    raw.ping().await.unwrap();
    assert_eq!(bed.proxy.metric("faultproxy_added_delay_seconds_sum").await, added);
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stall_reads_and_answers_nothing_until_lifted() {
    let Some(bed) = Bed::start("stall").await else { return };
    let mut raw = bed.proxy.raw(CLASSIC).await;
    let mut busy = bed.proxy.sqlx().await;
    let commands = bed.proxy.state().await.commands_total;
    // One response is in flight when the store stalls.
    let sleeping = tokio::spawn(async move { busy.execute("DO SLEEP(0.2)").await.map(drop) });
    bed.proxy.until("busy", |state| state.in_flight == 1).await;
    bed.proxy.client.add_fault(Fault::Stall).await.unwrap();
    let pinged = tokio::spawn(async move { raw.ping().await });
    let connecting = tokio::spawn(connect(bed.proxy.address));
    bed.proxy.until("ping read and connection accepted", |state| state.in_flight == 2 && state.connections == 3).await;
    // The real server has answered the sleeping query; the response is held.
    let start = Instant::now();
    while bed.proxy.metric("faultproxy_upstream_seconds_count").await < (commands + 1) as f64 {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bed.proxy.state().await.in_flight, 2);
    assert!(!pinged.is_finished() && !connecting.is_finished() && !sleeping.is_finished());
    bed.proxy.client.lift(FaultKind::Stall).await.unwrap();
    pinged.await.unwrap().unwrap();
    sleeping.await.unwrap().unwrap();
    connecting.await.unwrap().execute("DO 1").await.unwrap();
    bed.proxy.until("idle", |state| state.in_flight == 0).await;
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_closes_what_is_there_once() {
    let Some(bed) = Bed::start("reset").await else { return };
    let mut idle = bed.proxy.raw(CLASSIC).await;
    let mut busy = bed.proxy.raw(CLASSIC).await;
    busy.send(0, b"\x03DO SLEEP(30)").await.unwrap();
    bed.proxy.until("busy", |state| state.in_flight == 1).await;
    bed.proxy.client.add_fault(Fault::Reset).await.unwrap();
    for raw in [&mut idle, &mut busy] {
        let error = raw.stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let state = bed.proxy.until("empty", |state| state.in_flight == 0 && state.connections == 0).await;
    assert!(state.faults.is_empty() && state.malformed_total == 0, "{state:?}");
    bed.proxy.raw(CLASSIC).await.ping().await.unwrap();

    // With a duration, new connections are reset too.
    bed.proxy.client.add_fault(Fault::Reset.for_ms(60_000)).await.unwrap();
    // The RST may arrive before `connect` returns.
    let error = match TcpStream::connect(bed.proxy.address).await {
        Ok(mut stream) => stream.read_u8().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    bed.proxy.client.clear().await.unwrap();
    bed.proxy.raw(CLASSIC).await.ping().await.unwrap();
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuse_turns_new_connections_away() {
    let Some(bed) = Bed::start("refuse").await else { return };
    let mut before = bed.proxy.raw(CLASSIC).await;
    bed.proxy.client.add_fault(Fault::Refuse).await.unwrap();
    let start = Instant::now();
    // The listener learns of it shortly after the API's response; connections in its accept queue are reset.
    loop {
        match TcpStream::connect(bed.proxy.address).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            Ok(_) => {}
        }
        assert!(start.elapsed() < DEADLINE);
    }
    before.ping().await.unwrap();
    bed.proxy.client.clear().await.unwrap();
    let start = Instant::now();
    while TcpStream::connect(bed.proxy.address).await.is_err() {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bed.proxy.raw(CLASSIC).await.ping().await.unwrap();
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_takes_everything_and_gives_nothing_back() {
    let Some(bed) = Bed::start("blackhole").await else { return };
    let (mut idle, mut busy) = (bed.proxy.raw(CLASSIC).await, bed.proxy.raw(CLASSIC).await);
    busy.send(0, b"\x03DO SLEEP(0.2)").await.unwrap();
    bed.proxy.until("busy", |state| state.in_flight == 1).await;
    bed.proxy.client.add_fault(Fault::Blackhole { drop_syn: false }).await.unwrap();
    // The store's connections are closed while all client connections are open.
    bed.proxy.until("no command counts", |state| state.in_flight == 0 && state.connections == 2).await;
    let mut fresh = TcpStream::connect(bed.proxy.address).await.unwrap();
    idle.send(0, b"\x0e").await.unwrap();
    bed.proxy.until("accepted", |state| state.connections == 3).await;
    let silent = async |stream: &mut TcpStream| {
        let read = timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
    };
    for stream in [&mut busy.stream, &mut idle.stream] {
        let Stream::Tcp(stream) = stream else { panic!("not TCP") };
        silent(stream).await;
    }
    silent(&mut fresh).await;

    // Connections from before stay silent; new ones are served.
    bed.proxy.client.clear().await.unwrap();
    bed.proxy.raw(CLASSIC).await.ping().await.unwrap();
    let Stream::Tcp(stream) = &mut idle.stream else { panic!("not TCP") };
    silent(stream).await;
    silent(&mut fresh).await;
    bed.proxy.client.add_fault(Fault::Reset).await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    bed.proxy.until("empty", |state| state.connections == 0).await;
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_segment_makes_a_command_late() {
    let Some(bed) = Bed::start("loss").await else { return };
    let mut raw = bed.proxy.raw(CLASSIC).await;
    bed.proxy.client.add_fault(Fault::Loss { pct: 20.0, seed: 7 }).await.unwrap();
    let start = Instant::now();
    // Nothing is lost for good: every command is answered, at least one late by a retransmission timeout.
    while bed.proxy.metric("faultproxy_added_delay_seconds_sum").await < 0.2 {
        raw.ping().await.unwrap();
        assert!(start.elapsed() < DEADLINE);
    }
    bed.proxy.client.lift(FaultKind::Loss).await.unwrap();
    let added = bed.proxy.metric("faultproxy_added_delay_seconds_sum").await;
    raw.ping().await.unwrap();
    assert_eq!(bed.proxy.metric("faultproxy_added_delay_seconds_sum").await, added);
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unix_sockets_on_both_sides() {
    let Some(bed) = Bed::start("unix").await else { return };
    let listen = Endpoint::Unix(bed.stack.socket_path("proxy"));
    let upstream = Endpoint::Unix(bed.server.socket.clone());
    let listeners = vec![Route::new(listen.clone(), upstream)];
    let config = Config { listeners, links: Vec::new(), admin: free(), law: Law::None, max_connections: 64 };
    let proxy = Proxy::bind(config).await.unwrap();
    let client = Client::new(&proxy.admin_url()).unwrap();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(proxy.serve(shutdown.clone()));

    let mut before = RawClient::login(&listen, "root", CLASSIC).await.unwrap();
    client.add_fault(Fault::Refuse).await.unwrap();
    let start = Instant::now();
    while listen.connect().await.is_ok() {
        assert!(start.elapsed() < DEADLINE);
    }
    before.ping().await.unwrap();
    client.clear().await.unwrap();
    while listen.connect().await.is_err() {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.add_fault(Fault::Reset).await.unwrap();
    before.ping().await.unwrap_err();
    RawClient::login(&listen, "root", CLASSIC).await.unwrap().ping().await.unwrap();
    shutdown.cancel();
    tokio::time::timeout(DEADLINE, served).await.unwrap().unwrap().unwrap();
    bed.stack.stop().await.unwrap();
}
