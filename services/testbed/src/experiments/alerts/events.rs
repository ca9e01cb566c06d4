//! Faults of the path of events, and the load that they need.

use std::time::Duration;

use anyhow::Context;
use contract::ShardId;
use launcher::mariadb::MySql;
use loadtest::event_load::{self, EventLoad};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};
use tokio::task::AbortHandle;

/// More than the experiment takes.
const LASTING: Duration = Duration::from_secs(3_600);
const PER_S: u32 = 50;
const FLUSH: Duration = Duration::from_secs(10);
/// No version of an event's encoding, an event that is cut off, nothing, and text.
const NO_EVENTS: [&[u8]; 4] = [b"\xff\x00", b"\x01", b"", b"{\"user_id\":\"u1\"}"];

/// Behaviour of users over the gateway, also while requests fail. Stops when dropped.
pub struct Behaviour(AbortHandle);

impl Behaviour {
    pub fn start(gateway: &str, dataset: &model::Dataset) -> Self {
        let load = EventLoad {
            gateway: gateway.to_owned(),
            per_s: PER_S,
            lasting: LASTING,
            seed: 1,
            users: crate::data::known_ids(dataset),
            items: crate::data::known_items(dataset),
            timestamps: false,
        };
        let task = tokio::spawn(async move {
            if let Err(error) = event_load::run(&load, |_| ()).await {
                eprintln!("no events are sent: {error:#}");
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Behaviour {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A lock on the features of all shards: they can be read and not written, as during a backup. Released when the connection ends.
pub struct FeaturesLock(MySqlConnection);

impl FeaturesLock {
    /// # Errors
    /// The server does not respond, or has no such tables.
    pub async fn take(server: &MySql) -> anyhow::Result<Self> {
        let mut connection = MySqlConnection::connect(&format!("mysql://root@127.0.0.1:{}", server.port)).await?;
        let tables: Vec<String> = ShardId::all().map(|shard| format!("{}.features READ", shard.schema())).collect();
        let lock = AssertSqlSafe(format!("LOCK TABLES {}", tables.join(", ")));
        sqlx::raw_sql(lock).execute(&mut connection).await.context("cannot lock the features")?;
        Ok(Self(connection))
    }

    /// # Errors
    /// The connection has broken, which releases the lock, too.
    pub async fn release(mut self) -> anyhow::Result<()> {
        sqlx::raw_sql("UNLOCK TABLES").execute(&mut self.0).await.context("cannot unlock the features")?;
        Ok(self.0.close().await?)
    }
}

/// Sends messages that are no events to partition 0.
///
/// # Errors
/// Kafka does not take them within 10 s.
pub async fn send_no_events(brokers: &str) -> anyhow::Result<()> {
    let brokers = brokers.to_owned();
    // The client's calls block.
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("message.timeout.ms", "10000").create()?;
        for payload in NO_EVENTS {
            let record = BaseRecord::<(), [u8]>::to(eventlog::BEHAVIOUR).partition(0).payload(payload);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(FLUSH).context("Kafka does not take the messages")
    })
    .await?
}
