//! `serve topic-reader`: reads the topic of events from its start as fast as it goes, for `bench events`. It decodes every event; with a
//! store it also inserts the rows of the log. A bound of what a worker can do.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use contract::{Event, ShardId, event_message};
use eventlog::{Consumer, ConsumerMetrics, KafkaConfig, Message};
use launcher::cpu;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    topic_partition_list::{Offset, TopicPartitionList},
};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, mysql::MySqlConnectOptions};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `host:port` of the broker.
    pub brokers: String,
    /// In the topic.
    pub events: u64,
    /// Of the MySQL server with all shards. `None`: nothing is inserted.
    pub mysql_port: Option<u16>,
    /// Where [`Outcome`] is written as JSON.
    pub result: PathBuf,
}

/// Without the first twentieth of the events: connections are opened meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub events: u64,
    pub seconds: f64,
    /// Of this process.
    pub cpu_s: f64,
}

/// As a worker's.
const BATCH: usize = 500;
const LINGER: Duration = Duration::from_millis(50);
/// For the next message, or for an answer of the store.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the plan of that file and writes what came of it.
///
/// # Errors
/// The topic has fewer events, a message is no event, or a server does not answer for 30 s.
pub async fn run(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| format!("{} is no plan", file.display()))?;
    let outcome = match plan.mysql_port {
        Some(port) => insert(&plan, port).await?,
        None => decode_all(&plan)?,
    };
    std::fs::write(&plan.result, serde_json::to_vec(&outcome)?)
        .with_context(|| format!("cannot write {}", plan.result.display()))
}

/// Counts events, and measures from a twentieth of them to the last one.
struct Stopwatch {
    all: u64,
    done: u64,
    from: Option<(u64, Instant, f64)>,
}

impl Stopwatch {
    fn new(all: u64) -> Self {
        Self { all, done: 0, from: None }
    }

    /// The outcome after the last event.
    fn count(&mut self, events: u64) -> anyhow::Result<Option<Outcome>> {
        let now = || cpu::process_seconds(std::process::id()).context("this process has no CPU clock");
        self.done += events;
        match self.from {
            None if self.done >= self.all / 20 => self.from = Some((self.done, Instant::now(), now()?)),
            Some((done, at, cpu_s)) if self.done >= self.all => {
                let seconds = at.elapsed().as_secs_f64();
                return Ok(Some(Outcome { events: self.done - done, seconds, cpu_s: now()? - cpu_s }));
            }
            None | Some(_) => {}
        }
        Ok(None)
    }
}

