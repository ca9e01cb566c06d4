//! The connections of this process to one MySQL server.
//!
//! A permit of the gate carries its connection, so a checkout is one lock and a query is one command. sqlx's `Pool` is
//! not used: it pings every connection when it comes back (a second command for each query) and has no newest-first.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use sqlx::MySqlConnection;
use tokio::time::Instant;

use crate::{
    config::StoreConfig,
    dialer::{Dialer, StatementLimit},
    gate::{Gate, GateError, Permit},
    limit::{Limit, is_silence, timed_out},
    metrics::{PoolMetrics, ShardMetrics},
};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The pool is exhausted: what the article calls "database connection pool exhausted".
    #[error("no connection to the store came free within {0:?}")]
    CheckoutTimeout(Duration),
    #[error("{0} requests wait for the store already")]
    LineFull(usize),
    /// Not tried: connecting failed a moment ago.
    #[error("the store is down")]
    Down,
    /// The server gave the query up when its time was over; the connection is intact.
    #[error("the store did not answer the query in its time")]
    StatementTimeout,
    /// Connecting failed, or the query did, also on the repeat where one is allowed.
    #[error("the store is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The configuration is wrong, a row cannot be decoded, or the query's task panicked. A retry would change nothing.
    #[error("the store's configuration or data is not valid")]
    Invalid(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    /// Classifies an error that is no statement time-out.
    fn from(error: sqlx::Error) -> Self {
        if is_invalid(&error) { Self::Invalid(error) } else { Self::Unavailable(error) }
    }
}

/// Not caused by the server's state or the connection's.
fn is_invalid(error: &sqlx::Error) -> bool {
    use sqlx::Error;
    matches!(
        error,
        Error::Configuration(_)
            | Error::InvalidArgument(_)
            | Error::RowNotFound
            | Error::TypeNotFound { .. }
            | Error::ColumnIndexOutOfBounds { .. }
            | Error::ColumnNotFound(_)
            | Error::ColumnDecode { .. }
            | Error::Encode(_)
            | Error::Decode(_)
            | Error::WorkerCrashed
    )
}

impl StoreError {
    /// One of a few words, for `error.type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CheckoutTimeout(_) => "checkout_timeout",
            Self::LineFull(_) => "line_full",
            Self::Down => "down",
            Self::StatementTimeout => "statement_timeout",
            Self::Unavailable(_) => "unavailable",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// Handshakes of one process with one server at the same time.
pub(crate) const OPENED_AT_ONCE: usize = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Pool {
    gate: Arc<Gate<Slot>>,
    /// Of the server, as configured.
    pub(crate) address: String,
    checkout_timeout: Duration,
    dialer: Arc<Dialer>,
}

/// A place for one connection; empty until it is needed and after it broke.
type Slot = Option<Idle>;

#[derive(Debug)]
struct Idle {
    connection: MySqlConnection,
    /// When the server last said something on it.
    answered: Instant,
}

impl Idle {
    fn new(connection: MySqlConnection) -> Self {
        Self { connection, answered: Instant::now() }
    }
}

impl Pool {
    pub(crate) fn new(config: &StoreConfig, address: &str, metrics: PoolMetrics) -> Option<Self> {
        let slots = (0..config.pool_size).map(|_| None).collect();
        Some(Self {
            gate: Gate::new(slots, config.order, config.max_waiting),
            address: address.to_owned(),
            checkout_timeout: Duration::from_millis(config.checkout_timeout_ms),
            dialer: Arc::new(Dialer::new(config, address, metrics)?),
        })
    }

    /// Waits for a connection, no longer than the configuration says nor beyond `deadline`. Cancelling it leaves the line and
    /// touches no connection.
    pub(crate) async fn checkout(&self, deadline: Option<Instant>) -> Result<Lease, StoreError> {
        let started = Instant::now();
        let metrics = &self.dialer.metrics;
        let patience = deadline.map_or(self.checkout_timeout, |deadline| {
            self.checkout_timeout.min(deadline.saturating_duration_since(started))
        });
        let permit = self.gate.acquire(patience).await.map_err(|error| match error {
            GateError::Timeout(waited) => {
                metrics.timeouts.inc();
                metrics.commands.checkout_timeouts.inc();
                StoreError::CheckoutTimeout(waited)
            }
            GateError::LineFull(waiting) => {
                metrics.commands.line_full.inc();
                StoreError::LineFull(waiting)
            }
        })?;
        metrics.wait_seconds.observe(started.elapsed().as_secs_f64());
        if permit.is_some() {
            metrics.idle.dec();
        }
        Ok(Lease {
            permit,
            busy: None,
            repeated: false,
            deadline,
            _used: Held::up(&metrics.used),
            dialer: Arc::clone(&self.dialer),
        })
    }

