//! Creates the topics, and refuses those that other settings have made useless.

use std::time::Duration;

use contract::SHARDS;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{KafkaConfig, MAX_MESSAGE_BYTES};

/// The topic of events; partition i has the users of shard i.
pub const BEHAVIOUR: &str = "behaviour";
/// Messages of `behaviour` that are no events. Key: `behaviour/PARTITION/OFFSET`.
pub const DEAD_LETTERS: &str = "dead-letter";

/// A new topic appears in the metadata a moment after its creation.
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The topic's events are not where their shards are.
    #[error(
        "the topic {topic} has {found} partitions instead of {expected}: move it to another name and delete it, then start again"
    )]
    PartitionCount { topic: &'static str, found: usize, expected: usize },
    #[error("kafka refuses to create the topic {topic}")]
    Refused {
        topic: &'static str,
        #[source]
        code: RDKafkaErrorCode,
    },
    #[error("kafka did not answer")]
    Unavailable(#[source] KafkaError),
    #[error("the topics do not exist after {0:?}")]
    Late(Duration),
}

impl TopicError {
    /// True: another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Late(_))
    }
}

struct Topic {
    name: &'static str,
    partitions: usize,
    settings: [(&'static str, String); 2],
}

fn topics() -> [Topic; 2] {
    [
        Topic {
            name: BEHAVIOUR,
            partitions: SHARDS.into(),
            // The time of a message is the producer's: freshness is measured from it.
            settings: [("cleanup.policy", "delete".into()), ("message.timestamp.type", "CreateTime".into())],
        },
        Topic {
            name: DEAD_LETTERS,
            partitions: 1,
            // One letter per source message, however often a worker writes it.
            settings: [("cleanup.policy", "compact".into()), ("max.message.bytes", MAX_MESSAGE_BYTES.to_string())],
        },
    ]
}

/// Creates the topics that are missing. Safe to call in several processes at the same time.
///
/// # Errors
/// `PartitionCount`: a topic has another number of partitions, and nothing was changed. `Refused`: the broker does not create one. The
/// others are transient.
pub async fn prepare_topics(config: &KafkaConfig, limit: Duration) -> Result<(), TopicError> {
    let end = Instant::now() + limit;
    let admin: AdminClient<DefaultClientContext> = config.client().create().map_err(TopicError::Unavailable)?;
    let (admin, result) = prepare(admin, end, limit).await;
    // Waits for a thread of its own.
    tokio::task::spawn_blocking(move || drop(admin));
    result
}

type Admin = AdminClient<DefaultClientContext>;

async fn prepare(mut admin: Admin, end: Instant, limit: Duration) -> (Option<Admin>, Result<(), TopicError>) {
    let mut created = false;
    loop {
        let remaining = end.saturating_duration_since(Instant::now());
        let looked = tokio::task::spawn_blocking(move || {
            let missing = missing(&admin, remaining);
            (admin, missing)
        });
        let Ok((returned, missing)) = looked.await else {
            return (None, Err(TopicError::Unavailable(KafkaError::Canceled)));
        };
        admin = returned;
        let result = match missing {
            Ok(missing) if missing.is_empty() => Ok(()),
            Err(error) => Err(error),
            Ok(_) if Instant::now() >= end => Err(TopicError::Late(limit)),
            Ok(missing) if !created => {
                created = true;
                match timeout_at(end, create(&admin, &missing, remaining)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => Err(error),
                    Err(_elapsed) => Err(TopicError::Late(limit)),
                }
            }
            Ok(_) => {
                sleep(POLL).await;
                continue;
            }
        };
        return (Some(admin), result);
    }
}

/// Blocks until the broker answers.
fn missing(admin: &Admin, limit: Duration) -> Result<Vec<Topic>, TopicError> {
    let metadata = admin.inner().fetch_metadata(None, limit).map_err(TopicError::Unavailable)?;
    let mut missing = Vec::new();
    for topic in topics() {
        match metadata.topics().iter().find(|found| found.name() == topic.name) {
            None => missing.push(topic),
            Some(found) => check_partitions(topic.name, found.partitions().len())?,
        }
    }
    Ok(missing)
}

/// # Errors
/// `PartitionCount`
pub(crate) fn check_partitions(name: &str, found: usize) -> Result<(), TopicError> {
    let topic = topics().into_iter().find(|topic| topic.name == name);
    match topic {
        Some(Topic { name: topic, partitions: expected, .. }) if expected != found => {
            Err(TopicError::PartitionCount { topic, found, expected })
        }
        _ => Ok(()),
    }
}

async fn create(admin: &Admin, missing: &[Topic], limit: Duration) -> Result<(), TopicError> {
    let new = missing.iter().map(|topic| {
        // -1: the broker's own setting.
        let new = NewTopic::new(topic.name, topic.partitions as i32, TopicReplication::Fixed(-1));
        topic.settings.iter().fold(new, |new, (key, value)| new.set(key, value))
    });
    let new: Vec<NewTopic<'_>> = new.collect();
    let options = AdminOptions::new().request_timeout(Some(limit)).operation_timeout(Some(limit));
    let results = admin.create_topics(&new, &options).await.map_err(TopicError::Unavailable)?;
    for (topic, result) in missing.iter().zip(results) {
        match result {
            // Another process was faster.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(TopicError::Refused { topic: topic.name, code }),
        }
    }
    Ok(())
}
