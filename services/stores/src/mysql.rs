//! The 16 shards: users and their behaviour log.

use std::{fmt::Write, sync::Arc, time::Duration};

use contract::{Event, EventKind, ItemId, SHARDS, ShardId, UserId, shard_of, spans::attribute};
use futures::TryStreamExt;
use runtime::telemetry::Span;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row, mysql::MySqlRow};
use tokio::time::{Instant, timeout_at};

use crate::{
    bulk::push_hex,
    config::StoreConfig,
    dialer::StatementLimit,
    limit::{BETWEEN_ROWS, GRACE, Limit, timed_out},
    metrics::{ShardMetrics, StoreMetrics},
    pool::{Lease, Pool, StoreError, Waiting},
    spans,
    transaction::finish,
};

/// What a user did, newest first where a list of them is returned.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedEvent {
    pub item_id: ItemId,
    pub kind: EventKind,
    pub at_ms: i64,
    pub weight: f32,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: StoreConfig,
    pools: Vec<Pool>,
    pub(crate) catalogue: Pool,
    /// Which pool has this shard.
    instance_of: [usize; SHARDS as usize],
    sql: Vec<ShardSql>,
    shard_metrics: Vec<ShardMetrics>,
}

/// SQL of one shard, schema-qualified: connections are shared by all shards of an instance.
#[derive(Debug)]
struct ShardSql {
    active: Arc<str>,
}

