//! Reads partitions of the topic `behaviour` from offsets that the caller keeps.

use std::{sync::Arc, time::Duration};

use contract::ShardId;
use rdkafka::error::KafkaError;
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    config::KafkaConfig,
    consumer_errors::SubscribeError,
    fetcher::{Assigned, Fetcher},
    metrics::ConsumerMetrics,
    subscription::Subscription,
};

/// One client with one thread, for all partitions of a process. Clones share it.
#[derive(Clone)]
pub struct Consumer {
    fetcher: Arc<Fetcher>,
    closed: watch::Receiver<()>,
}

impl Consumer {
    /// Connects in the background. The broker may be away.
    ///
    /// # Errors
    /// The settings are not valid, or there are no resources for a client.
    pub fn start(config: &KafkaConfig, metrics: ConsumerMetrics) -> Result<Self, KafkaError> {
        let (fetcher, closed) = Fetcher::start(config, metrics)?;
        Ok(Self { fetcher: Arc::new(fetcher), closed })
    }

    /// Reads a partition from this offset on; the end offset is permitted. The partition has one subscription at a time.
    ///
    /// # Errors
    /// See [`SubscribeError`]; within about 6 s.
    pub async fn subscribe(&self, partition: ShardId, offset: u64) -> Result<Subscription, SubscribeError> {
        let (fetcher, ready) = (Arc::clone(&self.fetcher), Arc::new(Notify::new()));
        let notified = Arc::clone(&ready);
        let assigned = off_runtime(move || {
            fetcher.check_topic()?;
            let (low, high) = fetcher.watermarks(partition).map_err(SubscribeError::Unavailable)?;
            if !(low..=high).contains(&offset) {
                return Err(SubscribeError::OutOfRange { offset, low, high });
            }
            Ok((Assigned::new(fetcher, partition, offset, notified)?, high))
        });
        let (assigned, high) = assigned.await.unwrap_or(Err(SubscribeError::Unavailable(KafkaError::Canceled)))?;
        Ok(Subscription::new(Arc::clone(&self.fetcher), assigned, ready, partition, offset, high))
    }

    /// Asks the broker for the end offset of a partition: the one that its next message will have.
    ///
    /// # Errors
    /// See [`SubscribeError`]; within about 6 s.
    pub async fn end(&self, partition: ShardId) -> Result<u64, SubscribeError> {
        let fetcher = Arc::clone(&self.fetcher);
        let asked = off_runtime(move || {
            fetcher.check_topic()?;
            fetcher.watermarks(partition).map(|(_low, high)| high).map_err(SubscribeError::Unavailable)
        });
        asked.await.unwrap_or(Err(SubscribeError::Unavailable(KafkaError::Canceled)))
    }

    /// Closes the client, and waits for it. True: it is closed. False: a clone or a subscription exists, or the client hangs.
    pub async fn close(self, limit: Duration) -> bool {
        let Self { fetcher, mut closed } = self;
        drop(fetcher);
        // An error says that the sender is gone: its thread has ended.
        matches!(timeout(limit, closed.changed()).await, Ok(Err(_)))
    }
}

/// `None`: it has panicked, or the runtime ends.
async fn off_runtime<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    spawn_blocking(ask).await.ok()
}
