use eventlog::{BEHAVIOUR, DEAD_LETTERS, SendError, SubscribeError, TopicError, prepare_topics};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};

use crate::broker::{Broker, PATIENCE, events, shard, soon};

pub async fn are_created_once(broker: &Broker) {
    let config = broker.config();
    // Several processes start at the same time.
    let (a, b) = tokio::join!(prepare_topics(&config, PATIENCE), prepare_topics(&config, PATIENCE));
    a.unwrap();
    b.unwrap();
    prepare_topics(&config, PATIENCE).await.unwrap();
    let metadata = broker.admin().inner().fetch_metadata(None, PATIENCE).unwrap();
    let partitions = |name| metadata.topics().iter().find(|topic| topic.name() == name).unwrap().partitions().len();
    assert_eq!((partitions(BEHAVIOUR), partitions(DEAD_LETTERS)), (16, 1));
}

pub async fn another_number_of_partitions_is_refused(broker: &Broker) {
    let (admin, options) = (broker.admin(), AdminOptions::new().operation_timeout(Some(PATIENCE)));
    let consumer = broker.consumer();
    assert!(matches!(consumer.end(shard(0)).await, Err(SubscribeError::NoTopic)));
    let wrong = NewTopic::new(BEHAVIOUR, 4, TopicReplication::Fixed(1));
    admin.create_topics([&wrong], &options).await.unwrap()[0].as_ref().unwrap();

    let refused = prepare_topics(&broker.config(), PATIENCE).await.unwrap_err();
    assert!(matches!(refused, TopicError::PartitionCount { topic: BEHAVIOUR, found: 4, expected: 16 }), "{refused:?}");
    assert!(refused.to_string().contains("has 4 partitions instead of 16"), "{refused}");
    let sent = broker.producer().send(&events(1, 1), None, soon()).await;
    assert!(matches!(sent, Err(SendError::Topics(TopicError::PartitionCount { .. }))), "{sent:?}");
    let subscribed = consumer.subscribe(shard(1), 0).await.err();
    assert!(matches!(subscribed, Some(SubscribeError::PartitionCount(_))), "{subscribed:?}");

    admin.delete_topics(&[BEHAVIOUR], &options).await.unwrap()[0].as_ref().unwrap();
    // The metadata still has the deleted topic for a moment.
    let end = soon();
    while let Err(error) = prepare_topics(&broker.config(), PATIENCE).await {
        assert!(matches!(error, TopicError::PartitionCount { .. }) && tokio::time::Instant::now() < end, "{error:?}");
    }
}
