//! The 16 shards: users and their behaviour log.

use std::{sync::Arc, time::Duration};

use contract::{SHARDS, ShardId, UserId, shard_of};
use futures::TryStreamExt;
use prometheus::IntCounter;
use runtime::telemetry::Span;
use sqlx::{AssertSqlSafe, MySqlConnection, Row, mysql::MySqlRow};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    command_timeout::BETWEEN_ROWS,
    config::{Instance, StoreConfig},
    error::StoreError,
    metrics::{ShardMetrics, StoreMetrics},
    pool::{PendingCheckout, Pool, PooledConnection},
    spans,
    sql::id_at,
    turn::Turn,
};

/// The shards and the catalogue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    config: StoreConfig,
    pools: Vec<Pool>,
    /// Connections that only fences use, one per shard of the instance: requests that occupy all others delay no fence, and no shard delays
    /// the fence of another one. Opened when they are needed.
    fence_pools: Vec<Pool>,
    pub(crate) catalogue: Pool,
    /// The index in `pools` for each shard.
    instance_of: [usize; SHARDS as usize],
    shard_metrics: Vec<ShardMetrics>,
}

impl Store {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn new(config: StoreConfig, metrics: &StoreMetrics) -> Result<Self, StoreError> {
        let mut problems = Vec::new();
        config.validate(&mut problems);
        let pool = |config: &StoreConfig, address: &str, name: &str| {
            Pool::new(config, address, metrics.pool(name, config.pool_size))
        };
        let fence_pool = |instance: &Instance, name: &str| {
            let connections = instance.shards.len();
            let of_fences = StoreConfig { pool_size: connections as u32, max_waiting: connections, ..config.clone() };
            Pool::new(&of_fences, &instance.address, metrics.pool(name, config.pool_size))
        };
        // Loading a model may take any time, depending on its size.
        let without_timeout = StoreConfig { statement_timeout_ms: 0, ..config.clone() };
        let names: Vec<String> = (0..config.instances.len()).map(|n| format!("mysql-{n:02}")).collect();
        let instances = || config.instances.iter().zip(&names);
        let pools: Option<Vec<Pool>> = instances().map(|(at, name)| pool(&config, &at.address, name)).collect();
        let fence_pools: Option<Vec<Pool>> = instances().map(|(at, name)| fence_pool(at, name)).collect();
        let catalogue = pool(&without_timeout, &config.catalogue, "catalogue");
        let (Some(pools), Some(fence_pools), Some(catalogue), true) =
            (pools, fence_pools, catalogue, problems.is_empty())
        else {
            return Err(StoreError::Invalid(sqlx::Error::Configuration(problems.join("; ").into())));
        };
        let mut instance_of = [0; SHARDS as usize];
        for (i, instance) in config.instances.iter().enumerate() {
            for &shard in &instance.shards {
                instance_of[usize::from(shard)] = i;
            }
        }
        let shard_metrics =
            ShardId::all().map(|shard| metrics.shard(shard, &names[instance_of[shard.index()]])).collect();
        Ok(Self(Arc::new(Inner { config, pools, fence_pools, catalogue, instance_of, shard_metrics })))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// A connection to this shard's server; see `Pool::checkout`.
    pub(crate) async fn checkout(&self, shard: ShardId, turn: Turn) -> Result<PooledConnection, StoreError> {
        let _pending = PendingCheckout::new(&self.0.shard_metrics[shard.index()]);
        self.pool(shard).checkout(turn).await
    }

    pub(crate) async fn traced_checkout(
        &self,
        shard: ShardId,
        turn: Turn,
        span: &Span,
    ) -> Result<PooledConnection, StoreError> {
        let waiting = spans::pool_wait(span, shard, &self.pool(shard).address);
        spans::record_error(&waiting, self.checkout(shard, turn).await)
    }

    /// A connection to this shard's server that only fences use.
    pub(crate) async fn checkout_for_fence(
        &self,
        shard: ShardId,
        deadline: Instant,
    ) -> Result<PooledConnection, StoreError> {
        self.0.fence_pools[self.instance_of(shard)].checkout(Turn::critical(deadline)).await
    }

    /// Number of the shard's server in `StoreConfig::instances`.
    pub fn instance_of(&self, shard: ShardId) -> usize {
        self.0.instance_of[shard.index()]
    }

