//! Fencing of partitions: after `fence` for an epoch, the store refuses all writes of earlier epochs, also those in flight. Each write is one
//! UPDATE, so that the check and the write are atomic.

use contract::ShardId;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use crate::{
    command_timeout::CommandTimeout,
    error::StoreError,
    mysql::{Store, detached},
};

/// The write was refused: the store has a later epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleEpoch {
    /// The epoch in the store.
    pub current: u64,
}

/// The row of a shard that its fence protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    pub epoch: u64,
    pub counter: u64,
}

impl Store {
    /// Refuses the writes of all earlier epochs from now on. Idempotent.
    ///
    /// # Errors
    /// As `history`. The fence may be set nonetheless.
    pub async fn fence(&self, shard: ShardId, epoch: u64) -> Result<Result<(), StaleEpoch>, StoreError> {
        let set = format!("UPDATE {}.ownership SET epoch = ? WHERE epoch <= ?", shard.schema());
        Ok(self.update_if_current(shard, set, epoch).await?.map(|_| ()))
    }

    /// Increments the shard's counter, unless the store has a later epoch. Returns the new value.
    ///
    /// # Errors
    /// As `history`. It may have been counted nonetheless.
    pub async fn count(&self, shard: ShardId, epoch: u64) -> Result<Result<u64, StaleEpoch>, StoreError> {
        let schema = shard.schema();
        let set =
            format!("UPDATE {schema}.ownership SET epoch = ?, counter = LAST_INSERT_ID(counter + 1) WHERE epoch <= ?");
        self.update_if_current(shard, set, epoch).await
    }

    /// # Errors
    /// As `history`.
    pub async fn ownership(&self, shard: ShardId) -> Result<Ownership, StoreError> {
        let mut pooled = self.checkout(shard, None).await?;
        let timeout = pooled.command_timeout();
        loop {
            let result = read_ownership(pooled.connection().await?, shard, timeout).await;
            if let Some(ownership) = pooled.read(result)? {
                return Ok(ownership);
            }
        }
    }

    /// Runs an UPDATE of the shard's row, which has two parameters for the epoch. Returns the last insert id.
    async fn update_if_current(
        &self,
        shard: ShardId,
        update: String,
        epoch: u64,
    ) -> Result<Result<u64, StaleEpoch>, StoreError> {
        let mut pooled = self.checkout(shard, None).await?;
        detached(async move {
            let timeout = pooled.command_timeout();
            let connection = pooled.connection().await?;
            let result = async {
                let update = sqlx::query(AssertSqlSafe(update)).bind(epoch).bind(epoch);
                let done = timeout.run(update.execute(&mut *connection)).await?;
                // Rows that match, not rows that change: sqlx requests this of the server.
                if done.rows_affected() == 1 {
                    return Ok(Ok(done.last_insert_id()));
                }
                Ok(Err(StaleEpoch { current: read_ownership(connection, shard, timeout).await?.epoch }))
            };
            let result = result.await;
            pooled.write(result)
        })
        .await
    }
}

async fn read_ownership(
    connection: &mut MySqlConnection,
    shard: ShardId,
    timeout: CommandTimeout,
) -> Result<Ownership, sqlx::Error> {
    let sql = format!("SELECT epoch, counter FROM {}.ownership", shard.schema());
    let row = timeout.run(sqlx::query(AssertSqlSafe(sql)).fetch_one(connection)).await?;
    Ok(Ownership { epoch: row.try_get(0)?, counter: row.try_get(1)? })
}
