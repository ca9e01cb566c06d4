//! Events from Kafka: each batch is one transaction with the fence of its worker and the position in the partition.
//!
//! The transaction is one packet (`transaction.rs`), so that a worker that is stopped in between holds no locks.

use std::{collections::HashSet, fmt::Write, sync::Arc};

use contract::{Event, EventKind, ItemId, ShardId, UserId};
use sqlx::{AssertSqlSafe, Executor, MySqlConnection, Row, mysql::MySqlDatabaseError};

use crate::{
    command_timeout::CommandTimeout,
    error::StoreError,
    fence::{MAX_EPOCH_JUMP, Refused, condition, read_ownership, refusal},
    mysql::{Store, detached},
    numbered::{Arrival, ImportEvent, insert_rows},
    sql::{push_hex, push_integer},
    transaction::{begin, commit, run_packet},
    turn::Turn,
};

/// The position of a shard in its partition of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventPosition {
    /// Offset of the first message that is not written.
    pub next_offset: u64,
    /// The arrival number of an event is this plus its offset.
    pub arrival_base: u64,
}

/// The primary key of an event in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey {
    pub user_id: UserId,
    pub at_ms: i64,
    pub item_id: ItemId,
    pub kind: EventKind,
}

impl EventKey {
    pub fn of(event: &Event) -> Self {
        Self { user_id: event.user_id.clone(), at_ms: event.at_ms, item_id: event.item_id.clone(), kind: event.kind }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ArrivedEvent {
    pub event: Event,
    /// > 0
    pub arrival: u64,
}

/// A user's features after a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeaturesRow {
    pub user_id: UserId,
    /// Arrival number of the last event that was folded.
    pub arrival: u64,
    /// At most 65,535.
    pub bytes: Vec<u8>,
    /// Events of the batch that are new in the log, for `users.events`.
    pub added: u32,
    /// Whether these features continue the row that the store has. If the row has been deleted since it was read, or the store has one
    /// unexpectedly, the batch is refused.
    pub continues: bool,
}

/// The messages from one offset to another, as what they change.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch {
    /// Offset of the first message, which the store must expect.
    pub from_offset: u64,
    /// Offset after the last message.
    pub next_offset: u64,
    /// As the store must expect, and as the arrival numbers of the events were made with.
    pub arrival_base: u64,
    /// Events to append to the log. One that is in the log already changes nothing.
    pub events: Vec<ArrivedEvent>,
    /// The features of all users whose events are in the batch. Unknown users are created.
    pub users: Vec<FeaturesRow>,
}

/// Why the store refused a batch. Nothing of it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchRefused {
    #[error(transparent)]
    Fence(Refused),
    /// Another process has written this batch, the position was reset, or events written without Kafka took arrival numbers.
    #[error("the store expects offset {} with arrival numbers from {}", stored.next_offset, stored.arrival_base)]
    Position { stored: EventPosition },
    /// The features of a user were deleted after they had been read: events were appended without Kafka, and the features lack them.
    #[error("features in the batch are outdated")]
    Features,
}

impl Store {
    /// # Errors
    /// As `history`.
    pub async fn event_position(&self, shard: ShardId) -> Result<EventPosition, StoreError> {
        let mut pooled = self.checkout(shard, Turn::default()).await?;
        let timeout = pooled.command_timeout();
        loop {
            let result = read_position(pooled.connection().await?, shard, timeout).await;
            if let Some(position) = pooled.read(result)? {
                return Ok(position);
            }
        }
    }

