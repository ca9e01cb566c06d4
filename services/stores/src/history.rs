//! Reads of the behaviour log: the newest events of users.

use std::{fmt::Write, sync::Arc};

use contract::{EventKind, ItemId, ShardId, UserId, shard_of, spans::attribute};
use futures::TryStreamExt;
use runtime::telemetry::Span;
use sqlx::{AssertSqlSafe, Row, mysql::MySqlRow};
use tokio::time::timeout_at;

use crate::{
    command_timeout::GRACE,
    dialer::StatementTimeout,
    error::{StoreError, timed_out},
    mysql::{Store, detached_read},
    pool::PooledConnection,
    spans,
    sql::{decode_error, hex_list, id_at, push_hex},
    turn::Turn,
};

/// An event in a user's behaviour log.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedEvent {
    pub item_id: ItemId,
    pub kind: EventKind,
    pub at_ms: i64,
    pub weight: f32,
}

/// Newest events of a user that a read returns. They hold the 100 newest distinct items of nearly all users; older events say little about
/// current interests.
const HISTORY_LIMIT: usize = 1_000;

/// From the newest event to the oldest, as the primary key has them, read backwards.
const NEWEST_FIRST: &str = "at_ms DESC, item_id DESC, kind DESC";

/// Of all columns of an event but the user. As a double, a weight is written with all digits of the float.
pub(crate) const JOINED_EVENT: &str = "CONCAT(at_ms,' ',kind,' ',weight+0e0,' ',item_id)";

impl Store {
    /// The user's newest events, newest first, at most 1000; empty for an unknown user. One MySQL command on an open connection. Events
    /// with the same time are in descending order of item and kind.
    ///
    /// The server aborts the query at the deadline of `turn`, and 1.5 s later this function returns in any case. Dropping the future while it waits for a
    /// connection leaves the queue. Afterwards connecting and the query run to completion, so that a client that disconnects costs no
    /// connection. The wait for a connection and the query are child spans of `span`.
    ///
    /// # Errors
    /// `CheckoutTimeout`, `QueueFull`, `Down`, `StatementTimeout`, `Unavailable`.
    pub async fn history(
        &self,
        user_id: &UserId,
        turn: impl Into<Turn>,
        span: &Span,
    ) -> Result<Vec<LoggedEvent>, StoreError> {
        let shard = shard_of(user_id.as_str());
        let sql = |timeout| history_sql(shard, user_id, timeout);
        self.one_command(shard, turn.into(), span, "SELECT behaviour", sql, |row| joined_event(row, 0)).await
    }

    /// Reads rows as `history` does. `summary`: verb and table, for the span.
    pub(crate) async fn one_command<T: Send + 'static>(
        &self,
        shard: ShardId,
        turn: Turn,
        span: &Span,
        summary: &'static str,
        sql: impl FnOnce(Option<StatementTimeout>) -> String,
        decode: fn(&MySqlRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, StoreError> {
        let mut pooled = self.traced_checkout(shard, turn, span).await?;
        let sql: Arc<str> = sql(pooled.statement_timeout()).into();
        let query = spans::query(span, summary, shard, &self.pool(shard).address);
        let read = detached_read(pooled.abandoned_reads(), async move {
            let rows = spans::record_error(&query, read_rows(&mut pooled, &sql, decode).await)?;
            query.set(attribute::DB_RESPONSE_RETURNED_ROWS, rows.len());
            Ok(rows)
        });
        match turn.deadline {
            // Only an attempt to connect takes longer. It goes on, and the next request uses the connection.
            Some(deadline) => timeout_at(deadline + GRACE, read)
                .await
                .unwrap_or_else(|_elapsed| Err(StoreError::Unavailable(timed_out()))),
            None => read.await,
        }
    }

    /// Histories of many users of one shard, as from `history`. Users without events are left out. The server reads whole histories; at
    /// most 1000 events of each user are in memory.
    ///
    /// # Errors
    /// As `history`.
    pub async fn histories(
        &self,
        shard: ShardId,
        user_ids: &[UserId],
        turn: Turn,
    ) -> Result<Vec<(UserId, Vec<LoggedEvent>)>, StoreError> {
        if user_ids.is_empty() {
            return Ok(Vec::new());
        }
        // Not a prepared statement: its text depends on the number of users.
        let sql: Arc<str> = format!(
            "SELECT user_id, {JOINED_EVENT} FROM {}.behaviour WHERE user_id IN {} ORDER BY user_id DESC, {NEWEST_FIRST}",
            shard.schema(),
            hex_list(user_ids.iter())
        )
        .into();
        let mut pooled = self.checkout(shard, turn).await?;
        let timeout = pooled.command_timeout();
        loop {
            let mut rows = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&sql))).fetch(pooled.connection().await?);
            let read = async {
                let mut histories: Vec<(UserId, Vec<LoggedEvent>)> = Vec::new();
                while let Some(row) = rows.try_next().await? {
                    let user_id = id_at::<UserId>(&row, 0)?;
                    match histories.last_mut() {
                        Some((last, events)) if *last == user_id => {
                            if events.len() < HISTORY_LIMIT {
                                events.push(joined_event(&row, 1)?);
                            }
                        }
                        _ => histories.push((user_id, vec![joined_event(&row, 1)?])),
                    }
                }
                Ok(histories)
            };
            let result = timeout.run(read).await;
            drop(rows);
            if let Some(histories) = pooled.read(result)? {
                return Ok(histories);
            }
        }
    }
}

