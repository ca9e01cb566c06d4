//! How far the partitions are processed, by the table that their owners write.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use contract::ShardId;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, Row as _};
use tokio::time::sleep;

use super::{judgement::Owners, load::Load};
use crate::roles::group_consumer;

/// Between two looks: the resolution of the figures.
const LOOK: Duration = Duration::from_millis(10);

pub struct Positions {
    connection: MySqlConnection,
    sql: String,
}

/// A partition: the offset after the last processed message, and the process that wrote it (empty for workers: the monitors know).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub partition: usize,
    pub next: u64,
    pub owner: String,
}

impl Positions {
    /// # Errors
    /// MySQL does not answer.
    pub async fn open(mysql: &str, owners: Owners) -> anyhow::Result<Self> {
        let mut connection = connect(mysql).await?;
        let sql = match owners {
            Owners::Workers { .. } => {
                let selects = ShardId::all().map(|shard| {
                    let (n, schema) = (shard.index(), shard.schema());
                    format!("SELECT {n}, next_offset, '' FROM {schema}.ownership")
                });
                selects.collect::<Vec<_>>().join(" UNION ALL ")
            }
            Owners::Group(_) => {
                for statement in group_consumer::CREATE_TABLE {
                    connection.execute(sqlx::raw_sql(statement)).await?;
                }
                format!("SELECT CAST(number AS SIGNED), next_offset, owner FROM {}", group_consumer::TABLE)
            }
        };
        Ok(Self { connection, sql })
    }

    /// # Errors
    /// MySQL does not answer.
    pub async fn read(&mut self) -> anyhow::Result<Vec<Position>> {
        let sql = AssertSqlSafe(self.sql.clone());
        let rows = sqlx::query(sql).fetch_all(&mut self.connection).await?;
        let position = |row: &sqlx::mysql::MySqlRow| -> anyhow::Result<Position> {
            let partition: i64 = row.try_get_unchecked(0)?;
            let owner: String = row.try_get_unchecked(2)?;
            Ok(Position { partition: usize::try_from(partition)?, next: row.try_get_unchecked(1)?, owner })
        };
        rows.iter().map(position).collect()
    }

    /// Seconds from `killed` until each of these partitions has processed an event that was sent later. `None`: not within the limit.
    ///
    /// # Errors
    /// MySQL does not answer.
    pub async fn consumed_again(
        &mut self,
        lost: &[usize],
        load: &Load,
        killed: Instant,
        limit: Duration,
    ) -> anyhow::Result<Option<f64>> {
        while killed.elapsed() < limit {
            let positions = self.read().await?;
            let at = killed.elapsed();
            let is_consumed = |partition: &usize| {
                let first = load.first_after_mark(*partition);
                let next =
                    positions.iter().find(|position| position.partition == *partition).map(|position| position.next);
                first.zip(next).is_some_and(|(first, next)| next > first)
            };
            if lost.iter().all(is_consumed) {
                return Ok(Some(at.as_secs_f64()));
            }
            sleep(LOOK).await;
        }
        Ok(None)
    }
}

/// # Errors
/// MySQL does not answer.
pub async fn connect(mysql: &str) -> anyhow::Result<MySqlConnection> {
    MySqlConnection::connect(&format!("mysql://root@{mysql}")).await.context("cannot connect to MySQL")
}
