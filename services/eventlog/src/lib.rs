//! The log of events in Kafka: topics, producer and consumer. Everything that uses the Kafka client is in this crate.
//!
//! The topic `behaviour` has one partition per shard: partition i has the events of the users of shard i. Consumers keep their offsets
//! themselves; there is no consumer group. Messages that are no events are copied to the topic `dead-letter`.
//!
//! Depends on `contract` (events, shards). Begin reading with `producer.rs` or `consumer.rs`; `subscription.rs` reads one partition,
//! `config.rs` has the settings, those of the Kafka client included.

mod config;
mod consumer;
mod consumer_errors;
mod context;
mod delivery;
mod fetcher;
mod message;
mod metrics;
mod producer;
mod subscription;
mod topics;

pub use rdkafka::error::KafkaError;

pub use crate::{
    config::KafkaConfig,
    consumer::Consumer,
    consumer_errors::{ReadError, SubscribeError},
    message::{Message, Position},
    metrics::{ConsumerMetrics, ProducerMetrics},
    producer::{Producer, SendError},
    subscription::Subscription,
    topics::{BEHAVIOUR, DEAD_LETTERS, TopicError, prepare_topics},
};
