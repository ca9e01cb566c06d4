//! The client that fetches messages, and its partitions. All functions here block; they run off the runtime.
//!
//! Each partition has a queue of its own in the client. The client stops fetching a partition whose queue is full, so a reader that is slow
//! stops no other one, and nothing that was fetched is thrown away, as pausing a partition would do.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use contract::{SHARDS, ShardId};
use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, base_consumer::PartitionQueue},
    error::KafkaError,
    topic_partition_list::Offset,
};
use tokio::sync::{Notify, oneshot, watch};

use crate::{
    config::KafkaConfig,
    consumer_errors::SubscribeError,
    context::ErrorLog,
    message::number,
    metrics::ConsumerMetrics,
    topics::{BEHAVIOUR, check_partitions},
};

/// Time for the broker to answer a question.
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// The client's thread looks for its end this often.
const POLL: Duration = Duration::from_millis(100);

/// The client's callbacks.
pub(crate) struct Reports {
    pub(crate) metrics: ConsumerMetrics,
    errors: ErrorLog,
    /// End offset by partition; -1: not known.
    ends: [AtomicI64; SHARDS as usize],
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        self.metrics.errors.inc();
        self.errors.report(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(BEHAVIOUR) else { return };
        let prefetched: u64 = topic.partitions.values().map(|partition| partition.fetchq_size).sum();
        self.metrics.prefetched_bytes.set(i64::try_from(prefetched).unwrap_or(i64::MAX));
        for (number, partition) in &topic.partitions {
            let end = usize::try_from(*number).ok().and_then(|index| self.ends.get(index));
            if let (Some(end), 0..) = (end, partition.hi_offset) {
                end.store(partition.hi_offset, Ordering::Relaxed);
            }
        }
    }
}

impl ConsumerContext for Reports {}

pub(crate) struct Fetcher {
    /// `None` only while it is dropped.
    client: Option<Arc<BaseConsumer<Reports>>>,
    /// Partitions with a subscription.
    taken: Mutex<HashSet<ShardId>>,
    stop: Arc<AtomicBool>,
}

impl Fetcher {
    /// Starts the client and its thread. The receiver's sender is dropped when the client is closed.
    pub(crate) fn start(
        config: &KafkaConfig,
        metrics: ConsumerMetrics,
    ) -> Result<(Self, watch::Receiver<()>), KafkaError> {
        let ends = std::array::from_fn(|_| AtomicI64::new(-1));
        let reports = Reports { metrics, errors: ErrorLog::new(), ends };
        let client = Arc::new(BaseConsumer::from_config_and_context(&config.consumer(), reports)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (running, closed) = watch::channel(());
        let (thread_client, thread_stop) = (Arc::clone(&client), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("kafka-consumer".into()).spawn(move || {
            while !thread_stop.load(Ordering::Acquire) {
                // Serves logs, errors and statistics. Messages are in the queues of their partitions.
                let _ = thread_client.poll(POLL);
            }
            // The last owner: closing may take a while, or hang.
            drop(thread_client);
            drop(running);
        });
        thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok((Self { client: Some(client), taken: Mutex::default(), stop }, closed))
    }

    fn client(&self) -> Result<&Arc<BaseConsumer<Reports>>, KafkaError> {
        self.client.as_ref().ok_or(KafkaError::Canceled)
    }

    pub(crate) fn metrics(&self) -> Option<&ConsumerMetrics> {
        self.client.as_ref().map(|client| &client.context().metrics)
    }

    /// The newest end offset in the client's statistics.
    pub(crate) fn seen_end(&self, partition: ShardId) -> Option<u64> {
        let end = self.client.as_ref()?.context().ends[partition.index()].load(Ordering::Relaxed);
        u64::try_from(end).ok()
    }

    /// Asks the broker for the first offset of the partition and for the one after its last.
    pub(crate) fn watermarks(&self, partition: ShardId) -> Result<(u64, u64), KafkaError> {
        let (low, high) = self.client()?.fetch_watermarks(BEHAVIOUR, number(partition), ASK_LIMIT)?;
        Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
    }

    /// Fails if the topic is missing, or has another number of partitions than there are shards.
    pub(crate) fn check_topic(&self) -> Result<(), SubscribeError> {
        let metadata = self.client().and_then(|client| client.fetch_metadata(Some(BEHAVIOUR), ASK_LIMIT));
        let metadata = metadata.map_err(SubscribeError::Unavailable)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == BEHAVIOUR);
        match topic {
            Some(topic) if topic.error().is_none() => {
                check_partitions(BEHAVIOUR, topic.partitions().len()).map_err(SubscribeError::PartitionCount)
            }
            _ => Err(SubscribeError::NoTopic),
        }
    }

    fn take(&self, partition: ShardId) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(partition)
    }

