//! Relays of datagrams and bytes, through real sockets.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use faultproxy::{Config, Fault, FaultKind, Law, Link, LinkState, Proxy, Transport};
use runtime::Endpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::support::{DEADLINE, Running, free, rest, scripted};

/// Echoes every datagram.
async fn udp_echo() -> SocketAddr {
    let socket = Arc::new(UdpSocket::bind(free()).await.unwrap());
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..length], from).await.ok();
        }
    });
    address
}

async fn tcp_echo() -> SocketAddr {
    scripted(async |mut stream: TcpStream| {
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.ok();
    })
    .await
}

async fn udp_client(proxy: &Running) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(proxy.address).await.unwrap();
    socket
}

async fn link(proxy: &Running) -> LinkState {
    proxy.state().await.links.remove(0)
}

/// Echoed within the deadline.
async fn echoed(socket: &UdpSocket, bytes: &[u8]) {
    let mut buffer = [0; 2048];
    socket.send(bytes).await.unwrap();
    let length = timeout(DEADLINE, socket.recv(&mut buffer)).await.expect("no answer").unwrap();
    assert_eq!(&buffer[..length], bytes);
}

/// Sends numbered datagrams and returns the numbers that came back.
async fn survivors(proxy: &Running, count: u8) -> BTreeSet<u8> {
    let socket = udp_client(proxy).await;
    for number in 0..count {
        socket.send(&[number]).await.unwrap();
    }
    let (mut seen, mut buffer) = (BTreeSet::new(), [0; 16]);
    let start = Instant::now();
    // Each is lost in one direction, or comes back.
    while seen.len() as u64 + link(proxy).await.lost_total < u64::from(count) {
        if let Ok(received) = timeout(Duration::from_millis(20), socket.recv(&mut buffer)).await {
            assert_eq!(received.unwrap(), 1);
            seen.insert(buffer[0]);
        }
        assert!(start.elapsed() < DEADLINE, "{seen:?}");
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seed_says_which_datagrams_are_lost() {
    let server = udp_echo().await;
    let mut seen = Vec::new();
    for seed in [7, 7, 8] {
        let proxy = Running::link(Transport::Udp, server).await;
        proxy.client.add_fault(Fault::Loss { pct: 30.0, seed }).await.unwrap();
        let back = survivors(&proxy, 100).await;
        assert!((20..90).contains(&back.len()), "{back:?}");
        seen.push(back);
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_are_late_lost_in_a_stall_and_refused() {
    let proxy = Running::link(Transport::Udp, udp_echo().await).await;
    let socket = udp_client(&proxy).await;
    echoed(&socket, b"plain").await;
    proxy.client.add_fault(Fault::Latency { ms: 40.0, jitter_ms: 0.0 }).await.unwrap();
    let start = Instant::now();
    echoed(&socket, b"late").await;
    assert!(start.elapsed() >= Duration::from_millis(78), "there and back");
    proxy.client.clear().await.unwrap();

    proxy.client.add_fault(Fault::Stall).await.unwrap();
    socket.send(b"gone").await.unwrap();
    proxy.until("stalled", |state| state.links[0].stalled_total == 1).await;
    proxy.client.lift(FaultKind::Stall).await.unwrap();
    echoed(&socket, b"after").await;

    proxy.client.add_fault(Fault::Refuse).await.unwrap();
    let start = Instant::now();
    // The kernel answers for a closed port; the relay learns of it shortly after the API's response.
    loop {
        socket.send(b"?").await.ok();
        match timeout(Duration::from_millis(20), socket.recv(&mut [0; 16])).await {
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => break,
            _ => assert!(start.elapsed() < DEADLINE),
        }
    }
    assert_eq!(link(&proxy).await.flows, 0);
    proxy.client.clear().await.unwrap();
    let again = udp_client(&proxy).await;
    let start = Instant::now();
    loop {
        again.send(b"back").await.ok();
        if let Ok(Ok(4)) = timeout(Duration::from_millis(20), again.recv(&mut [0; 16])).await {
            break;
        }
        assert!(start.elapsed() < DEADLINE);
    }
    let name = format!("faultproxy_link_items_total{{listener=\"{}\",outcome=\"stalled\"", proxy.address);
    assert_eq!(proxy.metric(&name).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_have_flows_of_their_own_and_only_so_many() {
    let proxy = Running::link(Transport::Udp, udp_echo().await).await;
    let mut clients = Vec::new();
    for number in 0..64_u8 {
        let socket = udp_client(&proxy).await;
        echoed(&socket, &[number]).await;
        clients.push(socket);
    }
    assert_eq!(link(&proxy).await.flows, 64);
    let late = udp_client(&proxy).await;
    late.send(b"no room").await.unwrap();
    proxy.until("turned away", |state| state.links[0].overflow_total == 1).await;
    for (number, socket) in clients.iter().enumerate() {
        echoed(socket, &[number as u8]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_keep_their_order_and_are_late_as_if_sent_again() {
    let proxy = Running::link(Transport::Tcp, tcp_echo().await).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut echo = async |bytes: &[u8]| {
        let mut answer = vec![0; bytes.len()];
        stream.write_all(bytes).await.unwrap();
        timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("no answer").unwrap();
        assert_eq!(answer, bytes);
    };
    echo(b"plain").await;
    proxy.client.add_fault(Fault::Latency { ms: 40.0, jitter_ms: 10.0 }).await.unwrap();
    let start = Instant::now();
    echo(b"late").await;
    assert!(start.elapsed() >= Duration::from_millis(58), "there and back");
    proxy.client.clear().await.unwrap();

    proxy.client.add_fault(Fault::Loss { pct: 15.0, seed: 5 }).await.unwrap();
    let start = Instant::now();
    while link(&proxy).await.lost_total == 0 {
        echo(&[7; 300]).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(190), "a retransmission takes 200 ms");
    proxy.client.clear().await.unwrap();
    // More than is ever in flight.
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    drop(stream);
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sent = large.clone();
    tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    assert!(rest(&mut reader).await == large, "the bytes, and then the end of the stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_wait_are_reset_and_refused() {
    let proxy = Running::link(Transport::Tcp, tcp_echo().await).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    proxy.client.add_fault(Fault::Stall).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let waits = timeout(Duration::from_millis(50), stream.read_u8()).await;
    assert!(waits.is_err(), "{waits:?}");
    proxy.client.lift(FaultKind::Stall).await.unwrap();
    assert_eq!(timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap(), b'x');

    proxy.client.add_fault(Fault::Reset).await.unwrap();
    let error = timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    proxy.until("closed", |state| state.links[0].flows == 0).await;

    proxy.client.add_fault(Fault::Refuse).await.unwrap();
    let start = Instant::now();
    loop {
        match TcpStream::connect(proxy.address).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            _ => assert!(start.elapsed() < DEADLINE),
        }
    }
    proxy.client.clear().await.unwrap();
    while TcpStream::connect(proxy.address).await.is_err() {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // An open connection does not keep the process from ending.
    let mut open = TcpStream::connect(proxy.address).await.unwrap();
    proxy.shutdown.cancel();
    timeout(DEADLINE, proxy.served).await.unwrap().unwrap().unwrap();
    rest(&mut open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_loses_bytes_and_datagrams() {
    // The server closes after the first byte; the client does not notice.
    let server = scripted(async |mut stream: TcpStream| drop(stream.read_u8().await)).await;
    let proxy = Running::link(Transport::Tcp, server).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    proxy.until("relayed", |state| state.links[0].flows == 1).await;
    proxy.client.add_fault(Fault::Blackhole { drop_syn: false }).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let silent = timeout(Duration::from_millis(50), stream.read_u8()).await;
    assert!(silent.is_err(), "{silent:?}");
    proxy.client.clear().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let silent = timeout(Duration::from_millis(50), stream.read_u8()).await;
    assert!(silent.is_err(), "{silent:?}");
    // A client that closes is released.
    drop(stream);
    proxy.until("closed", |state| state.links[0].flows == 0).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    rest(&mut stream).await;

    let proxy = Running::link(Transport::Udp, udp_echo().await).await;
    let client = udp_client(&proxy).await;
    echoed(&client, b"before").await;
    proxy.client.add_fault(Fault::Blackhole { drop_syn: false }).await.unwrap();
    client.send(b"lost").await.unwrap();
    proxy.until("lost", |state| state.links[0].lost_total == 1).await;
    proxy.client.clear().await.unwrap();
    echoed(&client, b"after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_syns_leave_clients_waiting_for_their_connection() {
    let proxy = Running::link(Transport::Tcp, tcp_echo().await).await;
    for _ in 0..3 {
        proxy.client.add_fault(Fault::Blackhole { drop_syn: true }).await.unwrap();
        let start = Instant::now();
        // The listener learns of it shortly after the API's response.
        while timeout(Duration::from_millis(300), TcpStream::connect(proxy.address)).await.is_ok() {
            assert!(start.elapsed() < DEADLINE);
        }
        proxy.client.clear().await.unwrap();
        let mut stream = timeout(DEADLINE, TcpStream::connect(proxy.address)).await.unwrap().unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap(), b'x');
        drop(stream);
        // None of the proxy's own connections was counted as a client.
        proxy.until("empty", |state| state.links[0].flows == 0 && state.links[0].unreachable_total == 0).await;
    }
}

#[tokio::test]
async fn links_that_cannot_be_are_refused() {
    let unix = Endpoint::Unix("/tmp/no-such.sock".into());
    let at = free();
    for (links, expected) in [
        (vec![Link::new(Transport::Udp, unix, free())], "address:port"),
        (vec![Link::new(Transport::Udp, at, at)], "its own upstream"),
        (vec![Link::new(Transport::Udp, at, free()); 2], "used twice"),
        (Vec::new(), "must not be empty"),
    ] {
        let config = Config { listeners: Vec::new(), links, admin: free(), law: Law::None, max_connections: 1 };
        let error = format!("{:#}", Proxy::bind(config).await.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}
