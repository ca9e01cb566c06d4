//! Import and export of whole data sets.

use std::fmt::Write;

use contract::{EventKind, ItemId, ShardId, UserId, shard_of};
use futures::{StreamExt, TryStreamExt};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row};

use crate::{
    command_timeout::{BETWEEN_ROWS, CommandTimeout},
    error::StoreError,
    mysql::Store,
    sql::{forget_features, id_at, push_hex},
    transaction::finish,
};

/// The result of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Events that were new in the log.
    pub added: u64,
    /// Events that were in the log already.
    pub present: u64,
}

/// An event to be imported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImportEvent<'a> {
    pub user_id: &'a UserId,
    pub item_id: &'a ItemId,
    pub kind: EventKind,
    /// Unix milliseconds.
    pub at_ms: i64,
    pub weight: f32,
}

/// Rows per INSERT: enough to make the round trip negligible, and well below `max_allowed_packet`.
const ROWS_PER_INSERT: usize = 2_000;
/// INSERTs per transaction.
const INSERTS_PER_COMMIT: usize = 20;
/// Shards that are written concurrently.
const WRITERS: usize = 4;

impl Store {
    /// Adds events and their users. Importing the same data again adds nothing. `progress` gets the number of rows sent so far.
    ///
    /// # Errors
    /// A server failed. Written rows stay, and a repeated import completes them.
    pub async fn import(&self, rows: Vec<ImportEvent<'_>>, progress: impl Fn(usize)) -> Result<Imported, StoreError> {
        let mut by_shard: Vec<Vec<ImportEvent<'_>>> = ShardId::all().map(|_| Vec::new()).collect();
        for row in rows {
            by_shard[shard_of(row.user_id.as_str()).index()].push(row);
        }
        let sent = std::cell::Cell::new(0);
        let report = |count: usize| {
            sent.set(sent.get() + count);
            progress(sent.get());
        };
        let shards = ShardId::all().zip(by_shard).map(|(shard, rows)| self.import_shard(shard, rows, &report));
        futures::stream::iter(shards)
            .buffer_unordered(WRITERS)
            .try_fold(Imported::default(), async |sum, one| {
                Ok(Imported { added: sum.added + one.added, present: sum.present + one.present })
            })
            .await
    }

    async fn import_shard(
        &self,
        shard: ShardId,
        mut rows: Vec<ImportEvent<'_>>,
        report: &impl Fn(usize),
    ) -> Result<Imported, StoreError> {
        // In the order of the primary key every insert appends.
        rows.sort_unstable_by(|a, b| {
            (a.user_id, a.at_ms, a.item_id, a.kind).cmp(&(b.user_id, b.at_ms, b.item_id, b.kind))
        });
        let schema = shard.schema();
        let mut added = 0;
        for batch in rows.chunks(ROWS_PER_INSERT * INSERTS_PER_COMMIT) {
            let mut pooled = self.checkout(shard, None).await?;
            let timeout = pooled.command_timeout();
            let result = insert_batch(pooled.connection().await?, &schema, batch, report, timeout).await;
            added += pooled.write(result)?;
        }
        if !rows.is_empty() {
            // The users are derived from the log, so that the statement is the same for a first and a repeated import.
            let users = format!(
                "INSERT INTO {schema}.users (user_id, created_at_ms, events) SELECT user_id, MIN(at_ms), COUNT(*) FROM {schema}.behaviour GROUP BY user_id ON DUPLICATE KEY UPDATE events = VALUES(events)"
            );
            let mut pooled = self.checkout(shard, None).await?;
            let timeout = pooled.command_timeout();
            let result = timeout.run(pooled.connection().await?.execute(AssertSqlSafe(users))).await;
            pooled.write(result)?;
        }
        Ok(Imported { added, present: rows.len() as u64 - added })
    }

    /// Calls `each` with every event of the shard, ordered by user and time.
    ///
    /// # Errors
    /// A server failed.
    pub async fn each_event(
        &self,
        shard: ShardId,
        mut each: impl FnMut(UserId, ItemId, EventKind, i64, f32),
    ) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT user_id, item_id, kind, at_ms, weight FROM {}.behaviour ORDER BY user_id, at_ms, item_id, kind",
            shard.schema()
        );
        let mut pooled = self.checkout(shard, None).await?;
        let result = each_event(pooled.connection().await?, sql, &mut each).await;
        // Not `read`: a retry would report events twice.
        pooled.write(result)
    }
}

async fn insert_batch(
    connection: &mut MySqlConnection,
    schema: &str,
    batch: &[ImportEvent<'_>],
    report: &impl Fn(usize),
    timeout: CommandTimeout,
) -> Result<u64, sqlx::Error> {
    let mut transaction = timeout.run(connection.begin()).await?;
    let added = insert_rows(&mut transaction, schema, batch, report, timeout).await;
    finish(transaction, added, timeout).await
}

async fn insert_rows(
    connection: &mut MySqlConnection,
    schema: &str,
    batch: &[ImportEvent<'_>],
    report: &impl Fn(usize),
    timeout: CommandTimeout,
) -> Result<u64, sqlx::Error> {
    let mut added = 0;
    for chunk in batch.chunks(ROWS_PER_INSERT) {
        let insert = sqlx::raw_sql(AssertSqlSafe(insert_sql(schema, chunk)));
        let inserted = timeout.run(connection.execute(insert)).await?.rows_affected();
        if inserted > 0 {
            let users = chunk.chunk_by(|a, b| a.user_id == b.user_id).map(|of_user| of_user[0].user_id);
            let forget = sqlx::raw_sql(AssertSqlSafe(forget_features(schema, users)));
            timeout.run(connection.execute(forget)).await?;
        }
        added += inserted;
        report(chunk.len());
    }
    Ok(added)
}

async fn each_event(
    connection: &mut MySqlConnection,
    sql: String,
    each: &mut impl FnMut(UserId, ItemId, EventKind, i64, f32),
) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch(connection);
    while let Some(row) = BETWEEN_ROWS.run(rows.try_next()).await? {
        let kind = EventKind::from_code(row.try_get_unchecked(2)?)
            .ok_or_else(|| sqlx::Error::Decode("unknown event kind".into()))?;
        each(id_at(&row, 0)?, id_at(&row, 1)?, kind, row.try_get_unchecked(3)?, row.try_get_unchecked(4)?);
    }
    Ok(())
}

/// Text with ids as hexadecimal literals: no escaping, and no binding of 10,000 parameters.
fn insert_sql(schema: &str, rows: &[ImportEvent<'_>]) -> String {
    let mut sql = String::with_capacity(rows.len() * 90);
    let _ = write!(sql, "INSERT IGNORE INTO {schema}.behaviour (user_id, at_ms, item_id, kind, weight) VALUES ");
    for (i, row) in rows.iter().enumerate() {
        sql.push_str(if i == 0 { "(x'" } else { ",(x'" });
        push_hex(&mut sql, row.user_id.as_str());
        let _ = write!(sql, "',{},x'", row.at_ms);
        push_hex(&mut sql, row.item_id.as_str());
        let _ = write!(sql, "',{},{})", row.kind.code(), row.weight);
    }
    sql
}