/// With librdkafka's defaults.
fn decode_all(plan: &Plan) -> anyhow::Result<Outcome> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &plan.brokers)
        .set("group.id", "topic-reader")
        .set("enable.auto.commit", "false")
        .create()
        .context("cannot start a consumer")?;
    let mut partitions = TopicPartitionList::new();
    for shard in ShardId::all() {
        partitions.add_partition_offset(eventlog::BEHAVIOUR, shard.index() as i32, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let mut stopwatch = Stopwatch::new(plan.events);
    loop {
        let message = consumer.poll(PATIENCE).context("no message within 30 s")?.context("cannot read the topic")?;
        event_message::decode(message.payload().context("a message has no payload")?)?;
        if let Some(outcome) = stopwatch.count(1)? {
            return Ok(outcome);
        }
    }
}

/// One task per partition, as in a worker.
async fn insert(plan: &Plan, port: u16) -> anyhow::Result<Outcome> {
    let metrics = ConsumerMetrics::new(&prometheus::Registry::new())?;
    let consumer = Consumer::start(&KafkaConfig { brokers: plan.brokers.clone(), ..KafkaConfig::default() }, metrics)
        .context("cannot start a consumer")?;
    let (counts, mut counted) = mpsc::channel(ShardId::all().count());
    let mut tasks = JoinSet::new();
    for shard in ShardId::all() {
        tasks.spawn(insert_partition(consumer.clone(), shard, port, counts.clone()));
    }
    let mut stopwatch = Stopwatch::new(plan.events);
    loop {
        tokio::select! {
            Some(events) = counted.recv() => {
                if let Some(outcome) = stopwatch.count(events)? {
                    return Ok(outcome);
                }
            }
            Some(ended) = tasks.join_next() => {
                ended.context("a partition's task crashed")??;
                bail!("a partition's task ended");
            }
        }
    }
}

async fn insert_partition(
    consumer: Consumer,
    shard: ShardId,
    port: u16,
    counts: mpsc::Sender<u64>,
) -> anyhow::Result<()> {
    let options = MySqlConnectOptions::new().host("127.0.0.1").port(port).username("root");
    let mut connection = MySqlConnection::connect_with(&options).await?;
    let mut subscription = consumer.subscribe(shard, 0).await?;
    loop {
        let messages = subscription.next_batch(BATCH, LINGER).await?;
        let sql = insert_sql(shard, &messages)?;
        timeout(PATIENCE, connection.execute(sqlx::raw_sql(AssertSqlSafe(sql)))).await??;
        if counts.send(messages.len() as u64).await.is_err() {
            return Ok(());
        }
    }
}

/// One statement, which is its own transaction. Some events are in the topic twice.
fn insert_sql(shard: ShardId, messages: &[Message]) -> anyhow::Result<String> {
    let schema = shard.schema();
    let mut sql =
        format!("INSERT IGNORE INTO {schema}.behaviour (user_id, at_ms, item_id, kind, weight, arrival) VALUES ");
    for (n, message) in messages.iter().enumerate() {
        let payload = message.payload.as_deref().context("a message has no payload")?;
        let Event { user_id, item_id, kind, at_ms, weight } = event_message::decode(payload)?;
        sql.push_str(if n == 0 { "(x'" } else { ",(x'" });
        push_hex(&mut sql, user_id.as_str());
        write!(sql, "',{at_ms},x'")?;
        push_hex(&mut sql, item_id.as_str());
        write!(sql, "',{},{weight},{})", kind.code(), message.offset + 1)?;
    }
    Ok(sql)
}

fn push_hex(sql: &mut String, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        sql.push(char::from(DIGITS[usize::from(byte >> 4)]));
        sql.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use contract::{EventKind, ItemId, UserId};

    use super::*;

    #[test]
    fn a_batch_is_one_statement() {
        let event = Event {
            user_id: UserId::new("u'1").unwrap(),
            item_id: ItemId::new("i2").unwrap(),
            kind: EventKind::Rating,
            at_ms: 1_000,
            weight: 2.5,
        };
        let payload = Some(event_message::encode(&event));
        let message = |offset| Message { offset, timestamp_ms: None, payload: payload.clone(), traceparent: None };
        let sql = insert_sql(ShardId::all().next().unwrap(), &[message(0), message(7)]).unwrap();
        let values = "(x'752731',1000,x'6932',3,2.5,1),(x'752731',1000,x'6932',3,2.5,8)";
        assert_eq!(
            sql,
            format!(
                "INSERT IGNORE INTO shard_00.behaviour (user_id, at_ms, item_id, kind, weight, arrival) VALUES {values}"
            )
        );
        let tombstone = Message { payload: None, ..message(8) };
        assert!(insert_sql(ShardId::all().next().unwrap(), &[tombstone]).is_err());
    }

    #[test]
    fn the_first_twentieth_is_not_measured() {
        let mut stopwatch = Stopwatch::new(100);
        for _ in 0..9 {
            assert_eq!(stopwatch.count(11).unwrap(), None);
        }
        let outcome = stopwatch.count(1).unwrap().unwrap();
        assert_eq!(outcome.events, 89);
        assert!(outcome.seconds >= 0.0 && outcome.cpu_s >= 0.0);
    }
}
