//! Prepared features: one row per user, which the worker writes with the events that it folded (`ingest.rs`).

use std::{collections::HashMap, fmt::Write, sync::Arc};

use contract::{ShardId, UserId, shard_of};
use runtime::telemetry::Span;
use sqlx::{AssertSqlSafe, Row, mysql::MySqlRow};

use crate::{
    error::StoreError,
    history::{LoggedEvent, select_within},
    mysql::Store,
    sql::{decode_error, hex_list, id_at, push_hex},
    turn::Turn,
};

/// The features of a user, as the worker encoded them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFeatures {
    /// Arrival number of the last event that was folded.
    pub arrival: u64,
    pub bytes: Vec<u8>,
}

impl Store {
    /// The user's features; `None` for a user without events from Kafka. One MySQL command on an open connection. Deadline, cancellation
    /// and spans are as in `history`.
    ///
    /// # Errors
    /// As `history`.
    pub async fn features(
        &self,
        user_id: &UserId,
        turn: impl Into<Turn>,
        span: &Span,
    ) -> Result<Option<StoredFeatures>, StoreError> {
        let shard = shard_of(user_id.as_str());
        let sql = |timeout| {
            let mut sql = select_within(timeout);
            // One column, as in `history`.
            let _ = write!(sql, "CONCAT(arrival,' ',features) FROM {}.features WHERE user_id = x'", shard.schema());
            push_hex(&mut sql, user_id.as_str());
            sql.push('\'');
            sql
        };
        let rows = self.one_command(shard, turn.into(), span, "SELECT features", sql, joined_features).await?;
        Ok(rows.into_iter().next())
    }

    /// Features of many users of one shard, in one command. Users without features are left out.
    ///
    /// # Errors
    /// As `history`.
    pub async fn features_of(
        &self,
        shard: ShardId,
        user_ids: &[UserId],
        turn: Turn,
    ) -> Result<HashMap<UserId, StoredFeatures>, StoreError> {
        if user_ids.is_empty() {
            return Ok(HashMap::new());
        }
        let users = hex_list(user_ids.iter());
        let sql =
            format!("SELECT user_id, arrival, features FROM {}.features WHERE user_id IN {users}", shard.schema());
        self.features_rows(shard, sql, turn).await
    }

    /// Features of the users whose events have this arrival number or a later one.
    ///
    /// # Errors
    /// As `history`.
    pub async fn recent_features(
        &self,
        shard: ShardId,
        since_arrival: u64,
    ) -> Result<HashMap<UserId, StoredFeatures>, StoreError> {
        let schema = shard.schema();
        let sql = format!(
            "SELECT features.user_id, features.arrival, features FROM {schema}.features JOIN \
             (SELECT DISTINCT user_id FROM {schema}.behaviour WHERE arrival >= {since_arrival}) AS recent USING (user_id)"
        );
        self.features_rows(shard, sql, Turn::default()).await
    }

    async fn features_rows(
        &self,
        shard: ShardId,
        sql: String,
        turn: Turn,
    ) -> Result<HashMap<UserId, StoredFeatures>, StoreError> {
        let sql: Arc<str> = sql.into();
        let mut pooled = self.checkout(shard, turn).await?;
        let timeout = pooled.command_timeout();
        loop {
            let query = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&sql)));
            let rows = timeout.run(query.fetch_all(pooled.connection().await?)).await;
            let result = rows.and_then(|rows| rows.iter().map(features_row).collect());
            if let Some(features) = pooled.read(result)? {
                return Ok(features);
            }
        }
    }

    /// What to fold first for users without features, such as users with imported events: their newest 1000 events, oldest first. Users
    /// without events are left out.
    ///
    /// # Errors
    /// As `history`.
    pub async fn whole_histories(
        &self,
        shard: ShardId,
        user_ids: &[UserId],
    ) -> Result<HashMap<UserId, Vec<LoggedEvent>>, StoreError> {
        let mut histories = self.histories(shard, user_ids, Turn::default()).await?;
        histories.iter_mut().for_each(|(_, events)| events.reverse());
        Ok(histories.into_iter().collect())
    }
}

fn features_row(row: &MySqlRow) -> Result<(UserId, StoredFeatures), sqlx::Error> {
    Ok((id_at(row, 0)?, StoredFeatures { arrival: row.try_get(1)?, bytes: row.try_get_unchecked(2)? }))
}

/// `arrival features`
fn joined_features(row: &MySqlRow) -> Result<StoredFeatures, sqlx::Error> {
    let joined: &[u8] = row.try_get_unchecked(0)?;
    let space = joined.iter().position(|byte| *byte == b' ');
    let parts = space.map(|at| (&joined[..at], &joined[at + 1..]));
    let features = parts.and_then(|(arrival, bytes)| {
        let arrival = str::from_utf8(arrival).ok()?.parse().ok()?;
        Some(StoredFeatures { arrival, bytes: bytes.to_owned() })
    });
    features.ok_or_else(|| decode_error("not features: no arrival number".into()))
}