    /// Which of these events, all of this shard, the log has. One command, one look-up by primary key per event.
    ///
    /// # Errors
    /// As `history`.
    pub async fn logged(&self, shard: ShardId, candidates: &[&Event]) -> Result<HashSet<EventKey>, StoreError> {
        if candidates.is_empty() {
            return Ok(HashSet::new());
        }
        let sql: Arc<str> = logged_sql(shard, candidates).into();
        let mut pooled = self.checkout(shard, Turn::default()).await?;
        let timeout = pooled.command_timeout();
        loop {
            let query = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&sql)));
            let rows = timeout.run(query.fetch_all(pooled.connection().await?)).await;
            let result = rows.and_then(|rows| rows.iter().map(|row| row.try_get::<i64, _>(0)).collect());
            let Some(numbers): Option<Vec<i64>> = pooled.read(result)? else { continue };
            let found = numbers.into_iter().filter_map(|n| candidates.get(usize::try_from(n).ok()?));
            return Ok(found.map(|event| EventKey::of(event)).collect());
        }
    }

    /// Writes a batch: position, log, users and features, all or nothing, in one transaction that is one command. Refused unless this
    /// process may write (as for `fence`) and the store expects `batch.from_offset` and `batch.arrival_base`.
    ///
    /// # Errors
    /// As `history`. The batch may have been written nonetheless: read `event_position`.
    pub async fn write_batch(
        &self,
        shard: ShardId,
        batch: &EventBatch,
        now_ms: i64,
        epoch: u64,
        owner: u64,
    ) -> Result<Result<(), BatchRefused>, StoreError> {
        let sql = batch_sql(shard, batch, now_ms, epoch, owner);
        let expected = EventPosition { next_offset: batch.from_offset, arrival_base: batch.arrival_base };
        let mut pooled = self.checkout(shard, Turn::default()).await?;
        detached(async move {
            let timeout = pooled.command_timeout();
            let connection = pooled.connection().await?;
            let result = match run_packet(connection, sql, timeout).await {
                Ok(_) => Ok(Ok(())),
                Err(error) if is_duplicate_key(&error) => {
                    why_refused(connection, shard, expected, (epoch, owner), timeout).await.map(Err)
                }
                Err(error) => Err(error),
            };
            pooled.write(result)
        })
        .await
    }
}

async fn read_position(
    connection: &mut MySqlConnection,
    shard: ShardId,
    timeout: CommandTimeout,
) -> Result<EventPosition, sqlx::Error> {
    let sql = format!("SELECT next_offset, arrival_base FROM {}.ownership", shard.schema());
    let row = timeout.run(connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql)))).await?;
    Ok(EventPosition { next_offset: row.try_get(0)?, arrival_base: row.try_get(1)? })
}

/// Why the store refused the batch, by what its row says now. The row may have changed since; the caller reads it again in any case.
async fn why_refused(
    connection: &mut MySqlConnection,
    shard: ShardId,
    expected: EventPosition,
    (epoch, owner): (u64, u64),
    timeout: CommandTimeout,
) -> Result<BatchRefused, sqlx::Error> {
    let current = read_ownership(connection, shard, timeout).await?;
    if let Some(refused) = refusal(&current, epoch, owner) {
        return Ok(BatchRefused::Fence(refused));
    }
    let stored = read_position(connection, shard, timeout).await?;
    Ok(if stored == expected { BatchRefused::Features } else { BatchRefused::Position { stored } })
}

/// The only statements of a batch that can fail in this way are those of `refuse_unless`.
fn is_duplicate_key(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| error.number() == 1062)
}

/// Ids and features are hexadecimal: such a literal needs no escaping.
fn batch_sql(shard: ShardId, batch: &EventBatch, now_ms: i64, epoch: u64, owner: u64) -> String {
    let schema = shard.schema();
    let features: usize = batch.users.iter().map(|user| user.bytes.len()).sum();
    let mut sql = String::with_capacity(1_000 + 150 * batch.events.len() + 300 * batch.users.len() + 2 * features);
    let EventBatch { from_offset, next_offset, arrival_base, .. } = batch;
    let may_write =
        condition(&epoch.saturating_sub(MAX_EPOCH_JUMP).to_string(), &epoch.to_string(), &owner.to_string());
    begin(&mut sql);
    let _ = write!(
        sql,
        "UPDATE {schema}.ownership SET epoch = {epoch}, owner = {owner}, next_offset = {next_offset} \
         WHERE next_offset = {from_offset} AND arrival_base = {arrival_base} AND {may_write}; "
    );
    refuse_unless(&mut sql, &schema, 1);
    push_events(&mut sql, &schema, &batch.events);
    push_users(&mut sql, &schema, &batch.users, now_ms);
    commit(&mut sql, "");
    sql
}

