//! Import and export of whole data sets.

use std::fmt::Write;

use contract::{EventKind, ItemId, ShardId, UserId, shard_of};
use futures::{StreamExt, TryStreamExt};
use sqlx::{AssertSqlSafe, Executor, MySqlConnection, Row};

use crate::{
    command_timeout::{BETWEEN_ROWS, CommandTimeout},
    error::StoreError,
    mysql::Store,
    numbered::{Arrival, ImportEvent, insert_rows, take_numbers},
    sql::{forget_features, id_at},
    transaction::{begin, commit, run_packet},
    turn::Turn,
};

/// The result of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Events that were new in the log.
    pub added: u64,
    /// Events that were in the log already.
    pub present: u64,
}

/// Rows per statement, to which the server's time limit applies.
const ROWS_PER_INSERT: usize = 2_000;
/// Rows per transaction, which is one packet: enough to make the COMMIT negligible, below half of `max_allowed_packet` with the longest ids,
/// and soon over for the shard's other writers, which wait meanwhile.
const ROWS_PER_COMMIT: usize = 10_000;
/// Shards that are written concurrently.
const WRITERS: usize = 4;

impl Store {
    /// Adds events and their users. Within a shard the events get arrival numbers in their order. Importing the same data again adds nothing.
    /// `progress` gets the number of rows sent so far.
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
        rows: Vec<ImportEvent<'_>>,
        report: &impl Fn(usize),
    ) -> Result<Imported, StoreError> {
        let schema = shard.schema();
        let mut added = 0;
        for batch in rows.chunks(ROWS_PER_COMMIT) {
            let sql = import_sql(&schema, batch);
            let mut pooled = self.checkout(shard, Turn::default()).await?;
            let timeout = pooled.command_timeout().times((ROWS_PER_COMMIT / ROWS_PER_INSERT) as u32);
            let result = import_batch(pooled.connection().await?, sql, timeout).await;
            added += pooled.write(result)?;
            report(batch.len());
        }
        if !rows.is_empty() {
            // The users are derived from the log, so that the statement is the same for a first and a repeated import.
            let users = format!(
                "INSERT INTO {schema}.users (user_id, created_at_ms, events) SELECT user_id, MIN(at_ms), COUNT(*) FROM {schema}.behaviour GROUP BY user_id ON DUPLICATE KEY UPDATE events = VALUES(events)"
            );
            let mut pooled = self.checkout(shard, Turn::default()).await?;
            let timeout = pooled.command_timeout();
            let result = timeout.run(pooled.connection().await?.execute(AssertSqlSafe(users))).await;
            pooled.write(result)?;
        }
        Ok(Imported { added, present: rows.len() as u64 - added })
    }

    /// Calls `each` with every event of the shard, in order of arrival.
    ///
    /// # Errors
    /// A server failed.
    pub async fn each_event(
        &self,
        shard: ShardId,
        mut each: impl FnMut(UserId, ItemId, EventKind, i64, f32),
    ) -> Result<(), StoreError> {
        // Without the hint a server may prefer to sort the whole table, because the index lacks columns.
        let sql = format!(
            "SELECT user_id, item_id, kind, at_ms, weight FROM {}.behaviour FORCE INDEX (by_arrival) ORDER BY arrival",
            shard.schema()
        );
        let mut pooled = self.checkout(shard, Turn::default()).await?;
        let result = each_event(pooled.connection().await?, sql, &mut each).await;
        // Not `read`: a retry would report events twice.
        pooled.write(result)
    }
}

/// Returns the number of rows that were new.
async fn import_batch(
    connection: &mut MySqlConnection,
    sql: String,
    timeout: CommandTimeout,
) -> Result<u64, sqlx::Error> {
    let rows = run_packet(connection, sql, timeout).await?;
    rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)
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

/// A packet that returns the number of rows that were new. Not a prepared statement, which would bind thousands of parameters.
fn import_sql(schema: &str, batch: &[ImportEvent<'_>]) -> String {
    let mut rows: Vec<(usize, &ImportEvent<'_>)> = batch.iter().enumerate().collect();
    // Of two rows with the same key, the first one remains.
    rows.sort_by(|(_, a), (_, b)| a.row_key().cmp(&b.row_key()));
    let users = rows.chunk_by(|(_, a), (_, b)| a.user_id == b.user_id).map(|of_user| of_user[0].1.user_id);
    let forget = forget_features(schema, users);
    let mut sql = String::with_capacity(1_000 + 120 * rows.len() + forget.len());
    begin(&mut sql);
    take_numbers(&mut sql, schema, rows.len());
    sql.push_str("SET @added = 0; ");
    for rows in rows.chunks(ROWS_PER_INSERT) {
        insert_rows(&mut sql, schema, rows.iter().map(|&(n, row)| (*row, Arrival::Taken(n))));
        sql.push_str("SET @added = @added + ROW_COUNT(); ");
    }
    let _ = write!(sql, "{forget} AND @added > 0; ");
    commit(&mut sql, "SELECT CAST(@added AS UNSIGNED); ");
    sql
}
