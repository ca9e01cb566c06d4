use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contract::{event_message, shard_of};
use eventlog::{BEHAVIOUR, DEAD_LETTERS, Position};
use rdkafka::{
    Message as _, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    producer::{BaseProducer, BaseRecord, Producer as _},
    topic_partition_list::Offset,
};

use crate::broker::{Broker, PATIENCE, events, offsets, read, shard, soon};

pub async fn positions_and_context_come_back(broker: &Broker) {
    let (producer, consumer) = (broker.producer(), broker.consumer());
    let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (first, second) = (events(1, 500), events(2, 500));
    let mixed: Vec<_> = first.iter().zip(&second).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    let positions = producer.send(&mixed, Some(context), soon()).await.unwrap();
    for (n, (position, event)) in positions.iter().zip(&mixed).enumerate() {
        let partition = shard_of(event.user_id.as_str());
        assert_eq!(*position, Position { partition, offset: n as u64 / 2 });
    }
    assert_eq!(producer.send(&[], None, soon()).await.unwrap(), []);
    assert_eq!(consumer.end(shard(1)).await.unwrap(), 500);

    let mut subscription = consumer.subscribe(shard(1), 0).await.unwrap();
    let messages = read(&mut subscription, 500).await;
    assert_eq!(offsets(&messages), (0..500).collect::<Vec<u64>>());
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    for (message, event) in messages.iter().zip(&first) {
        assert_eq!(event_message::decode(message.payload.as_ref().unwrap()).unwrap(), *event);
        assert_eq!(message.traceparent.as_deref(), Some(context));
        assert!((now_ms - message.timestamp_ms.unwrap()).abs() < 60_000);
    }
    assert_eq!(subscription.end(), Some(500));
    subscription.close().await;

    // From the middle on, and events without a context.
    let mut subscription = consumer.subscribe(shard(2), 400).await.unwrap();
    producer.send(&events(2, 1), None, soon()).await.unwrap();
    let messages = read(&mut subscription, 101).await;
    assert_eq!(offsets(&messages), (400..501).collect::<Vec<u64>>());
    assert_eq!(messages[100].traceparent, None);
    drop(subscription);
    assert!(consumer.close(PATIENCE).await);
}

/// Tombstones, random bytes and compressed messages of other producers, up to the broker's limit.
pub async fn foreign_messages_are_handed_over_as_they_are(broker: &Broker) {
    let big = vec![7; 1_000_000];
    let payloads: [Option<&[u8]>; 4] = [None, Some(&[]), Some(b"\xff\x00 no event"), Some(&big)];
    for codec in ["none", "gzip", "zstd", "lz4", "snappy"] {
        let mut client = broker.client();
        client.set("compression.type", codec).set("message.max.bytes", "1000900");
        let foreign: BaseProducer = client.create().unwrap();
        for payload in payloads {
            let record = BaseRecord::<(), [u8]>::to(BEHAVIOUR).partition(3);
            let record = BaseRecord { payload, ..record };
            foreign.send(record).map_err(|(error, _)| error).unwrap();
        }
        foreign.flush(PATIENCE).unwrap();
    }
    let consumer = broker.consumer();
    let mut subscription = consumer.subscribe(shard(3), 0).await.unwrap();
    let messages = read(&mut subscription, 20).await;
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(message.offset, n as u64);
        assert!(message.payload.as_deref() == payloads[n % 4], "message {n}");
    }
    subscription.close().await;
    // Into the middle of a compressed set.
    let mut subscription = consumer.subscribe(shard(3), 6).await.unwrap();
    assert_eq!(offsets(&read(&mut subscription, 14).await), (6..20).collect::<Vec<u64>>());
}

pub async fn dead_letters_keep_their_source(broker: &Broker) {
    let producer = broker.producer();
    let source = |offset| Position { partition: shard(4), offset };
    let big = vec![1; 1_048_000];
    producer.send_dead_letter(source(7), "it has version 9", Some(b"\x09rest"), soon()).await.unwrap();
    producer.send_dead_letter(source(8), "it is a tombstone", None, soon()).await.unwrap();
    producer.send_dead_letter(source(9), &"ä".repeat(5_000), Some(&big), soon()).await.unwrap();

    let mut client = broker.client();
    client.set("group.id", "reader").set("fetch.message.max.bytes", "4000000");
    let reader: BaseConsumer = client.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(DEAD_LETTERS, 0, Offset::Beginning).unwrap();
    reader.assign(&list).unwrap();
    let letters = tokio::task::spawn_blocking(move || {
        (0..3).map(|_| reader.poll(PATIENCE).unwrap().unwrap().detach()).collect::<Vec<_>>()
    });
    let expected = [("7", &b"\x09rest"[..], "false"), ("8", b"", "true"), ("9", big.as_slice(), "false")];
    for (letter, (offset, payload, tombstone)) in letters.await.unwrap().iter().zip(expected) {
        assert_eq!(letter.key().unwrap(), format!("behaviour/4/{offset}").as_bytes());
        assert!(letter.payload().unwrap() == payload, "letter {offset}");
        let headers = letter.headers().unwrap();
        assert_eq!((headers.get(0).key, headers.get(1).key), ("reason", "tombstone"));
        assert_eq!(headers.get(1).value.unwrap(), tombstone.as_bytes());
        assert!(headers.get(0).value.unwrap().len() <= 4_096);
    }
    let too_large = producer.send_dead_letter(source(1), "", Some(&vec![0; 3 << 20]), soon()).await;
    assert!(matches!(too_large, Err(eventlog::SendError::TooLarge)), "{too_large:?}");
    let passed = tokio::time::Instant::now() - Duration::from_millis(1);
    let late = producer.send_dead_letter(source(1), "", None, passed).await;
    assert!(matches!(late, Err(eventlog::SendError::Unavailable(_))), "{late:?}");
}
