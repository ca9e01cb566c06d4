//! How far the workers have come in the topic of events: the stored positions beside the ends of the partitions.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use contract::ShardId;
use eventlog::{Consumer, ConsumerMetrics, KafkaConfig};
use futures::future::try_join_all;
use stores::Store;
use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(100);

pub struct EventLag {
    /// Without faultproxy: the question must not wait for the law.
    store: Store,
    consumer: Consumer,
}

/// Sums over all partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub consumed: u64,
    pub end: u64,
}

impl Progress {
    pub fn behind(self) -> u64 {
        self.end.saturating_sub(self.consumed)
    }
}

impl EventLag {
    /// # Errors
    /// The broker's address is not valid.
    pub fn new(store: Store, brokers: &str) -> anyhow::Result<Self> {
        let metrics = ConsumerMetrics::new(&prometheus::Registry::new())?;
        let consumer = Consumer::start(&KafkaConfig { brokers: brokers.to_owned(), ..KafkaConfig::default() }, metrics)
            .context("cannot start a consumer")?;
        Ok(Self { store, consumer })
    }

    /// # Errors
    /// Store or broker do not answer.
    pub async fn read(&self) -> anyhow::Result<Progress> {
        let consumed = try_join_all(ShardId::all().map(|shard| self.store.event_position(shard)));
        let consumed = consumed.await.context("cannot read the positions")?;
        let ends = try_join_all(ShardId::all().map(|shard| self.consumer.end(shard)));
        let ends = ends.await.context("cannot read the ends of the partitions")?;
        Ok(Progress {
            consumed: consumed.iter().map(|position| position.next_offset).sum(),
            end: ends.into_iter().sum(),
        })
    }

    /// Waits until all events are consumed. No more may come in meanwhile.
    ///
    /// # Errors
    /// As `read`; or not within the limit.
    pub async fn drained(&self, limit: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let progress = self.read().await?;
            if progress.behind() == 0 {
                return Ok(());
            }
            ensure!(begun.elapsed() < limit, "{} events are not consumed after {limit:?}", progress.behind());
            sleep(POLL).await;
        }
    }
}
