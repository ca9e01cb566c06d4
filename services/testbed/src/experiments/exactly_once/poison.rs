//! Messages that are no events, written into the topic past the API.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::time::sleep;

use super::workload::Workload;

const PAUSE: Duration = Duration::from_millis(20);
/// The broker is away for seconds only.
const FLUSH: Duration = Duration::from_secs(120);

/// Where the messages are, as (partition, offset).
#[derive(Default)]
pub struct Delivered {
    pub positions: Mutex<BTreeSet<(usize, u64)>>,
    /// Messages that the broker did not acknowledge; it may have them.
    pub failed: AtomicU64,
}

struct Reports(Arc<Delivered>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        match report {
            Ok(message) => {
                let position = (message.partition() as usize, message.offset() as u64);
                self.0.positions.lock().unwrap_or_else(PoisonError::into_inner).insert(position);
            }
            Err(_) => _ = self.0.failed.fetch_add(1, Relaxed),
        }
    }
}

/// Writes `count` messages, evenly over the progress of the clients: from 0 to 1.
///
/// # Errors
/// The producer cannot be created, or the broker takes a message neither now nor later.
pub async fn write(
    brokers: &str,
    count: u64,
    workload: &Workload,
    progress: impl Fn() -> f64,
    delivered: &Arc<Delivered>,
) -> anyhow::Result<()> {
    let producer: ThreadedProducer<Reports> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "2000000")
        .set("message.timeout.ms", "100000")
        .set("reconnect.backoff.max.ms", "500")
        .create_with_context(Reports(Arc::clone(delivered)))
        .context("cannot create a producer")?;
    for n in 0..count {
        while progress() * (count as f64) < n as f64 {
            sleep(PAUSE).await;
        }
        let (partition, payload) = workload.poison(n);
        loop {
            let mut record = BaseRecord::<(), [u8]>::to(eventlog::BEHAVIOUR).partition(partition.index() as i32);
            if let Some(payload) = &payload {
                record = record.payload(payload);
            }
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => sleep(PAUSE).await,
                Err((error, _)) => return Err(error).context("cannot write poison"),
            }
        }
    }
    tokio::task::spawn_blocking(move || producer.flush(FLUSH)).await?.context("the broker did not take all poison")
}
