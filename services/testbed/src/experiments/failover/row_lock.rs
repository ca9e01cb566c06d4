//! A session that locks the row of a partition, so that a worker's transaction waits inside MySQL.

use std::time::Duration;

use anyhow::Context as _;
use contract::ShardId;
use sqlx::{AssertSqlSafe, Executor as _, MySqlConnection};
use tokio::time::{sleep, timeout};

use super::positions::connect;

/// Workers write several batches a second.
const BATCH_WITHIN: Duration = Duration::from_secs(20);
/// InnoDB renews its list of transactions only if it was not read for 0.1 s.
const PAUSE: Duration = Duration::from_millis(150);

pub struct RowLock(MySqlConnection);

impl RowLock {
    /// Locks the row, and returns once a batch of events waits for it.
    ///
    /// # Errors
    /// MySQL does not answer, or no batch comes within 20 s.
    pub async fn with_waiting_batch(mysql: &str, shard: ShardId) -> anyhow::Result<Self> {
        let (mut holder, mut looking) = (connect(mysql).await?, connect(mysql).await?);
        let schema = shard.schema();
        let lock = format!("BEGIN; SELECT epoch FROM {schema}.ownership FOR UPDATE");
        holder.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await.context("cannot lock the row")?;
        let waiting = format!(
            "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%{schema}.ownership%next_offset%'"
        );
        let found = async {
            while looking.fetch_optional(sqlx::raw_sql(AssertSqlSafe(waiting.clone()))).await?.is_none() {
                sleep(PAUSE).await;
            }
            anyhow::Ok(())
        };
        timeout(BATCH_WITHIN, found).await.with_context(|| format!("no batch waits within {BATCH_WITHIN:?}"))??;
        Ok(Self(holder))
    }

    /// # Errors
    /// MySQL does not answer.
    pub async fn release(mut self) -> anyhow::Result<()> {
        self.0.execute(sqlx::raw_sql("COMMIT")).await.context("cannot release the row")?;
        Ok(())
    }
}
