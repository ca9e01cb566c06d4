//! The fence of a partition: once it is up for an epoch, the store refuses the writes of every earlier one, whoever makes
//! them and however long they were under way. Each is one UPDATE, so that nothing can come between looking and writing.

use contract::ShardId;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use crate::{
    limit::Limit,
    mysql::{Store, detached},
    pool::StoreError,
};

/// The store knows a later epoch than the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overruled {
    pub by_epoch: u64,
}

/// What the fence guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    pub epoch: u64,
    pub counter: u64,
}

impl Store {
    /// Shuts out all epochs before this one; done again it changes nothing.
    ///
    /// # Errors
    /// As `history`. The fence may be up nonetheless.
    pub async fn fence(&self, shard: ShardId, epoch: u64) -> Result<Result<(), Overruled>, StoreError> {
        let set = format!("UPDATE {}.ownership SET epoch = ? WHERE epoch <= ?", shard.schema());
        Ok(self.guarded(shard, set, epoch).await?.map(|_| ()))
    }

    /// Adds one to the shard's counter, if no later epoch is known; answers what it is then.
    ///
    /// # Errors
    /// As `history`. It may have been counted nonetheless.
    pub async fn count(&self, shard: ShardId, epoch: u64) -> Result<Result<u64, Overruled>, StoreError> {
        let schema = shard.schema();
        let set =
            format!("UPDATE {schema}.ownership SET epoch = ?, counter = LAST_INSERT_ID(counter + 1) WHERE epoch <= ?");
        self.guarded(shard, set, epoch).await
    }

    /// # Errors
    /// As `history`.
    pub async fn ownership(&self, shard: ShardId) -> Result<Ownership, StoreError> {
        let mut lease = self.checkout(shard, None).await?;
        let limit = lease.limit();
        loop {
            let result = look(lease.connection().await?, shard, limit).await;
            if let Some(ownership) = lease.read(result)? {
                return Ok(ownership);
            }
        }
    }

    /// An UPDATE of the one row with the epoch twice in it; answers the last insert id.
    async fn guarded(&self, shard: ShardId, update: String, epoch: u64) -> Result<Result<u64, Overruled>, StoreError> {
        let mut lease = self.checkout(shard, None).await?;
        detached(async move {
            let limit = lease.limit();
            let connection = lease.connection().await?;
            let result = async {
                let update = sqlx::query(AssertSqlSafe(update)).bind(epoch).bind(epoch);
                let done = limit.of(update.execute(&mut *connection)).await?;
                // Rows found, not rows changed: sqlx asks the server for that.
                if done.rows_affected() == 1 {
                    return Ok(Ok(done.last_insert_id()));
                }
                Ok(Err(Overruled { by_epoch: look(connection, shard, limit).await?.epoch }))
            };
            let result = result.await;
            lease.write(result)
        })
        .await
    }
}

async fn look(connection: &mut MySqlConnection, shard: ShardId, limit: Limit) -> Result<Ownership, sqlx::Error> {
    let sql = format!("SELECT epoch, counter FROM {}.ownership", shard.schema());
    let row = limit.of(sqlx::query(AssertSqlSafe(sql)).fetch_one(connection)).await?;
    Ok(Ownership { epoch: row.try_get(0)?, counter: row.try_get(1)? })
}
