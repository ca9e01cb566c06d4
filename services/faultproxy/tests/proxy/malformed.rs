use faultproxy::bench::RawClient;
use runtime::{Endpoint, net::Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{CLASSIC, DEADLINE, OK, Running, free, greeting, packet, rest, scripted};

/// Greets, accepts any login, and answers with these bytes; then waits for the end, or closes.
async fn answering(stream: TcpStream, answer: &'static [u8], close: bool) {
    let mut server = RawClient { stream: Stream::Tcp(stream), greeting: Vec::new() };
    server.send(0, &greeting(u32::MAX)).await.ok();
    if server.packet().await.is_err() {
        return;
    }
    server.send(2, OK).await.ok();
    while server.packet().await.is_ok() {
        server.stream.write_all(answer).await.ok();
        if close {
            return;
        }
    }
}

#[tokio::test]
async fn clients_that_break_the_protocol_are_closed_and_counted() {
    let proxy =
        Running::start(scripted(|stream| answering(stream, b"\x07\0\0\x01\0\0\0\x02\0\0\0", false)).await).await;
    let handshake = |capabilities: u32| {
        let mut payload = capabilities.to_le_bytes().to_vec();
        payload.resize(32, 0);
        payload.extend_from_slice(b"root\0\0");
        payload
    };
    // (bytes instead of a handshake, reason)
    let handshakes = [
        (packet(1, &handshake(CLASSIC | 1 << 11)), "capability"),
        (packet(1, &handshake(CLASSIC | 1 << 5)), "capability"),
        (packet(2, &handshake(CLASSIC)), "sequence"),
        (packet(1, &handshake(CLASSIC)[..20]), "handshake"),
        (b"\x00\x00\xff\x01".to_vec(), "oversized_handshake"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "oversized_handshake"),
        (b"\x20\0".to_vec(), "truncated"),
    ];
    // (bytes after the login, reason)
    let commands = [
        (packet(1, b"\x0e"), "sequence"),
        (packet(0, b""), "empty"),
        (b"\x05\0".to_vec(), "truncated"),
        (b"\x05\0\0\0\x03".to_vec(), "truncated"),
        (packet(0, b"\x12"), "unsupported_command"),
    ];
    let mut total = 0;
    for (login, (bytes, reason)) in
        handshakes.iter().map(|each| (false, each)).chain(commands.iter().map(|each| (true, each)))
    {
        let counted = proxy.malformed(reason).await;
        let mut stream = if login {
            let mut raw = proxy.raw(CLASSIC).await;
            raw.ping().await.unwrap();
            raw.stream
        } else {
            let mut stream = Endpoint::Tcp(proxy.address).connect().await.unwrap();
            let mut greeted = vec![0; 4 + greeting(0).len()];
            stream.read_exact(&mut greeted).await.unwrap();
            stream
        };
        stream.write_all(bytes).await.unwrap();
        if *reason == "truncated" {
            stream.shutdown().await.unwrap();
        }
        assert!(rest(&mut stream).await.is_empty(), "{bytes:?}");
        total += 1;
        let state = proxy.until("closed", |state| state.connections == 0).await;
        assert_eq!((state.malformed_total, state.in_flight), (total, 0), "{bytes:?}");
        assert_eq!(proxy.malformed(reason).await, counted + 1.0, "{reason}: {bytes:?}");
    }
    // A port check is not malformed.
    drop(TcpStream::connect(proxy.address).await.unwrap());
    proxy.until("closed", |state| state.connections == 0).await;
    assert_eq!(proxy.state().await.malformed_total, total);
}

#[tokio::test]
async fn a_client_that_speaks_first_is_closed() {
    let silent = scripted(|mut stream| async move {
        rest(&mut stream).await;
    });
    let proxy = Running::start(silent.await).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(&packet(0, b"\x0e")).await.unwrap();
    assert!(rest(&mut stream).await.is_empty());
    assert_eq!(proxy.malformed("before_greeting").await, 1.0);
}

#[tokio::test]
async fn servers_that_break_the_protocol_are_closed_and_counted() {
    const CASES: [(&[u8], bool, &str, usize); 7] = [
        // Bytes after a query, closing after them, reason, bytes that may reach the client.
        (b"\x02\0\0\x01\x01\x01", false, "response", 0),
        (b"\x01\0\0\x02\x01", false, "sequence", 0),
        (b"\0\0\0\x01", false, "empty", 0),
        (b"\x05\0\0\x01\xfbfile", false, "local_infile", 0),
        (b"\x07\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\x02x", false, "unsolicited", 11),
        (b"\x07\0\0\x01\0\0", true, "truncated", 6),
        (b"\x01\0\0\x01\x01\x20\0\0\x02\x03def", true, "truncated", 13),
    ];
    for (answer, close, reason, relayed) in CASES {
        let proxy = Running::start(scripted(move |stream| answering(stream, answer, close)).await).await;
        let mut raw = proxy.raw(CLASSIC).await;
        raw.send(0, b"\x03SELECT 1").await.unwrap();
        assert_eq!(rest(&mut raw.stream).await, &answer[..relayed], "{reason}");
        assert_eq!(proxy.malformed(reason).await, 1.0, "{reason}");
        assert_eq!(proxy.state().await.in_flight, 0);
    }
    for (first, reason) in [(packet(0, b"\x09old"), "greeting"), (packet(1, &greeting(u32::MAX)), "sequence")] {
        let upstream = scripted(move |mut stream| {
            let first = first.clone();
            async move {
                stream.write_all(&first).await.ok();
                rest(&mut stream).await;
            }
        });
        let proxy = Running::start(upstream.await).await;
        assert!(rest(&mut TcpStream::connect(proxy.address).await.unwrap()).await.is_empty());
        assert_eq!(proxy.malformed(reason).await, 1.0);
    }
}

#[tokio::test]
async fn a_lost_store_is_no_malformed_packet() {
    // Between two packets of a response, and before any.
    for answer in [&b"\x01\0\0\x01\x01"[..], b""] {
        let proxy = Running::start(scripted(move |stream| answering(stream, answer, true)).await).await;
        let mut raw = proxy.raw(CLASSIC).await;
        raw.send(0, b"\x03SELECT 1").await.unwrap();
        assert_eq!(rest(&mut raw.stream).await, answer);
        let state = proxy.until("idle", |state| state.in_flight == 0 && state.connections == 0).await;
        assert_eq!(state.malformed_total, 0);
        let lost = format!("faultproxy_upstream_failures_total{{kind=\"lost\",listener=\"{}\"}}", proxy.address);
        assert_eq!(proxy.metric(&lost).await, 1.0);
    }
    let proxy = Running::start(free()).await;
    assert!(rest(&mut TcpStream::connect(proxy.address).await.unwrap()).await.is_empty());
    let unreachable =
        format!("faultproxy_upstream_failures_total{{kind=\"unreachable\",listener=\"{}\"}}", proxy.address);
    assert_eq!(proxy.metric(&unreachable).await, 1.0);
}

/// caching_sha2_password in full, with the server's public key (as MySQL 8 does without TLS): only relayed.
#[tokio::test]
async fn a_long_authentication_is_relayed() {
    let upstream = scripted(|stream| async move {
        let mut server = RawClient { stream: Stream::Tcp(stream), greeting: Vec::new() };
        server.send(0, &greeting(u32::MAX)).await.unwrap();
        server.packet().await.unwrap();
        server.send(2, b"\xfecaching_sha2_password\0saltsaltsaltsaltsalt\0").await.unwrap();
        assert_eq!(server.packet().await.unwrap(), (3, vec![7; 32]));
        server.send(4, b"\x01\x04").await.unwrap();
        assert_eq!(server.packet().await.unwrap(), (5, vec![2]));
        server.send(6, &[&b"\x01"[..], &[b'k'; 451]].concat()).await.unwrap();
        assert_eq!(server.packet().await.unwrap(), (7, vec![9; 256]));
        server.send(8, OK).await.unwrap();
        server.packet().await.unwrap();
        server.send(1, OK).await.unwrap();
        // Sent by a server before it closes an idle connection.
        server.send(0, b"\xff\xbf\x0f#HY000The client was disconnected").await.unwrap();
    });
    let proxy = Running::start(upstream.await).await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let mut client = RawClient { stream: Stream::Tcp(stream), greeting: Vec::new() };
    client.packet().await.unwrap();
    let mut handshake = CLASSIC.to_le_bytes().to_vec();
    handshake.resize(60, 0);
    client.send(1, &handshake).await.unwrap();
    for (asked, reply) in [(2, vec![7; 32]), (4, vec![2]), (6, vec![9; 256])] {
        assert_eq!(client.packet().await.unwrap().0, asked);
        client.send(asked + 1, &reply).await.unwrap();
    }
    assert_eq!(client.packet().await.unwrap(), (8, OK.to_vec()));
    client.send(0, b"\x0e").await.unwrap();
    assert_eq!(client.packet().await.unwrap(), (1, OK.to_vec()));
    let notice = tokio::time::timeout(DEADLINE, client.packet()).await.unwrap().unwrap();
    assert!(notice.0 == 0 && notice.1[0] == 0xff);
    assert!(rest(&mut client.stream).await.is_empty());
    assert_eq!(proxy.state().await.malformed_total, 0);
}
