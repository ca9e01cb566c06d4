//! Faults of one link among several, and of one direction of it, through real sockets.

use std::{net::SocketAddr, time::Duration};

use faultproxy::{Config, Direction, Fault, FaultKind, FaultSpec, Law, Link, Route, Transport, bench::RawClient};
use runtime::client::ClientError;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream, UdpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::timeout,
};

use crate::support::{Bed, CLASSIC, DEADLINE, Running, free, loopback, scripted};

const SILENCE: Duration = Duration::from_millis(50);
const BLACKHOLE: Fault = Fault::Blackhole { drop_syn: false };

/// A server that sends `tick` bytes on request of the test, and reports what it reads.
struct Server {
    address: SocketAddr,
    read: mpsc::Receiver<u8>,
    write: mpsc::Sender<u8>,
}

async fn server() -> Server {
    let ((seen, read), (write, to_send)) = (mpsc::channel(64), mpsc::channel::<u8>(64));
    let to_send = std::sync::Arc::new(tokio::sync::Mutex::new(to_send));
    let address = scripted(move |stream: TcpStream| {
        let (seen, to_send) = (seen.clone(), std::sync::Arc::clone(&to_send));
        async move {
            let (mut reader, mut writer) = stream.into_split();
            let mut to_send = to_send.lock().await;
            loop {
                tokio::select! {
                    byte = reader.read_u8() => match byte {
                        Ok(byte) => seen.send(byte).await.unwrap(),
                        Err(_) => return,
                    },
                    byte = to_send.recv() => match byte {
                        Some(byte) => writer.write_u8(byte).await.unwrap(),
                        None => return,
                    },
                }
            }
        }
    })
    .await;
    Server { address, read, write }
}

async fn received(reader: &mut OwnedReadHalf) -> u8 {
    timeout(DEADLINE, reader.read_u8()).await.expect("nothing arrives").unwrap()
}

async fn arrived(server: &mut Server) -> u8 {
    timeout(DEADLINE, server.read.recv()).await.expect("nothing arrives").unwrap()
}

/// A connection through a proxy that has carried the byte 1.
async fn connected() -> (Server, Running, OwnedReadHalf, OwnedWriteHalf) {
    let mut server = server().await;
    let proxy = Running::link(Transport::Tcp, server.address).await;
    let (reader, mut writer) = TcpStream::connect(proxy.address).await.unwrap().into_split();
    writer.write_u8(1).await.unwrap();
    assert_eq!(arrived(&mut server).await, 1);
    (server, proxy, reader, writer)
}

