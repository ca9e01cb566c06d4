use std::{net::SocketAddr, sync::Arc, time::Duration};

use heartbeat::{
    auth::Reject,
    clock::Clock,
    codec::Protobuf,
    frame::sign_beat,
    reconnect::{Policy, State},
    transport::tcp::{FrameReader, Handle, Limits, Sender, Settings, receive, write_frame},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
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
    let mut reader = FrameReader::default();
    let ack = timeout(DEADLINE, reader.next(&mut good)).await.expect("an answer").unwrap();
    assert!(keys().verify(ack.unwrap()).is_ok());
    stop.cancel();
    assert!(matches!(timeout(DEADLINE, reader.next(&mut good)).await.expect("an end"), Ok(None) | Err(_)));
}
