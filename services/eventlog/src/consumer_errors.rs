//! Why a partition cannot be read.

use rdkafka::error::KafkaError;

use crate::topics::TopicError;

#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// Retention has deleted messages that were not read (`offset < low`), or the topic was created anew (`offset > high`). It does not
    /// pass by itself.
    #[error("kafka has the offsets {low} to {high}, and not {offset}")]
    OutOfRange { offset: u64, low: u64, high: u64 },
    /// It does not pass by itself.
    #[error(transparent)]
    PartitionCount(TopicError),
    #[error("the topic does not exist")]
    NoTopic,
    /// A subscription of this process reads the partition, or has not let it go yet.
    #[error("this process reads the partition already")]
    Taken,
    #[error("kafka did not answer")]
    Unavailable(#[source] KafkaError),
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// As in [`SubscribeError`], noticed while reading.
    #[error("kafka has the offsets {low} to {high}, and not {offset}")]
    OutOfRange { offset: u64, low: u64, high: u64 },
    /// The partition is not there, or its data is damaged. It may pass: subscribe again after a while.
    #[error("the partition cannot be read")]
    Failed(#[source] KafkaError),
}