    fn give_back(&self, partition: ShardId) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }

    fn assign(&self, partition: ShardId, offset: u64) -> Result<(), KafkaError> {
        let offset = i64::try_from(offset).map_err(|_| KafkaError::Seek("the offset is above 2^63".into()))?;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(BEHAVIOUR, number(partition), Offset::Offset(offset))?;
        self.client()?.incremental_assign(&list)
    }

    fn unassign(&self, partition: ShardId) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(BEHAVIOUR, number(partition));
        self.client()?.incremental_unassign(&list)
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        // Before the thread may end: it has to be the last owner.
        self.client = None;
        self.stop.store(true, Ordering::Release);
    }
}

/// A partition that the client fetches, until this is dropped.
pub(crate) struct Assigned(Option<Inside>);

struct Inside {
    // Before the fetcher, whose drop expects that nobody else has the client.
    queue: PartitionQueue<Reports>,
    partition: ShardId,
    fetcher: Arc<Fetcher>,
    /// Dropped when the partition has been let go.
    _held: oneshot::Sender<()>,
}

impl Assigned {
    /// Lets the client fetch the partition from this offset. `ready` is notified when messages arrive. The receiver ends when the
    /// partition has been let go.
    pub(crate) fn new(
        fetcher: Arc<Fetcher>,
        partition: ShardId,
        offset: u64,
        ready: Arc<Notify>,
    ) -> Result<(Self, oneshot::Receiver<()>), SubscribeError> {
        if !fetcher.take(partition) {
            return Err(SubscribeError::Taken);
        }
        let queue = fetcher.client().and_then(|client| {
            // Before the assignment, so that no message goes to the client's main queue.
            let queue = client.split_partition_queue(BEHAVIOUR, number(partition)).ok_or(KafkaError::Canceled)?;
            fetcher.assign(partition, offset)?;
            Ok(queue)
        });
        match queue {
            Ok(mut queue) => {
                queue.set_nonempty_callback(move || ready.notify_one());
                let (held, released) = oneshot::channel();
                Ok((Self(Some(Inside { queue, partition, fetcher, _held: held })), released))
            }
            Err(error) => {
                fetcher.give_back(partition);
                Err(SubscribeError::Unavailable(error))
            }
        }
    }

    /// `None` only while it is dropped.
    pub(crate) fn queue(&self) -> Option<&PartitionQueue<Reports>> {
        self.0.as_ref().map(|inside| &inside.queue)
    }

    /// Fetches the partition anew from this offset. Messages that were fetched before are dropped.
    pub(crate) fn restart(&self, offset: u64) -> Result<(), KafkaError> {
        let Some(Inside { partition, fetcher, .. }) = &self.0 else { return Err(KafkaError::Canceled) };
        fetcher.unassign(*partition)?;
        fetcher.assign(*partition, offset)
    }
}

impl Inside {
    fn release(self) {
        let Self { queue, partition, fetcher, _held } = self;
        if let Err(error) = fetcher.unassign(partition) {
            tracing::warn!(partition = partition.index(), %error, "kafka does not release a partition");
        }
        drop(queue);
        fetcher.give_back(partition);
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        if let Some(inside) = self.0.take() {
            // A runtime thread must not wait for the client.
            let thread = std::thread::Builder::new().name("kafka-release".into());
            if let Err(error) = thread.spawn(move || inside.release()) {
                tracing::error!(%error, "a partition stays assigned: there are no threads");
            }
        }
    }
}