/// The newest events that an answer is ranked from; older ones no longer tell what a user wants.
pub(crate) const HISTORY_LIMIT: u32 = 100;

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
        // A model is loaded whole, however large it is.
        let patient = StoreConfig { statement_timeout_ms: 0, ..config.clone() };
        let names: Vec<String> = (0..config.instances.len()).map(|n| format!("mysql-{n:02}")).collect();
        let instances = config.instances.iter().zip(&names);
        let pools: Option<Vec<Pool>> = instances.map(|(at, name)| pool(&config, &at.address, name)).collect();
        let (Some(pools), Some(catalogue), true) =
            (pools, pool(&patient, &config.catalogue, "catalogue"), problems.is_empty())
        else {
            return Err(StoreError::Invalid(sqlx::Error::Configuration(problems.join("; ").into())));
        };
        let mut instance_of = [0; SHARDS as usize];
        for (i, instance) in config.instances.iter().enumerate() {
            for &shard in &instance.shards {
                instance_of[usize::from(shard)] = i;
            }
        }
        let sql = ShardId::all().map(ShardSql::new).collect();
        let shard_metrics =
            ShardId::all().map(|shard| metrics.shard(shard, &names[instance_of[shard.index()]])).collect();
        Ok(Self(Arc::new(Inner { config, pools, catalogue, instance_of, sql, shard_metrics })))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// A connection to this shard's server; see `Pool::checkout`.
    pub(crate) async fn checkout(&self, shard: ShardId, deadline: Option<Instant>) -> Result<Lease, StoreError> {
        let _waiting = Waiting::new(&self.0.shard_metrics[shard.index()]);
        self.pool(shard).checkout(deadline).await
    }

    async fn traced_checkout(
        &self,
        shard: ShardId,
        deadline: Option<Instant>,
        span: &Span,
    ) -> Result<Lease, StoreError> {
        let waiting = spans::pool_wait(span, shard, &self.pool(shard).address);
        spans::told(&waiting, self.checkout(shard, deadline).await)
    }

    fn pool(&self, shard: ShardId) -> &Pool {
        &self.0.pools[self.0.instance_of[shard.index()]]
    }

    /// Opens this many connections to each instance.
    ///
    /// # Errors
    /// A server did not answer within `patience`.
    pub async fn open(&self, connections: u32, patience: Duration) -> Result<(), StoreError> {
        let count = connections.min(self.0.config.pool_size);
        futures::future::try_join_all(self.0.pools.iter().map(|pool| pool.fill(count, patience))).await.map(drop)
    }

    /// The user's newest events, at most 100; empty for an unknown user. One MySQL command on a warm connection.
    ///
    /// The server gives the query up at `deadline` (dropping a query's future would not stop the query), and 1.5 s later this ends in any
    /// case. Dropping this future while it waits for a permit leaves the line; then connecting and the query run to their end, so that a
    /// client that hangs up costs no connection. The wait for a connection and the query are spans below `span`.
    ///
    /// # Errors
    /// `CheckoutTimeout`, `LineFull`, `Down`, `StatementTimeout`, `Unavailable`.
    pub async fn history(
        &self,
        user_id: &UserId,
        deadline: Option<Instant>,
        span: &Span,
    ) -> Result<Vec<LoggedEvent>, StoreError> {
        let shard = shard_of(user_id.as_str());
        let mut lease = self.traced_checkout(shard, deadline, span).await?;
        let sql: Arc<str> = history_sql(shard, user_id, lease.statement_limit()).into();
        let query = spans::query(span, "SELECT behaviour", shard, &self.pool(shard).address);
        let read = detached(async move {
            let events = spans::told(&query, history(&mut lease, &sql).await)?;
            query.set(attribute::DB_RESPONSE_RETURNED_ROWS, events.len());
            Ok(events)
        });
        match deadline {
            // Only an attempt to connect takes longer, and goes on for whoever needs the connection next.
            Some(deadline) => timeout_at(deadline + GRACE, read)
                .await
                .unwrap_or_else(|_elapsed| Err(StoreError::Unavailable(timed_out()))),
            None => read.await,
        }
    }

    /// Histories of many users of one shard, as `history` gives them; users without events are left out.
    ///
    /// # Errors
    /// As `history`.
    pub async fn histories(
        &self,
        shard: ShardId,
        user_ids: &[UserId],
    ) -> Result<Vec<(UserId, Vec<LoggedEvent>)>, StoreError> {
        let marks = vec!["?"; user_ids.len()].join(",");
        let sql: Arc<str> = format!(
            "SELECT user_id, item_id, kind, at_ms, weight FROM {}.behaviour WHERE user_id IN ({marks}) ORDER BY user_id, at_ms DESC",
            shard.schema()
        )
        .into();
        let mut lease = self.checkout(shard, None).await?;
        let limit = lease.limit();
        let rows = loop {
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&sql)));
            let query = user_ids
                .iter()
                .fold(query, |query, id| query.bind(id.as_str().as_bytes()))
                // Its text changes with the number of users: only full batches are worth a place in the statement cache.
                .persistent(user_ids.len().is_multiple_of(100))
                .try_map(|row: MySqlRow| Ok((id_at::<UserId>(&row, 0)?, logged_event(&row, 1)?)));
            let result = limit.of(query.fetch_all(lease.connection().await?)).await;
            if let Some(rows) = lease.read(result)? {
                break rows;
            }
        };
        let mut histories: Vec<(UserId, Vec<LoggedEvent>)> = Vec::new();
        for (user_id, event) in rows {
            match histories.last_mut() {
                Some((last, events)) if *last == user_id => {
                    if events.len() < HISTORY_LIMIT as usize {
                        events.push(event);
                    }
                }
                _ => histories.push((user_id, vec![event])),
            }
        }
        Ok(histories)
    }

    /// Calls `each` with every user of the shard, in no particular order; starts over after a broken connection, so
    /// `each` may see a user twice.
    ///
    /// # Errors
    /// As `history`.
    pub async fn each_user(&self, shard: ShardId, mut each: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let mut lease = self.checkout(shard, None).await?;
        let sql: Arc<str> = format!("{}user_id FROM {}.users", lease.unlimited_select(), shard.schema()).into();
        loop {
            let connection = lease.connection().await?;
            let result = each_user(connection, &sql, &mut each).await;
            if lease.read(result)?.is_some() {
                return Ok(());
            }
        }
    }

    /// The users of the shard with the most events, most active first.
    ///
    /// # Errors
    /// As `history`.
    pub async fn most_active(&self, shard: ShardId, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let mut lease = self.checkout(shard, None).await?;
        let patience = lease.limit();
        loop {
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.0.sql[shard.index()].active)))
                .bind(limit)
                .try_map(|row: MySqlRow| id_at(&row, 0));
            let result = patience.of(query.fetch_all(lease.connection().await?)).await;
            if let Some(users) = lease.read(result)? {
                return Ok(users);
            }
        }
    }

    /// Creates the user unless it exists. True: it is new. Waiting and query are spans below `span`, as in `history`.
    ///
    /// # Errors
    /// As `history`; the user may have been created nonetheless, and creating it again is harmless.
    pub async fn create_user(&self, user_id: &UserId, now_ms: i64, span: &Span) -> Result<bool, StoreError> {
        let shard = shard_of(user_id.as_str());
        let sql = format!("INSERT IGNORE INTO {}.users (user_id, created_at_ms) VALUES (?, ?)", shard.schema());
        let mut lease = self.traced_checkout(shard, None, span).await?;
        let query = spans::query(span, "INSERT users", shard, &self.pool(shard).address);
        let user_id = user_id.clone();
        detached(async move {
            let insert = sqlx::query(AssertSqlSafe(sql)).bind(user_id.as_str().as_bytes()).bind(now_ms);
            let inserted = async {
                let limit = lease.limit();
                let result = limit.of(insert.execute(lease.connection().await?)).await;
                lease.write(result)
            };
            Ok(spans::told(&query, inserted.await)?.rows_affected() == 1)
        })
        .await
    }

    /// Appends to the log and creates the users it does not know; one transaction per shard, in shard order. An event that
    /// the log holds already changes nothing, so a batch that failed half-way can be sent again whole. Each transaction, and the wait
    /// before it, is a span below `span`.
    ///
    /// # Errors
    /// As `history`; earlier shards of the batch are written.
    pub async fn append(&self, events: &[Event], now_ms: i64, span: &Span) -> Result<(), StoreError> {
        for shard in ShardId::all() {
            let of_shard = events.iter().filter(|event| shard_of(event.user_id.as_str()) == shard);
            let mut of_shard: Vec<Event> = of_shard.cloned().collect();
            if of_shard.is_empty() {
                continue;
            }
            // One order for all writers, down to the rows: two batches with the same events cannot wait for each other in a circle.
            of_shard.sort_by(|a, b| row_key(a).cmp(&row_key(b)));
            let mut lease = self.traced_checkout(shard, None, span).await?;
            let query = spans::query(span, "INSERT behaviour", shard, &self.pool(shard).address);
            query.set(attribute::ITEMS, of_shard.len());
            detached(async move {
                let appended = async {
                    let limit = lease.limit();
                    let result = append_to_shard(lease.connection().await?, shard, &of_shard, now_ms, limit).await;
                    lease.write(result)
                };
                spans::told(&query, appended.await)
            })
            .await?;
        }
        Ok(())
    }
}

