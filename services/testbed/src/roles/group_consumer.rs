//! `serve group-consumer`: a member of a plain consumer group of Kafka, to compare with (`experiment failover`). It decodes the events and
//! writes its positions; the group's coordinator is the broker.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use contract::event_message;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};
use tokio_util::sync::CancellationToken;

/// Positions by partition, and the member that wrote them last.
pub const TABLE: &str = "consumer_group.positions";
pub const CREATE_TABLE: [&str; 3] = [
    "CREATE DATABASE IF NOT EXISTS consumer_group",
    "DROP TABLE IF EXISTS consumer_group.positions",
    "CREATE TABLE consumer_group.positions (number INT NOT NULL PRIMARY KEY, next_offset BIGINT UNSIGNED NOT NULL, \
     owner VARCHAR(64) NOT NULL) ENGINE = InnoDB",
];
/// As the workers' batches.
const MAX_BATCH: usize = 500;
const LINGER: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Loopback only.
    pub brokers: String,
    pub group: String,
    /// Of this member.
    pub name: String,
    /// `host:port`
    pub mysql: String,
    /// Of the client, on top of its defaults.
    pub settings: Vec<(String, String)>,
}

/// # Errors
/// The plan cannot be read; Kafka's client or MySQL fails.
pub async fn run(plan: &Path, stop: CancellationToken) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(plan).with_context(|| format!("cannot read {}", plan.display()))?;
    let plan: Plan = serde_json::from_str(&text)?;
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &plan.brokers)
        .set("group.id", &plan.group)
        .set("client.id", &plan.name)
        .set("enable.auto.commit", "false")
        // Only events that come from now on are measured.
        .set("auto.offset.reset", "latest");
    for (key, value) in &plan.settings {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create().context("cannot create a consumer")?;
    consumer.subscribe(&[eventlog::BEHAVIOUR])?;
    let mut mysql = MySqlConnection::connect(&format!("mysql://root@{}", plan.mysql)).await?;
    while !stop.is_cancelled() {
        let positions = batch(&consumer);
        if !positions.is_empty() {
            mysql.execute(sqlx::raw_sql(AssertSqlSafe(sql(&positions, &plan.name)))).await?;
            consumer.commit_consumer_state(CommitMode::Async).context("cannot commit the positions")?;
        }
        // So that a signal is heard.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Offsets after the messages of a batch, by partition. Blocks for the linger.
fn batch(consumer: &BaseConsumer) -> BTreeMap<i32, i64> {
    let (mut positions, mut messages) = (BTreeMap::new(), 0);
    let end = Instant::now() + LINGER;
    while messages < MAX_BATCH {
        let left = end.saturating_duration_since(Instant::now());
        match consumer.poll(left) {
            Some(Ok(message)) => {
                messages += 1;
                // Only for its cost: what is no event is skipped.
                if message.payload().map(event_message::decode).is_some() {
                    positions.insert(message.partition(), message.offset() + 1);
                }
            }
            // The client repairs what can be repaired.
            Some(Err(error)) => eprintln!("cannot consume: {error}"),
            None if left.is_zero() => break,
            None => {}
        }
    }
    positions
}

fn sql(positions: &BTreeMap<i32, i64>, owner: &str) -> String {
    let mut sql = format!("INSERT INTO {TABLE} (number, next_offset, owner) VALUES ");
    for (n, (partition, next)) in positions.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(sql, "{comma}({partition},{next},'{owner}')");
    }
    sql.push_str(" ON DUPLICATE KEY UPDATE next_offset = VALUES(next_offset), owner = VALUES(owner)");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_has_all_positions() {
        let sql = sql(&BTreeMap::from([(0, 5), (3, 9)]), "consumer-1");
        assert!(sql.contains("VALUES (0,5,'consumer-1'),(3,9,'consumer-1') ON DUPLICATE"), "{sql}");
    }
}