    /// Opens `count` connections ahead of the first requests, a few at a time: a server that gets hundreds of handshakes at
    /// once answers none of them in time. An attempt that fails is repeated until `patience` is over.
    pub(crate) async fn fill(&self, count: u32, patience: Duration) -> Result<(), StoreError> {
        let deadline = Instant::now() + patience;
        let mut leases = Vec::new();
        for _ in 0..count {
            leases.push(self.checkout(None).await?);
        }
        let opened = leases.into_iter().map(|mut lease| async move {
            let mut pause = FIRST_PAUSE;
            loop {
                match lease.dialer.open(self.dialer.connect_timeout).await {
                    Ok(connection) => {
                        *lease.permit = Some(Idle::new(connection));
                        return Ok(());
                    }
                    Err(error) if is_invalid(&error) || Instant::now() + pause >= deadline => return Err(error),
                    Err(error) => tracing::info!(%error, "no connection yet, trying again"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        futures::stream::iter(opened)
            .buffer_unordered(OPENED_AT_ONCE)
            .try_collect::<()>()
            .await
            .map_err(|error| self.dialer.failed(error))
    }
}

/// The right to use one connection. Outlives the pool's borrow, so that a query can go on in a task of its own.
///
/// ```text
/// loop {
///     let result = query.fetch_all(lease.connection().await?).await;
///     if let Some(rows) = lease.read(result)? { return Ok(rows) }   // None: once more, on a fresh connection
/// }
/// ```
#[derive(Debug)]
pub(crate) struct Lease {
    permit: Permit<Slot>,
    /// Between `connection` and `read` or `write`. Whoever is cancelled in between leaves it here, and it is closed by being dropped:
    /// nobody knows how much of an answer is still on its way.
    busy: Option<Busy>,
    repeated: bool,
    deadline: Option<Instant>,
    dialer: Arc<Dialer>,
    _used: Held,
}

#[derive(Debug)]
struct Busy {
    connection: MySqlConnection,
    /// It was opened for an earlier query and may have been closed by the server since: nothing tests it beforehand, as
    /// that would cost a command per query.
    was_idle: bool,
    since: Instant,
}

impl Lease {
    /// The connection, opened now if the slot is empty. To be followed by `read` or `write` with the query's result.
    pub(crate) async fn connection(&mut self) -> Result<&mut MySqlConnection, StoreError> {
        let usable = self.permit.take().filter(|idle| !self.dialer.is_suspect(idle.answered));
        let (connection, was_idle) = match usable {
            Some(idle) => (idle.connection, true),
            None => {
                let connection = self.dialer.connect().await?;
                if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    // Too late for this request, and the next one needs none.
                    *self.permit = Some(Idle::new(connection));
                    return Err(self.dialer.failed(timed_out()));
                }
                (connection, false)
            }
        };
        self.dialer.metrics.commands.queries.inc();
        Ok(&mut self.busy.insert(Busy { connection, was_idle, since: Instant::now() }).connection)
    }

    /// The result of an idempotent read. `None`: its idle connection proved broken; run it again, on a fresh one. That
    /// is said once at most.
    pub(crate) fn read<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<Option<T>, StoreError> {
        let was_idle = self.give_back(&result);
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if was_idle && !self.repeated && is_broken(&error) => {
                tracing::debug!(%error, "connection broken, reading again on a fresh one");
                self.dialer.metrics.commands.retries.inc();
                self.repeated = true;
                Ok(None)
            }
            Err(error) => Err(self.dialer.failed(error)),
        }
    }

    /// The result of something that must not be repeated blindly.
    pub(crate) fn write<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        self.give_back(&result);
        result.map_err(|error| self.dialer.failed(error))
    }

    /// The connection returns to its slot unless the result leaves its state in doubt.
    fn give_back<T>(&mut self, result: &Result<T, sqlx::Error>) -> bool {
        let Some(busy) = self.busy.take() else { return false };
        let now = Instant::now();
        self.dialer.metrics.commands.seconds.observe(now.saturating_duration_since(busy.since).as_secs_f64());
        match result {
            Err(error) if is_broken(error) => {
                if is_silence(error) {
                    self.dialer.silent(busy.since);
                }
            }
            _ => *self.permit = Some(Idle { connection: busy.connection, answered: now }),
        }
        busy.was_idle
    }

    /// How long the answer to a command of this lease is waited for. A request that is over for `GRACE` gives up its connection: who
    /// needs it next would wait for an answer to nobody.
    pub(crate) fn limit(&self) -> Limit {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        Limit::new(self.dialer.statement_timeout, left)
    }

    /// What the server shall be told of the time this query has; `None`: nothing, the connection's own limit is near enough.
    pub(crate) fn statement_limit(&self) -> Option<StatementLimit> {
        let left = self.deadline?.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let session = self.dialer.statement_timeout;
        if session != Duration::ZERO && left > session / 2 { None } else { self.dialer.limit(left) }
    }

    /// See `Dialer::unlimited_select`.
    pub(crate) fn unlimited_select(&self) -> &'static str {
        self.dialer.unlimited_select()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Before the permit goes back: whoever gets it next takes this away again.
        if self.permit.is_some() {
            self.dialer.metrics.idle.inc();
        }
    }
}

/// The connection can't be used any more, or nobody knows.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        // A statement that the server refused leaves the connection intact, unless it was refused because the session ends:
        // 1053 shutdown, 1152/1184 aborted, 1927 killed, 4031 idle too long.
        sqlx::Error::Database(db) => db
            .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
            .is_some_and(|db| matches!(db.number(), 1053 | 1152 | 1184 | 1927 | 4031)),
        // The connection is intact, or went with the task that panicked.
        error => !is_invalid(error),
    }
}

/// One who waits for a connection to this shard's server. Counted when it ends, however it does.
pub(crate) struct Waiting<'a> {
    metrics: &'a ShardMetrics,
    since: Instant,
}
impl<'a> Waiting<'a> {
    pub(crate) fn new(metrics: &'a ShardMetrics) -> Self {
        metrics.checkouts.inc();
        metrics.pending.inc();
        Self { metrics, since: Instant::now() }
    }
}
impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.pending.dec();
        self.metrics.wait_seconds.inc_by(self.since.elapsed().as_secs_f64());
    }
}

/// A gauge that is one higher for as long as this lives.
#[derive(Debug)]
struct Held(prometheus::IntGauge);
impl Held {
    fn up(gauge: &prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}
impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
