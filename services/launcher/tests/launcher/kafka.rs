//! Kafka, spoken to in its protocol: this crate needs no client otherwise.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use launcher::{Signal, Stack, kafka, testing};

use crate::PATIENCE;

/// Sends a request and returns the body of its response.
fn ask(port: u16, key: u16, version: u16, body: &[u8]) -> Vec<u8> {
    let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), &7_u32.to_be_bytes(), b"\0\x01t"].concat();
    let length = u32::try_from(head.len() + body.len()).unwrap().to_be_bytes();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[&length, head.as_slice(), body].concat()).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length).try_into().unwrap()];
    stream.read_exact(&mut answer).unwrap();
    answer.split_off(4)
}

/// True: the topic `kept` exists, with three partitions.
fn has_topic(port: u16) -> bool {
    // Metadata of one topic. In the response: no error, its name, not internal, its partitions.
    let answer = ask(port, 3, 1, b"\0\0\0\x01\0\x04kept");
    answer.windows(13).any(|window| window == b"\0\0\0\x04kept\0\0\0\0\x03")
}

#[tokio::test]
async fn kafka_keeps_its_topics_through_a_kill() {
    if !testing::have_kafka().await {
        return;
    }
    let mut stack = Stack::create("test-kafka").unwrap();
    let server = kafka::start(&mut stack, &kafka::Options::default()).await.unwrap();
    assert!(server.version.starts_with("Kafka 4."), "{}", server.version);
    assert!(!has_topic(server.port));
    // CreateTopics: one topic, three partitions, one replica, no assignments, no settings; within 20 s, in earnest.
    ask(server.port, 19, 2, b"\0\0\0\x01\0\x04kept\0\0\0\x03\0\x01\0\0\0\0\0\0\0\0\0\0\x4e\x20\0");
    crate::eventually("the topic", || has_topic(server.port));

    stack.kill(server.child, Signal::SIGKILL).unwrap();
    stack.stop_child(server.child).await.unwrap();
    let options = kafka::Options { port: Some(server.port), ..Default::default() };
    let again = kafka::start(&mut stack, &options).await.unwrap();
    assert_eq!((&again.bootstrap, again.pid == server.pid), (&server.bootstrap, false));
    crate::eventually("the topic, after the restart", || has_topic(again.port));
    let dir = stack.dir().to_owned();
    stack.stop().await.unwrap();
    assert!(crate::reaped(again.pid) && !dir.exists());
}
