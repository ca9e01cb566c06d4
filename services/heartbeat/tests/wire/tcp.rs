use std::{net::SocketAddr, sync::Arc, time::Duration};

use heartbeat::{
    auth::{FrameKind, Header, Reject},
    clock::Clock,
    codec::{Codec as _, CodecId, Protobuf},
    frame::sign_beat,
    message::Batch,
    reconnect::{Policy, State},
    transport::tcp::{FrameReader, Handle, Limits, Sender, Settings, receive, write_frame},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::support::{DEADLINE, Monitor, beat, keys};

const MS: u64 = 1_000_000;

async fn serve(monitor: &Monitor, at: SocketAddr) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind(at).await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(receive(listener, Arc::clone(&monitor.ingest), Limits::default(), stop.clone()));
    (address, stop)
}

fn free() -> SocketAddr {
    ([127, 0, 0, 1], launcher::free_port().unwrap()).into()
}

/// A sender with short delays between attempts.
fn sender(monitor: SocketAddr, tries: u32) -> (Handle, CancellationToken) {
    let policy = Policy { base: 5 * MS, cap: 20 * MS, tries, silence: 20 * MS, ..Policy::default() };
    let settings = Settings {
        monitor: monitor.to_string(),
        keys: keys(),
        codec: Box::new(Protobuf),
        interval: Duration::from_millis(10),
        wait: Duration::from_secs(5),
        policy,
        seed: 1,
    };
    let (sender, handle) = Sender::new(settings, Clock::start());
    let (stop, mut sequence) = (CancellationToken::new(), 0);
    let next = move || {
        sequence += 1;
        beat("a", sequence)
    };
    tokio::spawn(sender.run(next, stop.clone()));
    (handle, stop)
}

async fn until(handle: &Handle, wanted: impl FnMut(&State) -> bool) {
    timeout(DEADLINE, handle.state().wait_for(wanted)).await.expect("a state").unwrap();
}

#[tokio::test]
async fn beats_flow_over_one_connection_and_are_kept_alive() {
    let mut monitor = Monitor::new();
    let (address, stop) = serve(&monitor, free()).await;
    let (handle, stop_sender) = sender(address, 5);
    let (peer, first) = monitor.next().await;
    for n in 1..5 {
        let (same, beat) = monitor.next().await;
        assert_eq!((same, beat.sequence), (peer, first.sequence + n));
    }
    until(&handle, |state| *state == State::Connected { failures: 0 }).await;
    stop_sender.cancel();
    stop.cancel();

    let listener = TcpListener::bind(free()).await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    heartbeat::transport::tcp::keep_alive(&stream).unwrap();
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    assert_eq!(
        (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_retries().unwrap()),
        (Duration::from_secs(3), 3)
    );
}

#[tokio::test]
async fn an_outage_ends_in_a_stop_and_a_contact_in_beats() {
    let mut monitor = Monitor::new();
    let at = free();
    let (_, stop) = serve(&monitor, at).await;
    let (handle, stop_sender) = sender(at, 3);
    monitor.next().await;
    stop.cancel();
    until(&handle, |state| *state == State::Stopped).await;
    // It stays stopped although the monitor is back, until it is resumed.
    let mut later = Monitor::new();
    let (_, stop) = serve(&later, at).await;
    assert!(
        timeout(Duration::from_millis(100), handle.state().wait_for(|state| *state != State::Stopped)).await.is_err()
    );
    handle.resume();
    later.next().await;
    until(&handle, |state| matches!(state, State::Connected { .. })).await;
    stop_sender.cancel();
    stop.cancel();
}

#[tokio::test]
async fn a_monitor_that_is_back_within_the_tries_is_found() {
    let at = free();
    let (handle, stop_sender) = sender(at, 1_000);
    until(&handle, |state| matches!(state, State::Waiting { attempt, .. } if *attempt >= 3)).await;
    let mut monitor = Monitor::new();
    let (_, stop) = serve(&monitor, at).await;
    monitor.next().await;
    stop_sender.cancel();
    stop.cancel();
}