/// The primary key of the event's row.
fn row_key(event: &Event) -> (&UserId, i64, &ItemId, u8) {
    (&event.user_id, event.at_ms, &event.item_id, event.kind.code())
}

/// Runs the work to its end even if the caller is gone: cancelled half-way it would cost the connection.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(work).await.map_err(|_panicked| StoreError::Invalid(sqlx::Error::WorkerCrashed))?
}

async fn history(lease: &mut Lease, sql: &Arc<str>) -> Result<Vec<LoggedEvent>, StoreError> {
    let limit = lease.limit();
    loop {
        let query = sqlx::raw_sql(AssertSqlSafe(Arc::clone(sql)));
        let rows = limit.of(query.fetch_all(lease.connection().await?)).await;
        let result = rows.and_then(|rows| rows.iter().map(joined_event).collect());
        if let Some(events) = lease.read(result)? {
            return Ok(events);
        }
    }
}

async fn append_to_shard(
    connection: &mut MySqlConnection,
    shard: ShardId,
    events: &[Event],
    now_ms: i64,
    limit: Limit,
) -> Result<(), sqlx::Error> {
    let mut transaction = limit.of(connection.begin()).await?;
    let appended = append_rows(&mut transaction, shard, events, now_ms, limit).await;
    finish(transaction, appended, limit).await
}

async fn append_rows(
    connection: &mut MySqlConnection,
    shard: ShardId,
    events: &[Event],
    now_ms: i64,
    limit: Limit,
) -> Result<(), sqlx::Error> {
    let schema = shard.schema();
    for of_user in events.chunk_by(|a, b| a.user_id == b.user_id) {
        let user_id = of_user[0].user_id.as_str().as_bytes();
        let marks = vec!["(?,?,?,?,?)"; of_user.len()].join(",");
        let sql =
            format!("INSERT IGNORE INTO {schema}.behaviour (user_id, at_ms, item_id, kind, weight) VALUES {marks}");
        let mut insert = sqlx::query(AssertSqlSafe(sql)).persistent(of_user.len() == 1);
        for event in of_user {
            insert = insert
                .bind(user_id)
                .bind(event.at_ms)
                .bind(event.item_id.as_str().as_bytes())
                .bind(event.kind.code())
                .bind(event.weight);
        }
        let added = limit.of(insert.execute(&mut *connection)).await?.rows_affected();
        let sql = format!(
            "INSERT INTO {schema}.users (user_id, created_at_ms, events) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE events = events + VALUES(events)"
        );
        let count = sqlx::query(AssertSqlSafe(sql)).bind(user_id).bind(now_ms).bind(added);
        limit.of(count.execute(&mut *connection)).await?;
    }
    Ok(())
}

