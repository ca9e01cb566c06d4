//! Fencing of partitions: after `fence` for an epoch and its owner, the store refuses all writes of earlier epochs and of other processes,
//! also those in flight. Each write is one UPDATE, so that the check and the write are atomic.

use std::time::Duration;

use contract::ShardId;
use sqlx::{AssertSqlSafe, MySqlConnection, Row, mysql::MySqlQueryResult};
use tokio::time::{Instant, timeout_at};

use crate::{
    command_timeout::CommandTimeout,
    error::{StoreError, timed_out},
    mysql::{Store, detached},
    pool::PooledConnection,
    turn::Turn,
};

/// Largest difference between an epoch in the store and the next one. Epochs are counted from 1, so a larger jump is an error or a forgery.
/// Without the limit, epoch `u64::MAX` would block the shard for good.
pub const MAX_EPOCH_JUMP: u64 = 1 << 32;

/// Why the store refused a fence or a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the store has the later epoch {current}")]
    LaterEpoch { current: u64 },
    #[error("process {owner:016x} has set the fence of the same epoch {epoch}")]
    OtherOwner { epoch: u64, owner: u64 },
    #[error("the epoch is more than {MAX_EPOCH_JUMP} above the store's epoch {current}")]
    EpochJump { current: u64 },
}

impl Refused {
    /// The epoch that the next table must exceed. `None`: the refused epoch was not plausible.
    pub fn overruled_by(self) -> Option<u64> {
        match self {
            Self::LaterEpoch { current } => Some(current),
            Self::OtherOwner { epoch, .. } => Some(epoch),
            Self::EpochJump { .. } => None,
        }
    }
}

/// The row of a shard that its fence protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    pub epoch: u64,
    /// Process that set the fence, as a random number; 0: none did.
    pub owner: u64,
    pub counter: u64,
}

impl Store {
    /// Refuses the writes of all earlier epochs and of other processes from now on. Idempotent. `owner`: random number of the process, not 0.
    ///
    /// It ends after `limit`, which includes the wait for a connection. The connection is one of the shard's server that only fences use.
    ///
    /// # Errors
    /// As `history`. The fence may be set nonetheless.
    pub async fn fence(
        &self,
        shard: ShardId,
        epoch: u64,
        owner: u64,
        limit: Duration,
    ) -> Result<Result<(), Refused>, StoreError> {
        let deadline = Instant::now() + limit;
        set_fence(deadline, self.checkout_for_fence(shard, deadline), shard, epoch, owner).await
    }

    /// Tests whether this process can write to the shard: sets the fence again, on a connection for requests.
    ///
    /// # Errors
    /// As `fence`.
    pub async fn verify(
        &self,
        shard: ShardId,
        epoch: u64,
        owner: u64,
        limit: Duration,
    ) -> Result<Result<(), Refused>, StoreError> {
        let deadline = Instant::now() + limit;
        set_fence(deadline, self.checkout(shard, Turn::critical(deadline)), shard, epoch, owner).await
    }

    /// Increments the shard's counter and returns the new value. Refused as a fence of this epoch and owner would be.
    ///
    /// # Errors
    /// As `history`. It may have been counted nonetheless.
    pub async fn count(&self, shard: ShardId, epoch: u64, owner: u64) -> Result<Result<u64, Refused>, StoreError> {
        let mut pooled = self.checkout(shard, Turn::default()).await?;
        detached(async move {
            let counted = update(&mut pooled, shard, ", counter = LAST_INSERT_ID(counter + 1)", epoch, owner).await?;
            Ok(counted.map(|done| done.last_insert_id()))
        })
        .await
    }

    /// # Errors
    /// As `history`.
    pub async fn ownership(&self, shard: ShardId) -> Result<Ownership, StoreError> {
        let mut pooled = self.checkout(shard, Turn::default()).await?;
        let timeout = pooled.command_timeout();
        loop {
            let result = read_ownership(pooled.connection().await?, shard, timeout).await;
            if let Some(ownership) = pooled.read(result)? {
                return Ok(ownership);
            }
        }
    }
}

/// Not `detached`: a cancelled fence closes its connection, so that it occupies none while the server hangs.
async fn set_fence(
    deadline: Instant,
    checkout: impl Future<Output = Result<PooledConnection, StoreError>>,
    shard: ShardId,
    epoch: u64,
    owner: u64,
) -> Result<Result<(), Refused>, StoreError> {
    let set = async { update(&mut checkout.await?, shard, "", epoch, owner).await };
    let set = timeout_at(deadline, set).await.unwrap_or_else(|_elapsed| Err(StoreError::Unavailable(timed_out())));
    Ok(set?.map(|_| ()))
}

/// Updates the shard's row, unless its epoch is later or of another owner. `and_set`: further assignments.
async fn update(
    pooled: &mut PooledConnection,
    shard: ShardId,
    and_set: &str,
    epoch: u64,
    owner: u64,
) -> Result<Result<MySqlQueryResult, Refused>, StoreError> {
    let update = format!(
        "UPDATE {}.ownership SET epoch = ?, owner = ?{and_set} WHERE {}",
        shard.schema(),
        condition("?", "?", "?")
    );
    let timeout = pooled.command_timeout();
    let connection = pooled.connection().await?;
    let result = async {
        let update = sqlx::query(AssertSqlSafe(update)).bind(epoch).bind(owner);
        let update = update.bind(epoch.saturating_sub(MAX_EPOCH_JUMP)).bind(epoch).bind(epoch).bind(owner);
        let done = timeout.run(update.execute(&mut *connection)).await?;
        // Rows that match, not rows that change: sqlx requests this of the server.
        if done.rows_affected() == 1 {
            return Ok(Ok(done));
        }
        let current = read_ownership(connection, shard, timeout).await?;
        Ok(Err(refusal(&current, epoch, owner).unwrap_or(Refused::EpochJump { current: current.epoch })))
    };
    let result = result.await;
    pooled.write(result)
}

/// The condition under which a process may write, of the row in `ownership`: the SQL of the lowest epoch that may precede, of the epoch
/// (twice), and of the owner.
pub(crate) fn condition(lowest: &str, epoch: &str, owner: &str) -> String {
    format!("epoch >= {lowest} AND (epoch < {epoch} OR epoch = {epoch} AND owner IN (0, {owner}))")
}

/// Why this row refuses a write. `None`: it does not.
pub(crate) fn refusal(current: &Ownership, epoch: u64, owner: u64) -> Option<Refused> {
    if current.epoch > epoch {
        Some(Refused::LaterEpoch { current: current.epoch })
    } else if current.epoch == epoch && ![0, owner].contains(&current.owner) {
        Some(Refused::OtherOwner { epoch, owner: current.owner })
    } else if current.epoch < epoch.saturating_sub(MAX_EPOCH_JUMP) {
        Some(Refused::EpochJump { current: current.epoch })
    } else {
        None
    }
}

pub(crate) async fn read_ownership(
    connection: &mut MySqlConnection,
    shard: ShardId,
    timeout: CommandTimeout,
) -> Result<Ownership, sqlx::Error> {
    let sql = format!("SELECT epoch, owner, counter FROM {}.ownership", shard.schema());
    let row = timeout.run(sqlx::query(AssertSqlSafe(sql)).fetch_one(connection)).await?;
    Ok(Ownership { epoch: row.try_get(0)?, owner: row.try_get(1)?, counter: row.try_get(2)? })
}