#[tokio::test]
async fn bad_frames_end_their_connection_only() {
    let mut monitor = Monitor::new();
    let (address, stop) = serve(&monitor, free()).await;
    let mut good = TcpStream::connect(address).await.unwrap();
    let mut bad = TcpStream::connect(address).await.unwrap();
    write_frame(&mut bad, b"not sealed, but long enough to be").await.unwrap();
    assert_eq!(timeout(DEADLINE, bad.read(&mut [0; 8])).await.expect("an end").unwrap_or(0), 0);
    monitor.until_rejected(Reject::Frame, 1).await;
    // One byte at a time, and a length of 0 in between: a frame that is too short.
    let mut frame = Vec::new();
    sign_beat(&keys(), &mut Protobuf, &beat("a", 1), true, &mut frame).unwrap();
    let mut bytes = u16::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(frame);
    for byte in bytes {
        good.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(monitor.next().await.1.sequence, 1);
    let mut reader = FrameReader::new(Arc::new(Semaphore::new(0)));
    let ack = timeout(DEADLINE, reader.next(&mut good)).await.expect("an answer").unwrap();
    assert!(keys().verify(ack.unwrap()).is_ok());
    stop.cancel();
    assert!(matches!(timeout(DEADLINE, reader.next(&mut good)).await.expect("an end"), Ok(None) | Err(_)));
}

/// A server with these limits.
async fn limited(monitor: &Monitor, limits: Limits) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind(free()).await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(receive(listener, Arc::clone(&monitor.ingest), limits, stop.clone()));
    (address, stop)
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    timeout(DEADLINE, stream.read(&mut [0; 8])).await.expect("an end").unwrap_or(0) == 0
}

async fn send(stream: &mut TcpStream, sequence: u64) {
    let mut frame = Vec::new();
    sign_beat(&keys(), &mut Protobuf, &beat("a", sequence), true, &mut frame).unwrap();
    write_frame(stream, &frame).await.unwrap();
}

#[tokio::test]
async fn connections_without_an_authentic_beat_give_way_and_do_not_last() {
    let mut monitor = Monitor::new();
    let limits = Limits { max_unauthenticated: 2, first_frame: Duration::from_millis(500), ..Limits::default() };
    let (address, stop) = limited(&monitor, limits).await;
    let mut worker = TcpStream::connect(address).await.unwrap();
    send(&mut worker, 1).await;
    assert_eq!(monitor.next().await.1.sequence, 1);
    let mut flood = Vec::new();
    for _ in 0..8 {
        flood.push(TcpStream::connect(address).await.unwrap());
    }
    // The oldest at once, the last two when their time is over.
    for stream in &mut flood {
        assert!(is_closed(stream).await);
    }
    send(&mut worker, 2).await;
    assert_eq!(monitor.next().await.1.sequence, 2, "an authenticated connection outlasts them");
    // A recorded frame does not authenticate a connection.
    let mut recorded = TcpStream::connect(address).await.unwrap();
    send(&mut recorded, 2).await;
    let mut reader = FrameReader::new(Arc::new(Semaphore::new(0)));
    assert!(timeout(DEADLINE, reader.next(&mut recorded)).await.unwrap().unwrap().is_some(), "acknowledged again");
    assert!(is_closed(&mut recorded).await);
    stop.cancel();
}

#[tokio::test]
async fn long_frames_need_an_authenticated_connection_and_room() {
    let mut monitor = Monitor::new();
    let (address, stop) = limited(&monitor, Limits { unfinished_bytes: 40_000, ..Limits::default() }).await;
    let mut stranger = TcpStream::connect(address).await.unwrap();
    stranger.write_all(&[0xff, 0xff, 0xb1]).await.unwrap();
    assert!(is_closed(&mut stranger).await, "64 KiB are announced");
    let connect = async || TcpStream::connect(address).await.unwrap();
    let (mut one, mut other) = (connect().await, connect().await);
    for (stream, sequence) in [(&mut one, 1), (&mut other, 2)] {
        send(stream, sequence).await;
        assert_eq!(monitor.next().await.1.sequence, sequence);
    }
    // Two long frames do not fit at a time: the second is read after the first is complete.
    let batch = |sequence: u64| {
        let beats = (0..600).map(|n| beat(&format!("node-{sequence}-{n}"), 1)).collect();
        let batch = Batch { beats, sender: "agent".into(), sequence, incarnation: 1 };
        let (mut frame, header) =
            (Vec::new(), Header { kind: FrameKind::Batch, codec: CodecId::Protobuf, ack_wanted: false });
        keys().sign(header, &mut frame, |out| Protobuf.encode_batch(&batch, out)).unwrap();
        frame
    };
    let first = batch(1);
    assert!((20_000..40_000).contains(&first.len()), "{}", first.len());
    one.write_all(&u16::try_from(first.len()).unwrap().to_be_bytes()).await.unwrap();
    one.write_all(&first[..first.len() / 2]).await.unwrap();
    write_frame(&mut other, &batch(2)).await.unwrap();
    one.write_all(&first[first.len() / 2..]).await.unwrap();
    let mut received = Vec::new();
    for _ in 0..1_200 {
        received.push(monitor.next().await.1.node_id);
    }
    assert_eq!(received.iter().filter(|id| id.starts_with("node-1-")).count(), 600);
    stop.cancel();
}
