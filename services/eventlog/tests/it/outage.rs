use std::time::Duration;

use eventlog::{KafkaConfig, Producer, ProducerMetrics, SendError};
use launcher::Signal;
use prometheus::Registry;
use tokio::time::Instant;

use crate::broker::{Broker, events, metric, read, shard, soon};

/// `send` until it succeeds: what a client of the API does after a 503.
async fn send_patiently(producer: &Producer, index: usize, count: usize) -> u64 {
    let end = soon();
    loop {
        let attempt = Instant::now() + Duration::from_secs(2);
        match producer.send(&events(index, count), None, attempt).await {
            Ok(positions) => return positions[count - 1].offset,
            Err(error) => assert!(Instant::now() < end, "{error:?}"),
        }
    }
}

pub async fn reading_goes_on_after_a_kill(broker: &mut Broker) {
    let (producer, consumer) = (broker.producer(), broker.consumer());
    producer.send(&events(11, 500), None, soon()).await.unwrap();
    let mut subscription = consumer.subscribe(shard(11), 0).await.unwrap();
    let mut messages = read(&mut subscription, 200).await;
    broker.kill().await;

    let deadline = Instant::now() + Duration::from_millis(500);
    let refused = producer.send(&events(11, 10), None, deadline).await;
    // Without a cause: it was the deadline, not the client that gave the messages up.
    assert!(matches!(refused, Err(SendError::Unavailable(None))), "{refused:?}");
    // A process that starts while the broker is away.
    let late = broker.producer();
    let refused = late.send(&events(12, 10), None, Instant::now() + Duration::from_millis(500)).await;
    assert!(matches!(refused, Err(SendError::Unavailable(_))), "{refused:?}");
    let absent = consumer.subscribe(shard(12), 0).await.err();
    assert!(matches!(absent, Some(eventlog::SubscribeError::Unavailable(_))), "{absent:?}");

    broker.restart().await;
    assert_eq!(send_patiently(&late, 12, 10).await % 10, 9);
    let last = send_patiently(&producer, 11, 500).await;
    // 10 or more of the refused ones were written perhaps: that is what "perhaps" says.
    messages.extend(read(&mut subscription, usize::try_from(last).unwrap() + 1 - 200).await);
    let expected: Vec<u64> = (0..=last).collect();
    assert_eq!(crate::broker::offsets(&messages), expected, "neither a gap nor a repetition");
    assert!(last >= 999, "{last}");
}

/// A stopped process answers nothing, and its connections stay open.
pub async fn a_silent_broker_is_no_acknowledgement(broker: &mut Broker) {
    let registry = Registry::new();
    let config = KafkaConfig { queue_events: 1_000, ..broker.config() };
    let producer = Producer::start(&config, ProducerMetrics::new(&registry).unwrap()).unwrap();
    send_patiently(&producer, 13, 600).await;
    broker.stack.kill(broker.kafka.child, Signal::SIGSTOP).unwrap();
    let attempt = || Instant::now() + Duration::from_millis(200);
    let silent = producer.send(&events(13, 600), None, attempt()).await;
    assert!(matches!(silent, Err(SendError::Unavailable(_))), "{silent:?}");
    // The first 600 still wait for the broker.
    let full = producer.send(&events(13, 600), None, soon()).await;
    assert!(matches!(full, Err(SendError::QueueFull)), "{full:?}");
    assert_eq!(metric(&registry, "kafka_producer_pending_messages"), 600.0);
    broker.stack.kill(broker.kafka.child, Signal::SIGCONT).unwrap();
    send_patiently(&producer, 13, 600).await;
    assert_eq!(metric(&registry, "kafka_producer_replaced_total"), 0.0);
}