/// Fails the batch unless the statement before has changed this number of rows: another number is no error by itself, but a second row in
/// this table is.
fn refuse_unless(sql: &mut String, schema: &str, changed: usize) {
    let _ = write!(
        sql,
        "INSERT INTO {schema}.ownership (epoch, counter) \
         SELECT 0, 0 FROM (SELECT ROW_COUNT() AS changed) AS counted WHERE changed <> {changed}; "
    );
}

fn push_events(sql: &mut String, schema: &str, events: &[ArrivedEvent]) {
    if events.is_empty() {
        return;
    }
    let mut rows: Vec<(u64, ImportEvent<'_>, u64)> = events
        .iter()
        .map(|ArrivedEvent { event, arrival }| (first_bytes(&event.user_id), ImportEvent::of(event), *arrival))
        .collect();
    rows.sort_unstable_by(|(a_first, a, _), (b_first, b, _)| {
        a_first.cmp(b_first).then_with(|| a.row_key().cmp(&b.row_key()))
    });
    insert_rows(sql, schema, rows.into_iter().map(|(_, row, arrival)| (row, Arrival::Number(arrival))));
}

fn push_users(sql: &mut String, schema: &str, users: &[FeaturesRow], now_ms: i64) {
    if users.is_empty() {
        return;
    }
    let mut users: Vec<(u64, &FeaturesRow)> = users.iter().map(|user| (first_bytes(&user.user_id), user)).collect();
    users.sort_unstable_by(|(a_first, a), (b_first, b)| a_first.cmp(b_first).then_with(|| a.user_id.cmp(&b.user_id)));
    let users: Vec<&FeaturesRow> = users.into_iter().map(|(_, user)| user).collect();
    let _ = write!(sql, "INSERT INTO {schema}.features (user_id, arrival, features) VALUES ");
    for (n, user) in users.iter().enumerate() {
        sql.push_str(if n == 0 { "(x'" } else { ",(x'" });
        push_hex(sql, user.user_id.as_str());
        sql.push_str("',");
        push_integer(sql, user.arrival);
        sql.push_str(",x'");
        push_hex(sql, &user.bytes);
        sql.push_str("')");
    }
    sql.push_str(" ON DUPLICATE KEY UPDATE arrival = VALUES(arrival), features = VALUES(features); ");
    // A row counts once if it is inserted, and twice if another one is updated: its arrival number always changes.
    refuse_unless(sql, schema, users.iter().map(|user| if user.continues { 2 } else { 1 }).sum());
    let _ = write!(sql, "INSERT INTO {schema}.users (user_id, created_at_ms, events) VALUES ");
    for (n, user) in users.iter().enumerate() {
        sql.push_str(if n == 0 { "(x'" } else { ",(x'" });
        push_hex(sql, user.user_id.as_str());
        sql.push_str("',");
        push_integer(sql, now_ms);
        sql.push(',');
        push_integer(sql, user.added);
        sql.push(')');
    }
    sql.push_str(" ON DUPLICATE KEY UPDATE events = events + VALUES(events); ");
}

/// Ids have the order of these numbers, unless their first eight bytes are equal: no id has a zero byte.
fn first_bytes(user_id: &UserId) -> u64 {
    let mut first = [0; 8];
    first.iter_mut().zip(user_id.as_str().bytes()).for_each(|(to, byte)| *to = byte);
    u64::from_be_bytes(first)
}

/// A join with the list of keys: each kind of server looks up one row per key then. A long `IN` or `OR` may be a scan.
fn logged_sql(shard: ShardId, candidates: &[&Event]) -> String {
    let mut sql = String::with_capacity(300 + 200 * candidates.len());
    sql.push_str("SELECT STRAIGHT_JOIN asked.n FROM (");
    for (n, event) in candidates.iter().enumerate() {
        let _ = match n {
            0 => write!(sql, "SELECT 0 AS n, x'"),
            n => write!(sql, " UNION ALL SELECT {n}, x'"),
        };
        push_hex(&mut sql, event.user_id.as_str());
        let _ = write!(sql, "' {}, {} {}, x'", named(n, "user_id"), event.at_ms, named(n, "at_ms"));
        push_hex(&mut sql, event.item_id.as_str());
        let _ = write!(sql, "' {}, {} {}", named(n, "item_id"), event.kind.code(), named(n, "kind"));
    }
    let _ = write!(
        sql,
        ") AS asked JOIN {}.behaviour AS logged ON logged.user_id = asked.user_id AND logged.at_ms = asked.at_ms \
         AND logged.item_id = asked.item_id AND logged.kind = asked.kind",
        shard.schema()
    );
    sql
}

/// The first row of the list names its columns.
fn named(row: usize, column: &'static str) -> &'static str {
    if row == 0 { column } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::RESET_LIMITS;

    #[test]
    fn the_first_bytes_keep_the_order_of_ids() {
        let ids = ["a", "a ", "a!", "aa", "aaaaaaaa", "aaaaaaaaa", "aaaaaaaab", "b", "z", "ä", "äaaaaaaaa"];
        let ids: Vec<UserId> = ids.iter().map(|id| id.parse().unwrap()).collect();
        assert!(ids.is_sorted());
        assert!(ids.is_sorted_by_key(first_bytes));
        assert!(first_bytes(&ids[4]) == first_bytes(&ids[6]) && first_bytes(&ids[0]) < first_bytes(&ids[1]));
    }

    #[test]
    fn a_batch_is_one_transaction_in_one_text() {
        let event = Event {
            user_id: "b'".parse().unwrap(),
            item_id: "i".parse().unwrap(),
            kind: EventKind::Cart,
            at_ms: -5,
            weight: 0.1,
        };
        let events = vec![
            ArrivedEvent { event: event.clone(), arrival: 8 },
            ArrivedEvent { event: Event { user_id: "a".parse().unwrap(), weight: 1e6, ..event }, arrival: 9 },
        ];
        let row = |id: &str, continues| FeaturesRow {
            user_id: id.parse().unwrap(),
            arrival: 9,
            bytes: vec![0, 0xff],
            added: 1,
            continues,
        };
        let batch = EventBatch {
            from_offset: 7,
            next_offset: 9,
            arrival_base: 1,
            events,
            users: vec![row("b'", true), row("a", false)],
        };
        let sql = batch_sql(ShardId::all().next().unwrap(), &batch, 3, MAX_EPOCH_JUMP + 2, 4);
        let statements: Vec<&str> = sql.split("; ").collect();
        assert_eq!(
            statements,
            [
                "SET SESSION wait_timeout = 5, innodb_lock_wait_timeout = 3",
                "BEGIN",
                "UPDATE shard_00.ownership SET epoch = 4294967298, owner = 4, next_offset = 9 WHERE next_offset = 7 AND arrival_base = 1 AND epoch >= 2 AND (epoch < 4294967298 OR epoch = 4294967298 AND owner IN (0, 4))",
                "INSERT INTO shard_00.ownership (epoch, counter) SELECT 0, 0 FROM (SELECT ROW_COUNT() AS changed) AS counted WHERE changed <> 1",
                "INSERT IGNORE INTO shard_00.behaviour (user_id, at_ms, item_id, kind, weight, arrival) VALUES (x'61',-5,x'69',1,1000000.0e0,9),(x'6227',-5,x'69',1,0.10000000149011612e0,8)",
                "INSERT INTO shard_00.features (user_id, arrival, features) VALUES (x'61',9,x'00ff'),(x'6227',9,x'00ff') ON DUPLICATE KEY UPDATE arrival = VALUES(arrival), features = VALUES(features)",
                "INSERT INTO shard_00.ownership (epoch, counter) SELECT 0, 0 FROM (SELECT ROW_COUNT() AS changed) AS counted WHERE changed <> 3",
                "INSERT INTO shard_00.users (user_id, created_at_ms, events) VALUES (x'61',3,1),(x'6227',3,1) ON DUPLICATE KEY UPDATE events = events + VALUES(events)",
                "COMMIT",
                RESET_LIMITS,
            ]
        );
    }
}
