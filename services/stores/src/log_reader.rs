//! Reads a shard's log in order of arrival.

use std::sync::Arc;

use contract::{Event, ShardId};
use sqlx::{AssertSqlSafe, Executor, Row, mysql::MySqlRow};

use crate::{
    error::StoreError,
    history::{JOINED_EVENT, LoggedEvent, joined_event},
    ingest::ArrivedEvent,
    mysql::Store,
    sql::id_at,
    turn::Turn,
};

impl Store {
    /// The shard's events with higher arrival numbers than `after`, in ascending order, at most `limit`. Numbers may be left out. No later read
    /// finds a number below one that was read: a reader goes on after the last one.
    ///
    /// # Errors
    /// As `history`.
    pub async fn log_after(&self, shard: ShardId, after: u64, limit: usize) -> Result<Vec<ArrivedEvent>, StoreError> {
        // Only numbers below the end as an earlier statement saw it: MariaDB's snapshot is not taken at one moment, and could show a row
        // without another one that was committed before it. Without the hint a server may prefer to scan and sort the whole table, because
        // the index lacks columns.
        let schema = shard.schema();
        let sql: Arc<str> = format!(
            "SELECT arrival_base + next_offset INTO @log_end FROM {schema}.ownership; \
             SELECT user_id, arrival, {JOINED_EVENT} FROM {schema}.behaviour FORCE INDEX (by_arrival) \
             WHERE arrival > {after} AND arrival < @log_end ORDER BY arrival LIMIT {limit}"
        )
        .into();
        let mut pooled = self.checkout(shard, Turn::default()).await?;
        let timeout = pooled.command_timeout();
        loop {
            let query = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&sql)));
            let rows = timeout.run(pooled.connection().await?.fetch_all(query)).await;
            let result = rows.and_then(|rows| rows.iter().map(arrived_event).collect());
            if let Some(events) = pooled.read(result)? {
                return Ok(events);
            }
        }
    }
}

fn arrived_event(row: &MySqlRow) -> Result<ArrivedEvent, sqlx::Error> {
    let LoggedEvent { item_id, kind, at_ms, weight } = joined_event(row, 2)?;
    let event = Event { user_id: id_at(row, 0)?, item_id, kind, at_ms, weight };
    Ok(ArrivedEvent { event, arrival: row.try_get(1)? })
}