async fn each_user(
    connection: &mut MySqlConnection,
    sql: &Arc<str>,
    each: &mut impl FnMut(&[u8]),
) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query(AssertSqlSafe(Arc::clone(sql))).fetch(connection);
    while let Some(row) = BETWEEN_ROWS.of(rows.try_next()).await? {
        each(row.try_get_unchecked(0)?);
    }
    Ok(())
}

impl ShardSql {
    fn new(shard: ShardId) -> Self {
        let schema = shard.schema();
        Self {
            // Ties by id, so that the order is the same again for whoever resumes half-way; the index ends with the id.
            active: format!("SELECT user_id FROM {schema}.users ORDER BY events DESC, user_id DESC LIMIT ?").into(),
        }
    }
}

/// Text, not a prepared statement: 16 shards × the connections of all replicas would be thousands of statements in the server, each
/// prepared by a command of its own, and their memory cold when they are used. One column, as every column's definition is sent and
/// read anew with every answer, at more cost than the rows.
fn history_sql(shard: ShardId, user_id: &UserId, limit: Option<StatementLimit>) -> String {
    let mut sql = String::with_capacity(300);
    let _ = match limit {
        // In seconds.
        Some(StatementLimit::Mariadb { ms }) => {
            write!(sql, "SET STATEMENT max_statement_time={}.{:03} FOR SELECT ", ms / 1000, ms % 1000)
        }
        Some(StatementLimit::Mysql { ms }) => write!(sql, "SELECT /*+ MAX_EXECUTION_TIME({ms}) */ "),
        None => write!(sql, "SELECT "),
    };
    let _ = write!(
        sql,
        "CONCAT(at_ms,' ',kind,' ',weight,' ',item_id) FROM {}.behaviour WHERE user_id = x'",
        shard.schema()
    );
    push_hex(&mut sql, user_id.as_str());
    let _ = write!(sql, "' ORDER BY at_ms DESC LIMIT {HISTORY_LIMIT}");
    sql
}

/// `at_ms kind weight item_id`; what follows the third space is the id, spaces and all.
fn joined_event(row: &MySqlRow) -> Result<LoggedEvent, sqlx::Error> {
    let bytes: &[u8] = row.try_get_unchecked(0)?;
    let text = std::str::from_utf8(bytes).map_err(|error| decode(error.to_string()))?;
    let mut fields = text.splitn(4, ' ');
    let event = (|| {
        let at_ms = fields.next()?.parse().ok()?;
        let kind = EventKind::from_code(fields.next()?.parse().ok()?)?;
        let weight = fields.next()?.parse().ok()?;
        Some(LoggedEvent { at_ms, kind, weight, item_id: fields.next()?.parse().ok()? })
    })();
    event.ok_or_else(|| decode(format!("not an event: {text:?}")))
}

/// Columns from `first`: item_id, kind, at_ms, weight.
fn logged_event(row: &MySqlRow, first: usize) -> Result<LoggedEvent, sqlx::Error> {
    let code: u8 = row.try_get_unchecked(first + 1)?;
    Ok(LoggedEvent {
        item_id: id_at(row, first)?,
        kind: EventKind::from_code(code).ok_or_else(|| decode(format!("unknown event kind {code}")))?,
        at_ms: row.try_get_unchecked(first + 2)?,
        weight: row.try_get_unchecked(first + 3)?,
    })
}

pub(crate) fn id_at<T: std::str::FromStr<Err = contract::IdError>>(
    row: &MySqlRow,
    column: usize,
) -> Result<T, sqlx::Error> {
    let bytes: &[u8] = row.try_get_unchecked(column)?;
    let text = std::str::from_utf8(bytes).map_err(|error| decode(error.to_string()))?;
    text.parse().map_err(|error: contract::IdError| decode(error.to_string()))
}

fn decode(reason: String) -> sqlx::Error {
    sqlx::Error::Decode(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_told_the_time_in_its_own_words() {
        let user = UserId::new("a'b").unwrap();
        let shard = shard_of(user.as_str());
        let sql = |limit| history_sql(shard, &user, limit);
        let plain = sql(None);
        assert!(plain.starts_with("SELECT CONCAT(") && plain.contains("x'612762'"), "{plain}");
        let rest = plain.strip_prefix("SELECT ").unwrap();
        assert_eq!(
            sql(Some(StatementLimit::Mariadb { ms: 2_045 })),
            format!("SET STATEMENT max_statement_time=2.045 FOR SELECT {rest}")
        );
        assert_eq!(
            sql(Some(StatementLimit::Mysql { ms: 2_045 })),
            format!("SELECT /*+ MAX_EXECUTION_TIME(2045) */ {rest}")
        );
    }
}
