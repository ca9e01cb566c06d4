//! An event's path through a worker, to be read from top to bottom. The steps have the same numbers in ARCHITECTURE.md, "An event, read
//! downward".
//!
//! 4. Consume. The partition's task has set the fence (`partition_task`); the stored position says where to begin.
//! 5. Decode (`decode`). What is no event goes to the topic of dead letters.
//! 6. Read the features of the batch's users that are not in memory (`read`, `known_users`), and which of the late events the log has.
//! 7. Fold (`fold`, pure): drop duplicates, add events to the features.
//! 8. Write fence, position, log and features in one transaction (`stores::Store::write_batch`).
//! 9. Publish the users' lists in Redis (`publish`).
//!
//! Only step 8 moves the position. If a process ends before it, the partition's next owner reads the same messages again.

mod decode;
mod fold;
mod known_users;
mod partition;
mod publish;
mod read;

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use contract::ShardId;
use eventlog::{Consumer, KafkaConfig, KafkaError, Producer};
use heartbeat::ownership::Fence;
use runtime::telemetry::Telemetry;
use stores::Store;
use tokio::{sync::OnceCell, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::partition::{OwnedPartition, Stop};
pub use self::publish::{ModelOfLists, Publisher};
use crate::{metrics::EventMetrics, ownership::PartitionOwnership};

/// Time for one attempt to create or check the topics.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts, before jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Between two looks at a position that the topic does not have: only an operator can change it.
const STOPPED_PAUSE: Duration = Duration::from_secs(10);

/// What the partitions share. Cheap to clone.
#[derive(Clone)]
pub struct EventPath(Arc<Shared>);

struct Shared {
    consumer: Consumer,
    kafka: KafkaConfig,
    /// Started with the first dead letter: most workers never send one.
    dead_letters: OnceCell<Producer>,
    store: Store,
    /// `None`: lists are not published.
    publisher: Option<Publisher>,
    telemetry: Telemetry,
    metrics: EventMetrics,
}

impl Shared {
    async fn dead_letters(&self) -> Result<&Producer, KafkaError> {
        self.dead_letters.get_or_try_init(async || Producer::start(&self.kafka, self.metrics.producer.clone())).await
    }
}

impl EventPath {
    /// Starts the consumer. The broker may be unreachable.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn start(
        config: &KafkaConfig,
        store: &Store,
        publisher: Option<Publisher>,
        telemetry: &Telemetry,
        metrics: EventMetrics,
    ) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Shared {
            consumer: Consumer::start(config, metrics.consumer.clone())?,
            kafka: config.clone(),
            dead_letters: OnceCell::new(),
            store: store.clone(),
            publisher,
            telemetry: telemetry.clone(),
            metrics,
        })))
    }

    /// Creates or checks the topics until that succeeds. The partitions wait for the broker on their own.
    pub fn prepare_topics(&self, config: &KafkaConfig, tasks: &TaskTracker, stop: &CancellationToken) {
        let config = config.clone();
        let prepare = async move {
            let mut pause = FIRST_PAUSE;
            while let Err(error) = eventlog::prepare_topics(&config, TOPICS_TIMEOUT).await {
                tracing::warn!(error = &error as &dyn Error, "cannot prepare the topics, trying again");
                sleep(pause).await;
                pause = (pause * 2).min(STOPPED_PAUSE);
            }
        };
        tasks.spawn(stop.clone().run_until_cancelled_owned(prepare));
    }

    /// Consumes the partition until the store refuses this worker's epoch. Cancel it when the partition gets another owner: a write that is
    /// on its way either arrives before the next owner's fence or is refused.
    pub async fn consume(&self, shard: ShardId, fence: Fence, ownership: &PartitionOwnership) {
        let path = &*self.0;
        let shown = path.metrics.partition(shard);
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let stop = OwnedPartition::new(path, shard, fence.epoch, ownership, &shown).run().await;
            if started.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            let partition = shard.index();
            let wait = match stop {
                Stop::Overruled => return,
                Stop::Moved => FIRST_PAUSE,
                Stop::OutOfRange(error) => {
                    shown.stopped();
                    tracing::error!(
                        error = &error as &dyn Error,
                        partition,
                        "the partition's events are not consumed. This worker never chooses another position by itself: see the runbook, EventPartitionWithoutOwner"
                    );
                    STOPPED_PAUSE
                }
                Stop::Failed(error) => {
                    tracing::warn!(error = &*error as &dyn Error, partition, "cannot consume events, trying again");
                    pause
                }
            };
            sleep(wait.mul_f64(rand::random_range(0.5..=1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
