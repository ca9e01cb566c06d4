use std::time::Duration;

use eventlog::{BEHAVIOUR, Consumer, ConsumerMetrics, KafkaConfig, ReadError, SubscribeError};
use prometheus::Registry;
use rdkafka::{TopicPartitionList, admin::AdminOptions, topic_partition_list::Offset};
use tokio::time::timeout;

use crate::broker::{Broker, PATIENCE, events, metric, offsets, read, shard, soon};

pub async fn a_partition_has_one_reader_at_a_time(broker: &Broker) {
    let (producer, consumer) = (broker.producer(), broker.consumer());
    producer.send(&events(5, 100), None, soon()).await.unwrap();
    let mut first = consumer.subscribe(shard(5), 0).await.unwrap();
    assert!(matches!(consumer.subscribe(shard(5), 0).await.err(), Some(SubscribeError::Taken)));
    assert_eq!(read(&mut first, 30).await.len(), 30);
    // What was fetched and not read comes again, and nothing of the earlier subscription.
    first.close().await;
    let mut second = consumer.subscribe(shard(5), 10).await.unwrap();
    assert_eq!(offsets(&read(&mut second, 90).await), (10..100).collect::<Vec<u64>>());
    second.close().await;
    assert!(consumer.close(PATIENCE).await, "no subscription keeps the client");
}

pub async fn a_cancelled_call_loses_nothing(broker: &Broker) {
    let (producer, consumer) = (broker.producer(), broker.consumer());
    let mut subscription = consumer.subscribe(shard(6), 0).await.unwrap();
    let nothing = timeout(Duration::from_millis(50), subscription.next_batch(10, Duration::ZERO)).await;
    assert!(nothing.is_err(), "there are no messages");
    producer.send(&events(6, 50), None, soon()).await.unwrap();
    // It waits for more than there is, and is cancelled again and again.
    let mut batch = Vec::new();
    while batch.is_empty() {
        let call = subscription.next_batch(1_000, Duration::from_millis(200));
        batch = timeout(Duration::from_millis(20), call).await.map_or(Vec::new(), Result::unwrap);
    }
    while batch.len() < 50 {
        batch.extend(read(&mut subscription, 1).await);
    }
    assert_eq!(offsets(&batch), (0..50).collect::<Vec<u64>>());
}

pub async fn offsets_that_the_broker_does_not_have_are_refused(broker: &Broker) {
    let (producer, consumer) = (broker.producer(), broker.consumer());
    producer.send(&events(7, 100), None, soon()).await.unwrap();
    let beyond = consumer.subscribe(shard(7), 101).await.err();
    assert!(matches!(beyond, Some(SubscribeError::OutOfRange { offset: 101, low: 0, high: 100 })), "{beyond:?}");
    let mut at_end = consumer.subscribe(shard(7), 100).await.unwrap();
    producer.send(&events(7, 1), None, soon()).await.unwrap();
    assert_eq!(offsets(&read(&mut at_end, 1).await), [100]);
    at_end.close().await;

    let mut below = TopicPartitionList::new();
    below.add_partition_offset(BEHAVIOUR, 7, Offset::Offset(40)).unwrap();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    broker.admin().delete_records(&below, &options).await.unwrap();
    let deleted = consumer.subscribe(shard(7), 39).await.err();
    assert!(matches!(deleted, Some(SubscribeError::OutOfRange { offset: 39, low: 40, high: 101 })), "{deleted:?}");

    // Retention overtakes a reader whose queue holds little: what was fetched is handed over, then it ends.
    producer.send(&events(8, 1_000), None, soon()).await.unwrap();
    producer.send(&events(8, 1_000), None, soon()).await.unwrap();
    let config = KafkaConfig { prefetch_kb: 8, ..broker.config() };
    let consumer = Consumer::start(&config, ConsumerMetrics::new(&Registry::new()).unwrap()).unwrap();
    let mut overtaken = consumer.subscribe(shard(8), 0).await.unwrap();
    let mut next = read(&mut overtaken, 1).await.len() as u64;
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(BEHAVIOUR, 8, Offset::Offset(2_000)).unwrap();
    broker.admin().delete_records(&all, &options).await.unwrap();
    let error = loop {
        match timeout(PATIENCE, overtaken.next_batch(100, Duration::ZERO)).await.unwrap() {
            Ok(batch) => {
                assert_eq!(offsets(&batch), (next..next + batch.len() as u64).collect::<Vec<u64>>(), "no gap");
                next += batch.len() as u64;
            }
            Err(error) => break error,
        }
    };
    assert!(next < 2_000, "all was fetched before");
    assert!(matches!(error, ReadError::OutOfRange { offset, low: 2_000, high: 2_000 } if offset == next), "{error:?}");
}

pub async fn a_slow_reader_stops_no_other_and_holds_little(broker: &Broker) {
    const SLOW: usize = 20_000;
    let producer = broker.producer();
    for _ in 0..SLOW / 1_000 {
        producer.send(&events(9, 1_000), None, soon()).await.unwrap();
    }
    let registry = Registry::new();
    let config = KafkaConfig { prefetch_kb: 64, ..broker.config() };
    let consumer = Consumer::start(&config, ConsumerMetrics::new(&registry).unwrap()).unwrap();
    let mut slow = consumer.subscribe(shard(9), 0).await.unwrap();
    assert_eq!(read(&mut slow, 1).await.len(), 1);
    let prefetched = || metric(&registry, "kafka_consumer_prefetched_bytes");
    let end = soon();
    // The client reports once per second.
    while prefetched() == 0.0 {
        assert!(tokio::time::Instant::now() < end, "nothing is fetched in advance");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It rests, and a partition beside it is read to its end, while it was written and afterwards.
    let mut fast = consumer.subscribe(shard(10), 0).await.unwrap();
    for n in 0..5 {
        producer.send(&events(10, 1_000), None, soon()).await.unwrap();
        assert_eq!(read(&mut fast, 1_000).await[999].offset, n * 1_000 + 999);
    }
    let held = prefetched();
    assert!(held < 2.0 * 64.0 * 1_024.0 + 20_000.0, "{held} bytes are held");
    assert_eq!(offsets(&read(&mut slow, SLOW - 1).await), (1..SLOW as u64).collect::<Vec<u64>>());
    assert_eq!(metric(&registry, "kafka_consumer_restarts_total"), 0.0);
}