async fn read_rows<T>(
    pooled: &mut PooledConnection,
    sql: &Arc<str>,
    decode: fn(&MySqlRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, StoreError> {
    let timeout = pooled.command_timeout();
    loop {
        let query = sqlx::raw_sql(AssertSqlSafe(Arc::clone(sql)));
        let rows = timeout.run(query.fetch_all(pooled.connection().await?)).await;
        let result = rows.and_then(|rows| rows.iter().map(decode).collect());
        if let Some(rows) = pooled.read(result)? {
            return Ok(rows);
        }
    }
}

/// Not a prepared statement: 16 shards × the connections of all replicas would be thousands of statements in the server, each prepared by a
/// separate command, and rarely in the CPU's caches. One column, because the definition of each column is part of every response, and costs
/// more than the rows.
fn history_sql(shard: ShardId, user_id: &UserId, timeout: Option<StatementTimeout>) -> String {
    let mut sql = select_within(timeout);
    let _ = write!(sql, "{JOINED_EVENT} FROM {}.behaviour WHERE user_id = x'", shard.schema());
    push_hex(&mut sql, user_id.as_str());
    let _ = write!(sql, "' ORDER BY {NEWEST_FIRST} LIMIT {HISTORY_LIMIT}");
    sql
}

/// The start of a SELECT with this time limit.
pub(crate) fn select_within(timeout: Option<StatementTimeout>) -> String {
    let mut sql = String::with_capacity(300);
    let _ = match timeout {
        // In seconds.
        Some(StatementTimeout::Mariadb { ms }) => {
            write!(sql, "SET STATEMENT max_statement_time={}.{:03} FOR SELECT ", ms / 1000, ms % 1000)
        }
        Some(StatementTimeout::Mysql { ms }) => write!(sql, "SELECT /*+ MAX_EXECUTION_TIME({ms}) */ "),
        None => write!(sql, "SELECT "),
    };
    sql
}

/// `at_ms kind weight item_id`. The id is everything after the third space, and may contain spaces.
pub(crate) fn joined_event(row: &MySqlRow, column: usize) -> Result<LoggedEvent, sqlx::Error> {
    let bytes: &[u8] = row.try_get_unchecked(column)?;
    let text = std::str::from_utf8(bytes).map_err(|error| decode_error(error.to_string()))?;
    let mut fields = text.splitn(4, ' ');
    let event = (|| {
        let at_ms = fields.next()?.parse().ok()?;
        let kind = EventKind::from_code(fields.next()?.parse().ok()?)?;
        let weight = fields.next()?.parse().ok()?;
        Some(LoggedEvent { at_ms, kind, weight, item_id: fields.next()?.parse().ok()? })
    })();
    event.ok_or_else(|| decode_error(format!("not an event: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_server_has_its_syntax_for_timeouts() {
        let user = UserId::new("a'b").unwrap();
        let shard = shard_of(user.as_str());
        let sql = |timeout| history_sql(shard, &user, timeout);
        let plain = sql(None);
        assert!(plain.starts_with("SELECT CONCAT(") && plain.contains("x'612762'"), "{plain}");
        let rest = plain.strip_prefix("SELECT ").unwrap();
        assert_eq!(
            sql(Some(StatementTimeout::Mariadb { ms: 2_045 })),
            format!("SET STATEMENT max_statement_time=2.045 FOR SELECT {rest}")
        );
        assert_eq!(
            sql(Some(StatementTimeout::Mysql { ms: 2_045 })),
            format!("SELECT /*+ MAX_EXECUTION_TIME(2045) */ {rest}")
        );
    }
}