    pub(crate) fn pool(&self, shard: ShardId) -> &Pool {
        &self.0.pools[self.instance_of(shard)]
    }

    /// Opens this number of connections to each instance.
    ///
    /// # Errors
    /// A server did not answer within `limit`.
    pub async fn open(&self, connections: u32, limit: Duration) -> Result<(), StoreError> {
        let count = connections.min(self.0.config.pool_size);
        futures::future::try_join_all(self.0.pools.iter().map(|pool| pool.fill(count, limit))).await.map(drop)
    }

    /// Calls `each` with every user of the shard, in any order. A retry after a broken connection starts again, so that `each` may get a user
    /// twice.
    ///
    /// # Errors
    /// As `history`.
    pub async fn each_user(&self, shard: ShardId, mut each: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let mut pooled = self.checkout(shard, Turn::default()).await?;
        let sql: Arc<str> = format!("{}user_id FROM {}.users", pooled.unlimited_select(), shard.schema()).into();
        loop {
            let connection = pooled.connection().await?;
            let result = each_user(connection, &sql, &mut each).await;
            if pooled.read(result)?.is_some() {
                return Ok(());
            }
        }
    }

    /// The users of the shard with the most events, most active first.
    ///
    /// # Errors
    /// As `history`.
    pub async fn most_active(&self, shard: ShardId, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let mut pooled = self.checkout(shard, Turn::BATCH).await?;
        let timeout = pooled.command_timeout();
        // Ties are ordered by id, so that a resumed warm-up sees the same order. The index ends with the id.
        let sql: Arc<str> =
            format!("SELECT user_id FROM {}.users ORDER BY events DESC, user_id DESC LIMIT ?", shard.schema()).into();
        loop {
            let query =
                sqlx::query(AssertSqlSafe(Arc::clone(&sql))).bind(limit).try_map(|row: MySqlRow| id_at(&row, 0));
            let result = timeout.run(query.fetch_all(pooled.connection().await?)).await;
            if let Some(users) = pooled.read(result)? {
                return Ok(users);
            }
        }
    }

    /// Creates the user unless it exists. True: it is new. The wait and the query are child spans of `span`, as in `history`.
    ///
    /// # Errors
    /// As `history`. The user may have been created nonetheless; creating it again is harmless.
    pub async fn create_user(&self, user_id: &UserId, now_ms: i64, span: &Span) -> Result<bool, StoreError> {
        let shard = shard_of(user_id.as_str());
        let sql = format!("INSERT IGNORE INTO {}.users (user_id, created_at_ms) VALUES (?, ?)", shard.schema());
        let mut pooled = self.traced_checkout(shard, Turn::default(), span).await?;
        let query = spans::query(span, "INSERT users", shard, &self.pool(shard).address);
        let user_id = user_id.clone();
        detached(async move {
            let insert = sqlx::query(AssertSqlSafe(sql)).bind(user_id.as_str().as_bytes()).bind(now_ms);
            let inserted = async {
                let timeout = pooled.command_timeout();
                let result = timeout.run(insert.execute(pooled.connection().await?)).await;
                pooled.write(result)
            };
            Ok(spans::record_error(&query, inserted.await)?.rows_affected() == 1)
        })
        .await
    }
}

/// Runs the work to completion even if the caller is cancelled: a cancelled query costs its connection.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.map_err(|_panicked| StoreError::Invalid(sqlx::Error::WorkerCrashed))?
}

/// As `detached`, of a read. `abandoned` counts the reads that ended when their caller had left: their clients had gone away, or they had
/// exceeded their deadlines.
pub(crate) async fn detached_read<T: Send + 'static>(
    abandoned: IntCounter,
    read: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let (result, caller) = oneshot::channel();
    tokio::spawn(async move {
        if result.send(read.await).is_err() {
            abandoned.inc();
        }
    });
    caller.await.map_err(|_panicked| StoreError::Invalid(sqlx::Error::WorkerCrashed))?
}

async fn each_user(
    connection: &mut MySqlConnection,
    sql: &Arc<str>,
    each: &mut impl FnMut(&[u8]),
) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query(AssertSqlSafe(Arc::clone(sql))).fetch(connection);
    while let Some(row) = BETWEEN_ROWS.run(rows.try_next()).await? {
        each(row.try_get_unchecked(0)?);
    }
    Ok(())
}