fn one_way(fault: Fault, direction: Direction) -> FaultSpec {
    FaultSpec::from(fault).toward(direction)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_direction_waits_and_the_other_passes() {
    for direction in Direction::BOTH {
        let (mut server, proxy, mut reader, mut writer) = connected().await;
        proxy.client.add_fault(one_way(Fault::Stall, direction)).await.unwrap();
        writer.write_u8(2).await.unwrap();
        server.write.send(3).await.unwrap();
        match direction {
            Direction::ToServer => {
                assert_eq!(received(&mut reader).await, 3);
                assert!(timeout(SILENCE, server.read.recv()).await.is_err());
            }
            Direction::ToClient => {
                assert_eq!(arrived(&mut server).await, 2);
                assert!(timeout(SILENCE, reader.read_u8()).await.is_err());
            }
        }
        proxy.client.lift(FaultKind::Stall).await.unwrap();
        match direction {
            Direction::ToServer => assert_eq!(arrived(&mut server).await, 2),
            Direction::ToClient => assert_eq!(received(&mut reader).await, 3),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_of_one_direction_passes_the_other_and_stays() {
    for direction in Direction::BOTH {
        let (mut server, proxy, mut reader, mut writer) = connected().await;
        proxy.client.add_fault(one_way(BLACKHOLE, direction)).await.unwrap();
        writer.write_u8(2).await.unwrap();
        server.write.send(3).await.unwrap();
        proxy.until("one is lost", |state| state.links[0].lost_total == 1).await;
        match direction {
            Direction::ToServer => assert_eq!(received(&mut reader).await, 3),
            Direction::ToClient => assert_eq!(arrived(&mut server).await, 2),
        }
        // Bytes are missing: the connection stays silent in this direction.
        proxy.client.clear().await.unwrap();
        writer.write_u8(4).await.unwrap();
        server.write.send(5).await.unwrap();
        proxy.until("both are lost", |state| state.links[0].lost_total == 2).await;
        match direction {
            Direction::ToServer => assert_eq!(received(&mut reader).await, 5),
            Direction::ToClient => assert_eq!(arrived(&mut server).await, 4),
        }
        // The end of the client's stream ends the connection now that the direction is open.
        drop((reader, writer));
        proxy.until("closed", |state| state.links[0].flows == 0).await;
    }
}

/// Reports every datagram, and answers it.
async fn answering() -> (SocketAddr, mpsc::Receiver<u8>) {
    let socket = UdpSocket::bind(free()).await.unwrap();
    let (address, (seen, read)) = (socket.local_addr().unwrap(), mpsc::channel(64));
    tokio::spawn(async move {
        let mut byte = [0];
        while let Ok((_, from)) = socket.recv_from(&mut byte).await {
            socket.send_to(&byte, from).await.ok();
            if seen.send(byte[0]).await.is_err() {
                return;
            }
        }
    });
    (address, read)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_are_lost_on_one_link_in_one_direction() {
    let (first, mut first_seen) = answering().await;
    let (second, mut second_seen) = answering().await;
    let links = vec![
        Link::new(Transport::Udp, free(), first).named("a>first"),
        Link::new(Transport::Udp, free(), second).named("a>second"),
    ];
    let admin = free();
    let config = Config { listeners: Vec::new(), links, admin, law: Law::None, max_connections: 64 };
    let proxy = Running::with(config).await;
    let addresses: Vec<_> = proxy.state().await.links.iter().map(|each| each.link.listen.to_string()).collect();
    let mut clients = Vec::new();
    for address in &addresses {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(address).await.unwrap();
        clients.push(client);
    }
    let exchange = async |client: &UdpSocket, seen: &mut mpsc::Receiver<u8>, byte: u8| {
        client.send(&[byte]).await.unwrap();
        assert_eq!(timeout(DEADLINE, seen.recv()).await.unwrap(), Some(byte));
        let mut answer = [0];
        timeout(DEADLINE, client.recv(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer[0], byte);
    };
    exchange(&clients[0], &mut first_seen, 1).await;
    // Answers of the first are lost, those of the second are not.
    let lost = Fault::Loss { pct: 100.0, seed: 1 }.on("a>f*").toward(Direction::ToClient);
    proxy.client.add_fault(lost).await.unwrap();
    clients[0].send(&[2]).await.unwrap();
    assert_eq!(timeout(DEADLINE, first_seen.recv()).await.unwrap(), Some(2));
    proxy.until("the answer is lost", |state| state.links[0].lost_total == 1).await;
    exchange(&clients[1], &mut second_seen, 3).await;
    // The other way.
    proxy.client.clear_link("a>f*").await.unwrap();
    proxy.client.add_fault(BLACKHOLE.on(&addresses[1]).toward(Direction::ToServer)).await.unwrap();
    exchange(&clients[0], &mut first_seen, 4).await;
    clients[1].send(&[5]).await.unwrap();
    proxy.until("the datagram is lost", |state| state.links[1].lost_total == 1).await;
    assert!(second_seen.try_recv().is_err());
    proxy.client.clear().await.unwrap();
    exchange(&clients[1], &mut second_seen, 6).await;

    let unknown = proxy.client.add_fault(Fault::Stall.on("b>*")).await;
    let Err(ClientError::Refused { detail, .. }) = unknown else { panic!("{unknown:?}") };
    assert!(detail.contains("a>first, a>second"), "{detail}");
    let Err(ClientError::Refused { .. }) = proxy.client.add_fault(Fault::StallWrites).await else {
        panic!("a write needs MySQL")
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_path_to_a_store_is_cut_and_a_lost_answer_is_not_a_lost_command() {
    let Some(bed) = Bed::start("paths").await else { return };
    let upstream = loopback(bed.server.port);
    let listeners = ["one", "two"].map(|name| Route::new(free(), upstream).named(name)).to_vec();
    let admin = free();
    let config = Config { listeners, links: Vec::new(), admin, law: Law::None, max_connections: 64 };
    let proxy = Running::with(config).await;
    let at: Vec<_> = proxy.state().await.listeners.iter().map(|each| each.listen.clone()).collect();
    let mut direct = bed.proxy.sqlx().await;
    let send = async |raw: &mut RawClient, sql: &str| {
        raw.send(0, &[b"\x03", sql.as_bytes()].concat()).await.unwrap();
    };
    sqlx::raw_sql("CREATE DATABASE d; CREATE TABLE d.t (id INT)").execute(&mut direct).await.unwrap();
    let rows = async |direct: &mut sqlx::MySqlConnection| {
        sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM d.t").fetch_one(direct).await.unwrap()
    };
    let mut one = RawClient::login(&at[0], "root", CLASSIC).await.unwrap();
    let mut two = RawClient::login(&at[1], "root", CLASSIC).await.unwrap();

    proxy.client.add_fault(BLACKHOLE.on("one").toward(Direction::ToClient)).await.unwrap();
    send(&mut one, "INSERT INTO d.t VALUES (1)").await;
    proxy.until("answered", |state| state.in_flight == 0 && state.listeners[0].commands_total == 1).await;
    assert!(timeout(SILENCE, one.packet()).await.is_err(), "the answer is lost");
    assert_eq!(rows(&mut direct).await, 1, "the row is there");
    two.ping().await.unwrap();
    proxy.client.clear().await.unwrap();

    proxy.client.add_fault(BLACKHOLE.on("two").toward(Direction::ToServer)).await.unwrap();
    send(&mut two, "INSERT INTO d.t VALUES (2)").await;
    let mut other = RawClient::login(&at[0], "root", CLASSIC).await.unwrap();
    other.ping().await.unwrap();
    assert!(timeout(SILENCE, two.packet()).await.is_err());
    assert_eq!(rows(&mut direct).await, 1, "the command is lost");
    bed.stack.stop().await.unwrap();
}
