use std::{net::SocketAddr, sync::Arc, time::Duration};

use heartbeat::{
    auth::{Keys, Reject},
    codec::{Codec, Json, Protobuf, ProtobufZstd},
    frame::sign_beat,
    transport::udp::{Receiver, ReliableSender, Retries, SendError},
};
use tokio::{net::UdpSocket, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{Monitor, beat, keys};

const LOOPBACK: &str = "127.0.0.1:0";

async fn serve(monitor: &Monitor) -> (SocketAddr, CancellationToken, JoinHandle<std::io::Result<()>>) {
    let receiver = Receiver::bind(LOOPBACK.parse().unwrap()).await.unwrap();
    let (address, stop) = (receiver.local_addr().unwrap(), CancellationToken::new());
    let task = tokio::spawn(receiver.run(Arc::clone(&monitor.ingest), stop.clone()));
    (address, stop, task)
}

fn sealed(node: &str, sequence: u64) -> Vec<u8> {
    let mut datagram = Vec::new();
    sign_beat(&keys(), &mut Protobuf, &beat(node, sequence), false, &mut datagram).unwrap();
    datagram
}

#[tokio::test]
async fn every_codec_arrives_and_is_acknowledged() {
    let mut monitor = Monitor::new();
    let (address, stop, task) = serve(&monitor).await;
    let codecs: [Box<dyn Codec>; 3] = [Box::new(Json), Box::new(Protobuf), Box::new(ProtobufZstd::new().unwrap())];
    for (n, codec) in codecs.into_iter().enumerate() {
        let node = format!("node-{n}");
        let mut sender = ReliableSender::connect(address, keys(), codec, Retries::default()).await.unwrap();
        for sequence in 1..=3 {
            let sent = beat(&node, sequence);
            sender.send(&sent).await.unwrap();
            let (peer, received) = monitor.next().await;
            assert_eq!((received, peer.ip()), (sent, address.ip()));
        }
    }
    assert_eq!((monitor.ingest.table().len(), monitor.ingest.counts().accepted()), (3, 9));
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_fails_is_dropped_and_counted_by_its_reason() {
    let mut monitor = Monitor::new();
    let (address, stop, _task) = serve(&monitor).await;
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(address).await.unwrap();
    let first = sealed("a", 70);
    let mut forged = sealed("a", 71);
    *forged.last_mut().unwrap() ^= 1;
    let mut strange = Vec::new();
    sign_beat(&Keys::new(b"of others"), &mut Protobuf, &beat("a", 72), false, &mut strange).unwrap();
    let mut former = Vec::new();
    let past = heartbeat::message::Beat { incarnation: 0, ..beat("a", 100) };
    sign_beat(&keys(), &mut Protobuf, &past, false, &mut former).unwrap();
    for (datagram, reason) in [
        (first.clone(), None),
        (first, Some(Reject::Repeated)),
        (forged, Some(Reject::Mac)),
        (strange, Some(Reject::Key)),
        (former, Some(Reject::StaleIncarnation)),
        (sealed("a", 5), Some(Reject::TooOld)),
        // Authenticated but unnumbered: it could be replayed for ever.
        (sealed("b", 0), Some(Reject::Invalid)),
        (b"GET / HTTP/1.1".to_vec(), Some(Reject::Frame)),
        (Vec::new(), Some(Reject::Frame)),
    ] {
        socket.send(&datagram).await.unwrap();
        match reason {
            None => assert_eq!(monitor.next().await.1.sequence, 70),
            Some(Reject::Frame) => {}
            Some(reason) => monitor.until_rejected(reason, 1).await,
        }
    }
    // An empty datagram is no frame and is not counted.
    monitor.until_rejected(Reject::Frame, 1).await;
    // Out of order, and still accepted.
    socket.send(&sealed("a", 69)).await.unwrap();
    assert_eq!(monitor.next().await.1.sequence, 69);
    assert!(monitor.none_left());
    stop.cancel();
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_the_beat_is_one() {
    let mut monitor = Monitor::new();
    let (address, stop, _task) = serve(&monitor).await;
    // Relays every datagram and drops the first answer.
    let (near, far) = (UdpSocket::bind(LOOPBACK).await.unwrap(), UdpSocket::bind(LOOPBACK).await.unwrap());
    far.connect(address).await.unwrap();
    let between = near.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2_000];
        for answer in 0.. {
            let (length, sender) = near.recv_from(&mut buffer).await.unwrap();
            far.send(&buffer[..length]).await.unwrap();
            let length = far.recv(&mut buffer).await.unwrap();
            if answer > 0 {
                near.send_to(&buffer[..length], sender).await.unwrap();
            }
        }
    });
    let retries = Retries { count: 3, wait: Duration::from_millis(300) };
    let mut sender = ReliableSender::connect(between, keys(), Box::new(Protobuf), retries).await.unwrap();
    let acked = sender.send(&beat("a", 1)).await.unwrap();
    assert!(acked.tries >= 2 && acked.after >= retries.wait, "{acked:?}");
    assert_eq!(monitor.next().await.1.sequence, 1);
    assert!(monitor.none_left() && monitor.ingest.counts().rejected(Reject::Repeated) >= 1);
    stop.cancel();
}

#[tokio::test]
async fn nobody_there_is_said_after_the_last_repetition() {
    let silent = UdpSocket::bind(LOOPBACK).await.unwrap();
    let retries = Retries { count: 2, wait: Duration::from_millis(20) };
    let mut sender =
        ReliableSender::connect(silent.local_addr().unwrap(), keys(), Box::new(Protobuf), retries).await.unwrap();
    assert!(matches!(sender.send(&beat("a", 1)).await, Err(SendError::Unanswered { tries: 3 })));
    let mut datagrams = Vec::new();
    for _ in 0..3 {
        let mut buffer = vec![0; 2_000];
        let length = silent.recv(&mut buffer).await.unwrap();
        datagrams.push(buffer[..length].to_vec());
    }
    assert!(datagrams[0] == datagrams[1] && datagrams[1] == datagrams[2]);
    // And a port on which no process listens.
    drop(silent);
    assert!(matches!(sender.send(&beat("a", 2)).await, Err(SendError::Unanswered { tries: 3 })));
}
