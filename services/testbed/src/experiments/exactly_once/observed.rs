//! What the topics and the store contain, read by a plain consumer and plain statements.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use contract::{EventKind, ShardId};
use futures::TryStreamExt as _;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _},
};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _, mysql::MySqlRow};

use super::oracle::{FeaturesRow, Message, Row, State};

const POLL: Duration = Duration::from_millis(100);
const METADATA: Duration = Duration::from_secs(30);
/// Without a message for this time, the rest of a topic is not readable.
const SILENCE: Duration = Duration::from_secs(60);
/// Header with the reason of a dead letter.
const REASON: &str = "reason";

/// Reads topics from their beginning. Blocking: run it on a thread of its own.
pub struct Topics(BaseConsumer);

impl Topics {
    /// # Errors
    /// The client cannot be created.
    pub fn open(brokers: &str) -> anyhow::Result<Self> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "exactly-once")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .create()
            .context("cannot create a consumer")?;
        Ok(Self(consumer))
    }

    /// Offset after the last message.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn end(&self, topic: &str, partition: usize) -> anyhow::Result<u64> {
        let (_, end) = self.0.fetch_watermarks(topic, partition as i32, METADATA)?;
        Ok(end as u64)
    }

    /// All messages of the partition, by offset.
    ///
    /// # Errors
    /// The broker does not answer, or the partition does not begin at offset 0.
    pub fn messages(&self, partition: ShardId) -> anyhow::Result<Vec<Message>> {
        let mut messages = Vec::new();
        self.each(eventlog::BEHAVIOUR, partition.index(), |message| {
            messages.push(Message {
                offset: message.offset() as u64,
                timestamp_ms: message.timestamp().to_millis(),
                payload: message.payload().map(<[u8]>::to_vec),
            });
        })?;
        ensure!(messages.first().is_none_or(|first| first.offset == 0), "the topic has lost its first messages");
        Ok(messages)
    }

    /// Reasons of the dead letters by partition and offset; empty without a reason. Of letters with one key, the last one counts.
    ///
    /// # Errors
    /// The broker does not answer, or a key names no position.
    pub fn dead_letters(&self) -> anyhow::Result<BTreeMap<(usize, u64), String>> {
        let mut letters = BTreeMap::new();
        let mut unreadable = None;
        self.each(eventlog::DEAD_LETTERS, 0, |message| {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            match position(&key) {
                Some(position) => _ = letters.insert(position, reason(message)),
                None => unreadable = Some(key),
            }
        })?;
        match unreadable {
            Some(key) => bail!("a dead letter has the key {key:?}, which names no position"),
            None => Ok(letters),
        }
    }

    fn each(&self, topic: &str, partition: usize, mut each: impl FnMut(&BorrowedMessage<'_>)) -> anyhow::Result<()> {
        let end = self.end(topic, partition)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
        self.0.assign(&list)?;
        let (mut next, mut heard) = (0, Instant::now());
        while next < end {
            match self.0.poll(POLL) {
                Some(Ok(message)) => {
                    each(&message);
                    (next, heard) = (message.offset() as u64 + 1, Instant::now());
                }
                Some(Err(error)) if heard.elapsed() > SILENCE => return Err(error).context("cannot read the topic"),
                Some(Err(_)) => {}
                None => {
                    ensure!(heard.elapsed() <= SILENCE, "{topic}/{partition} ends at {end}, but {next} does not come")
                }
            }
        }
        Ok(())
    }
}

/// `behaviour/PARTITION/OFFSET`
fn position(key: &str) -> Option<(usize, u64)> {
    let (partition, offset) = key.strip_prefix(eventlog::BEHAVIOUR)?.strip_prefix('/')?.split_once('/')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

fn reason(message: &BorrowedMessage<'_>) -> String {
    let mut headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let reason = headers.find(|header| header.key == REASON).and_then(|header| header.value);
    String::from_utf8_lossy(reason.unwrap_or_default()).into_owned()
}

/// Reads the store's tables.
pub struct Tables(MySqlConnection);

impl Tables {
    /// # Errors
    /// The server does not answer.
    pub async fn open(mysql: &str) -> anyhow::Result<Self> {
        let connection = MySqlConnection::connect(&format!("mysql://root@{mysql}")).await;
        Ok(Self(connection.context("cannot connect to MySQL")?))
    }

    /// Positions of all partitions: (next offset, arrival base).
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn positions(&mut self) -> anyhow::Result<Vec<(u64, u64)>> {
        let selects = ShardId::all().map(|shard| {
            let schema = shard.schema();
            format!("SELECT {} AS shard, next_offset, arrival_base FROM {schema}.ownership", shard.index())
        });
        let sql = format!("{} ORDER BY shard", selects.collect::<Vec<_>>().join(" UNION ALL "));
        let rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_all(&mut self.0).await?;
        rows.iter().map(|row| Ok((row.try_get(1)?, row.try_get(2)?))).collect()
    }

    /// Everything that depends on the partition's events, without the dead letters.
    ///
    /// # Errors
    /// The server does not answer, or a row is not readable.
    pub async fn state(&mut self, shard: ShardId) -> anyhow::Result<State> {
        let schema = shard.schema();
        let mut state = State::default();
        let log = format!("SELECT user_id, at_ms, item_id, kind, weight, arrival FROM {schema}.behaviour");
        self.each(log, |row| {
            let kind: u8 = row.try_get(3)?;
            let kind = EventKind::from_code(kind).context("an event has an unknown kind")?;
            let key = (id(row, 0)?, row.try_get(1)?, id(row, 2)?, kind);
            state.log.insert(key, Row { weight: row.try_get(4)?, arrival: row.try_get(5)? });
            Ok(())
        })
        .await?;
        self.each(format!("SELECT user_id, events FROM {schema}.users"), |row| {
            let events: u32 = row.try_get(1)?;
            state.counts.insert(id(row, 0)?, events.into());
            Ok(())
        })
        .await?;
        self.each(format!("SELECT user_id, arrival, features FROM {schema}.features"), |row| {
            state.features.insert(id(row, 0)?, FeaturesRow { arrival: row.try_get(1)?, bytes: row.try_get(2)? });
            Ok(())
        })
        .await?;
        self.each(format!("SELECT next_offset FROM {schema}.ownership"), |row| {
            state.next_offset = row.try_get(0)?;
            Ok(())
        })
        .await?;
        Ok(state)
    }

    async fn each(&mut self, sql: String, mut each: impl FnMut(&MySqlRow) -> anyhow::Result<()>) -> anyhow::Result<()> {
        // A prepared statement has binary rows: a float as text would lose digits.
        let mut rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch(&mut self.0);
        while let Some(row) = rows.try_next().await? {
            each(&row)?;
        }
        Ok(())
    }
}

fn id<T: std::str::FromStr<Err = contract::IdError>>(row: &MySqlRow, column: usize) -> anyhow::Result<T> {
    let bytes: Vec<u8> = row.try_get(column)?;
    Ok(String::from_utf8(bytes)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_dead_letters_are_positions() {
        assert_eq!(position("behaviour/15/1234"), Some((15, 1_234)));
        for bad in ["", "behaviour", "behaviour/1", "other/1/2", "behaviour/x/2", "behaviour/1/"] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}
