//! Loading and reading back whole data sets.

use std::fmt::Write;

use contract::{EventKind, ItemId, ShardId, UserId, shard_of};
use futures::{StreamExt, TryStreamExt};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row as _};

use crate::{
    limit::{BETWEEN_ROWS, Limit},
    mysql::{Store, id_at},
    pool::StoreError,
    transaction::finish,
};

/// What an import changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Events that the log did not hold before.
    pub added: u64,
    /// Events that it held already.
    pub present: u64,
}

/// One event to be loaded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row<'a> {
    pub user_id: &'a UserId,
    pub item_id: &'a ItemId,
    pub kind: EventKind,
    /// Unix milliseconds.
    pub at_ms: i64,
    pub weight: f32,
}

/// Rows of one INSERT: large enough that the round trip does not count, well below `max_allowed_packet`.
const ROWS_PER_INSERT: usize = 2_000;
/// INSERTs of one transaction.
const INSERTS_PER_COMMIT: usize = 20;
/// Shards written at the same time.
const WRITERS: usize = 4;

impl Store {
    /// Adds these events and their users. Loading the same data again adds nothing. `progress` gets the number of rows
    /// sent so far.
    ///
    /// # Errors
    /// A server failed; what was written stays, and loading again completes it.
    pub async fn import(&self, rows: Vec<Row<'_>>, progress: impl Fn(usize)) -> Result<Imported, StoreError> {
        let mut by_shard: Vec<Vec<Row<'_>>> = ShardId::all().map(|_| Vec::new()).collect();
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
        mut rows: Vec<Row<'_>>,
        report: &impl Fn(usize),
    ) -> Result<Imported, StoreError> {
        // In the order of the clustered key every insert appends.
        rows.sort_unstable_by(|a, b| {
            (a.user_id, a.at_ms, a.item_id, a.kind).cmp(&(b.user_id, b.at_ms, b.item_id, b.kind))
        });
        let schema = shard.schema();
        let mut added = 0;
        for batch in rows.chunks(ROWS_PER_INSERT * INSERTS_PER_COMMIT) {
            let mut lease = self.checkout(shard, None).await?;
            let limit = lease.limit();
            let result = insert_batch(lease.connection().await?, &schema, batch, report, limit).await;
            added += lease.write(result)?;
        }
        if !rows.is_empty() {
            // Users follow from the log: the same statement whether this is the first import or a repeated one.
            let users = format!(
                "INSERT INTO {schema}.users (user_id, created_at_ms, events) SELECT user_id, MIN(at_ms), COUNT(*) FROM {schema}.behaviour GROUP BY user_id ON DUPLICATE KEY UPDATE events = VALUES(events)"
            );
            let mut lease = self.checkout(shard, None).await?;
            let limit = lease.limit();
            let result = limit.of(lease.connection().await?.execute(AssertSqlSafe(users))).await;
            lease.write(result)?;
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
        let mut lease = self.checkout(shard, None).await?;
        let result = each_event(lease.connection().await?, sql, &mut each).await;
        // Not `read`: a repeat would hand the same events out twice.
        lease.write(result)
    }
}

async fn insert_batch(
    connection: &mut MySqlConnection,
    schema: &str,
    batch: &[Row<'_>],
    report: &impl Fn(usize),
    limit: Limit,
) -> Result<u64, sqlx::Error> {
    let mut transaction = limit.of(connection.begin()).await?;
    let added = insert_rows(&mut transaction, schema, batch, report, limit).await;
    finish(transaction, added, limit).await
}

async fn insert_rows(
    connection: &mut MySqlConnection,
    schema: &str,
    batch: &[Row<'_>],
    report: &impl Fn(usize),
    limit: Limit,
) -> Result<u64, sqlx::Error> {
    let mut added = 0;
    for chunk in batch.chunks(ROWS_PER_INSERT) {
        let insert = sqlx::raw_sql(AssertSqlSafe(insert_sql(schema, chunk)));
        added += limit.of(connection.execute(insert)).await?.rows_affected();
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
    while let Some(row) = BETWEEN_ROWS.of(rows.try_next()).await? {
        let kind = EventKind::from_code(row.try_get_unchecked(2)?)
            .ok_or_else(|| sqlx::Error::Decode("unknown event kind".into()))?;
        each(id_at(&row, 0)?, id_at(&row, 1)?, kind, row.try_get_unchecked(3)?, row.try_get_unchecked(4)?);
    }
    Ok(())
}

/// Text protocol with ids as hexadecimal literals: nothing to escape, and no 10,000 parameters to bind.
fn insert_sql(schema: &str, rows: &[Row<'_>]) -> String {
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

pub(crate) fn push_hex(sql: &mut String, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        sql.push(char::from(DIGITS[usize::from(byte >> 4)]));
        sql.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}
