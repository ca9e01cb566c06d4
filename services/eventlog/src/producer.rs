//! Sends events and dead letters.
//!
//! The producer is idempotent: its own retries repeat nothing. What a call reports as failed may have been written all the same, because an
//! acknowledgement can get lost; the log of the store recognises repeated events.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contract::{Event, event_message, shard_of};
use rdkafka::{
    config::FromClientConfigAndContext as _,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};
use tokio::{
    sync::{OnceCell, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    config::{KafkaConfig, MAX_MESSAGE_BYTES},
    delivery::{Batch, Delivered, Deliveries, Ticket},
    message::{Position, TRACEPARENT, number, partition},
    metrics::ProducerMetrics,
    topics::{BEHAVIOUR, DEAD_LETTERS, TopicError, prepare_topics},
};

/// Headers of a dead letter: why it is one, and whether its source had a payload. An empty value is no tombstone here: the topic is
/// compacted, and a tombstone would delete the letter.
const REASON: &str = "reason";
const TOMBSTONE: &str = "tombstone";
/// Room for the key and the headers of a dead letter.
const MAX_REASON_BYTES: usize = 4_096;

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing of this call was sent.
    #[error("too many events wait for kafka")]
    QueueFull,
    /// Perhaps some messages were written.
    #[error("kafka did not acknowledge in time")]
    Unavailable(#[source] Option<KafkaError>),
    /// Another attempt fails as well.
    #[error("the message is too large for kafka")]
    TooLarge,
    /// Nothing was sent. Another attempt fails as well, until an operator has changed the topics.
    #[error("the topics are not usable")]
    Topics(#[source] TopicError),
}

/// Clones share the client and its bounds.
#[derive(Clone)]
pub struct Producer(Arc<Inner>);

struct Inner {
    config: KafkaConfig,
    metrics: ProducerMetrics,
    /// Events that may be sent and not acknowledged.
    room: Arc<Semaphore>,
    client: Mutex<Arc<Client>>,
    /// Set after the first success.
    prepared: OnceCell<()>,
}

/// `None` only while it is dropped.
struct Client(Option<ThreadedProducer<Deliveries>>);

impl Client {
    fn new(config: &KafkaConfig, metrics: &ProducerMetrics) -> Result<Arc<Self>, KafkaError> {
        let deliveries = Deliveries::new(metrics.clone());
        let client = ThreadedProducer::from_config_and_context(&config.producer(), deliveries)?;
        Ok(Arc::new(Self(Some(client))))
    }

    fn is_fatal(&self) -> bool {
        self.0.as_ref().is_some_and(|client| client.client().context().is_fatal())
    }
}

impl Drop for Client {
    /// Gives up what is not acknowledged. The client waits for its threads, up to a second, so it is dropped off the runtime.
    fn drop(&mut self) {
        let client = self.0.take();
        let thread = std::thread::Builder::new().name("kafka-close".into());
        // Without a thread it is dropped here.
        thread.spawn(move || drop(client)).ok();
    }
}

impl Producer {
    /// Connects in the background. The broker may be away.
    ///
    /// # Errors
    /// The settings are not valid, or there are no resources for a client.
    pub fn start(config: &KafkaConfig, metrics: ProducerMetrics) -> Result<Self, KafkaError> {
        let client = Mutex::new(Client::new(config, &metrics)?);
        let room = Arc::new(Semaphore::new(config.queue_events as usize));
        Ok(Self(Arc::new(Inner { config: config.clone(), metrics, room, client, prepared: OnceCell::new() })))
    }

    /// Sends each event to the partition of its user's shard, with the trace context as a header, and waits until Kafka has acknowledged
    /// all. Returns their positions in the order of `events`. The first call creates missing topics.
    ///
    /// # Errors
    /// See [`SendError`]; by the deadline at the latest.
    pub async fn send(
        &self,
        events: &[Event],
        traceparent: Option<&str>,
        deadline: Instant,
    ) -> Result<Vec<Position>, SendError> {
        let count = u32::try_from(events.len()).map_err(|_| SendError::TooLarge)?;
        let room = Arc::clone(&self.0.room).try_acquire_many_owned(count).map_err(|_| SendError::QueueFull)?;
        self.prepare(deadline).await?;
        let (batch, outcome) = Batch::new(events.len(), Some(room));
        let client = self.client()?;
        for (index, event) in events.iter().enumerate() {
            let payload = event_message::encode(event);
            let ticket = Ticket { index, batch: Arc::clone(&batch) };
            let record = BaseRecord::<(), [u8], _>::with_opaque_to(BEHAVIOUR, Box::new(ticket))
                .partition(number(shard_of(event.user_id.as_str())))
                .payload(payload.as_slice());
            let headers = traceparent.map(|context| headers(&[(TRACEPARENT, context)]));
            self.enqueue(&client, BaseRecord { headers, ..record }).map_err(|error| match error {
                SendError::QueueFull if index > 0 => SendError::Unavailable(None),
                error => error,
            })?;
        }
        // So that the client can be replaced and dropped while this waits.
        drop(client);
        let delivered = if events.is_empty() { Vec::new() } else { wait(outcome, deadline).await? };
        delivered.into_iter().map(position).collect()
    }

    /// Writes a message that is no event to the topic of dead letters: key `behaviour/PARTITION/OFFSET`, the source's payload, and the
    /// reason as a header. A letter that is written again replaces itself.
    ///
    /// # Errors
    /// See [`SendError`]; by the deadline at the latest.
    pub async fn send_dead_letter(
        &self,
        source: Position,
        reason: &str,
        payload: Option<&[u8]>,
        deadline: Instant,
    ) -> Result<(), SendError> {
        self.prepare(deadline).await?;
        let (batch, outcome) = Batch::new(1, None);
        let key = format!("{BEHAVIOUR}/{source}");
        let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
        let tombstone = if payload.is_none() { "true" } else { "false" };
        let record = BaseRecord::with_opaque_to(DEAD_LETTERS, Box::new(Ticket { index: 0, batch }))
            .partition(0)
            .key(&key)
            .payload(payload.unwrap_or_default())
            .headers(headers(&[(REASON, reason), (TOMBSTONE, tombstone)]));
        self.enqueue(&*self.client()?, record)?;
        wait(outcome, deadline).await?.into_iter().try_for_each(|delivered| match delivered {
            Ok(_) => Ok(()),
            Err(error) => Err(failed(error)),
        })
    }

    /// Creates or checks the topics once.
    async fn prepare(&self, deadline: Instant) -> Result<(), SendError> {
        let prepare = self.0.prepared.get_or_try_init(async || {
            let limit = deadline.saturating_duration_since(Instant::now());
            prepare_topics(&self.0.config, limit.max(Duration::from_millis(1))).await
        });
        match timeout_at(deadline, prepare).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(TopicError::Unavailable(error))) => Err(SendError::Unavailable(Some(error))),
            Ok(Err(TopicError::Late(_))) => Err(SendError::Unavailable(None)),
            Ok(Err(error)) => Err(SendError::Topics(error)),
            Err(_elapsed) => Err(SendError::Unavailable(None)),
        }
    }

    /// The client; a new one after a fatal error.
    fn client(&self) -> Result<Arc<Client>, SendError> {
        let mut client = self.0.client.lock().unwrap_or_else(PoisonError::into_inner);
        if client.is_fatal() {
            *client = Client::new(&self.0.config, &self.0.metrics).map_err(failed)?;
            self.0.metrics.replaced.inc();
            tracing::warn!("the kafka producer had a fatal error and was replaced");
        }
        Ok(Arc::clone(&client))
    }

    fn enqueue<K>(&self, client: &Client, record: BaseRecord<'_, K, [u8], Box<Ticket>>) -> Result<(), SendError>
    where
        K: rdkafka::message::ToBytes + ?Sized,
    {
        let Some(client) = &client.0 else { return Err(SendError::Unavailable(None)) };
        // Before the client can report the outcome.
        self.0.metrics.pending.inc();
        client.send(record).map_err(|(error, _record)| {
            self.0.metrics.pending.dec();
            client.client().context().note(&error);
            failed(error)
        })
    }
}

fn headers(headers: &[(&str, &str)]) -> OwnedHeaders {
    let start = OwnedHeaders::new_with_capacity(headers.len());
    headers.iter().fold(start, |all, (key, value)| all.insert(Header { key, value: Some(*value) }))
}

async fn wait(outcome: oneshot::Receiver<Vec<Delivered>>, deadline: Instant) -> Result<Vec<Delivered>, SendError> {
    // The sending half ends without an outcome when a client is dropped.
    timeout_at(deadline, outcome).await.ok().and_then(Result::ok).ok_or(SendError::Unavailable(None))
}

fn position(delivered: Delivered) -> Result<Position, SendError> {
    let (number, offset) = delivered.map_err(failed)?;
    match (partition(number), u64::try_from(offset)) {
        (Some(partition), Ok(offset)) => Ok(Position { partition, offset }),
        // The broker has the message, but where is unknown.
        _ => Err(SendError::Unavailable(None)),
    }
}

fn failed(error: KafkaError) -> SendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => SendError::QueueFull,
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => SendError::TooLarge,
        _ => SendError::Unavailable(Some(error)),
    }
}

const _: () = assert!(event_message::MAX_BYTES + 1_024 < MAX_MESSAGE_BYTES);
