//! The connections of this process to one MySQL server.
//!
//! A permit of the gate has a connection, so a checkout is one lock and a query is one command. sqlx's `Pool` is not used: it pings every
//! returned connection (a second command per query), and has no newest-first order.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use prometheus::IntCounter;
use sqlx::MySqlConnection;
use tokio::time::Instant;

use crate::{
    command_timeout::CommandTimeout,
    config::StoreConfig,
    dialer::{CONCURRENT_HANDSHAKES, Dialer, StatementTimeout},
    error::{StoreError, is_broken, is_invalid, is_timed_out, timed_out},
    gate::{Gate, GateError, Permit, Wait},
    metrics::{PoolMetrics, ShardMetrics},
    turn::Turn,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Pool {
    gate: Arc<Gate<Slot>>,
    /// The server's address, as configured.
    pub(crate) address: String,
    checkout_timeout: Duration,
    /// `None`: as `checkout_timeout`.
    standing_wait: Option<Duration>,
    dialer: Arc<Dialer>,
}

/// The place of one connection. It is empty until the connection is needed, and after it broke.
type Slot = Option<IdleConnection>;

#[derive(Debug)]
struct IdleConnection {
    connection: MySqlConnection,
    /// The time of the server's last response on it.
    answered_at: Instant,
}

impl IdleConnection {
    fn new(connection: MySqlConnection) -> Self {
        Self { connection, answered_at: Instant::now() }
    }
}

impl Pool {
    pub(crate) fn new(config: &StoreConfig, address: &str, metrics: PoolMetrics) -> Option<Self> {
        let slots = (0..config.pool_size).map(|_| None).collect();
        Some(Self {
            gate: Gate::new(slots, config.order, config.max_waiting),
            address: address.to_owned(),
            checkout_timeout: Duration::from_millis(config.checkout_timeout_ms),
            standing_wait: (config.standing_wait_ms > 0).then(|| Duration::from_millis(config.standing_wait_ms)),
            dialer: Arc::new(Dialer::new(config, address, metrics)?),
        })
    }

    /// Waits for a connection, at most for `checkout_timeout_ms` and until the deadline. Cancellation leaves the queue and affects no
    /// connection.
    pub(crate) async fn checkout(&self, turn: Turn) -> Result<PooledConnection, StoreError> {
        let deadline = turn.deadline;
        let started = Instant::now();
        let metrics = &self.dialer.metrics;
        let limit = deadline.map_or(self.checkout_timeout, |deadline| {
            self.checkout_timeout.min(deadline.saturating_duration_since(started))
        });
        let standing = self.standing_wait.filter(|_| turn.waits_briefly());
        let wait = Wait { criticality: turn.criticality, limit, standing };
        let permit = self.gate.acquire(wait).await.map_err(|error| match error {
            GateError::Timeout(waited) => {
                metrics.timeouts.inc();
                metrics.commands.checkout_timeouts.inc();
                StoreError::CheckoutTimeout(waited)
            }
            GateError::QueueFull(waiting) => {
                metrics.commands.queue_full.inc();
                StoreError::QueueFull(waiting)
            }
        })?;
        metrics.wait_seconds.observe(started.elapsed().as_secs_f64());
        if permit.is_some() {
            metrics.idle.dec();
        }
        Ok(PooledConnection {
            permit,
            busy: None,
            is_retry: false,
            deadline,
            _used: GaugeGuard::new(&metrics.used),
            dialer: Arc::clone(&self.dialer),
        })
    }

    /// Opens `count` connections before the first requests, a few at a time: a server with hundreds of concurrent handshakes completes none of
    /// them in time. A failed attempt is retried for `limit`.
    pub(crate) async fn fill(&self, count: u32, limit: Duration) -> Result<(), StoreError> {
        let deadline = Instant::now() + limit;
        let mut checkouts = Vec::new();
        for _ in 0..count {
            checkouts.push(self.checkout(Turn::default()).await?);
        }
        let opened = checkouts.into_iter().map(|mut pooled| async move {
            let mut pause = FIRST_PAUSE;
            loop {
                match pooled.dialer.open(self.dialer.connect_timeout).await {
                    Ok(connection) => {
                        *pooled.permit = Some(IdleConnection::new(connection));
                        return Ok(());
                    }
                    Err(error) if is_invalid(&error) || Instant::now() + pause >= deadline => return Err(error),
                    Err(error) => tracing::info!(%error, "cannot connect to the store yet, retrying"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        futures::stream::iter(opened)
            .buffer_unordered(CONCURRENT_HANDSHAKES)
            .try_collect::<()>()
            .await
            .map_err(|error| self.dialer.failed(error))
    }
}

/// The right to use one connection of the pool. It does not borrow the pool, so that a query can run in a separate task.
///
/// ```text
/// loop {
///     let result = query.fetch_all(pooled.connection().await?).await;
///     if let Some(rows) = pooled.read(result)? { return Ok(rows) }   // None: retry on a new connection
/// }
/// ```
#[derive(Debug)]
pub(crate) struct PooledConnection {
    permit: Permit<Slot>,
    /// Set between `connection` and `read` or `write`. After a cancellation in between, the connection is closed by being dropped: part of a
    /// response may still arrive on it.
    busy: Option<BusyConnection>,
    is_retry: bool,
    deadline: Option<Instant>,
    dialer: Arc<Dialer>,
    _used: GaugeGuard,
}

#[derive(Debug)]
struct BusyConnection {
    connection: MySqlConnection,
    /// Opened for an earlier query. The server may have closed it since: a test before each query would cost one more command.
    was_idle: bool,
    since: Instant,
}

impl PooledConnection {
    /// The connection, opened now if the slot is empty. Call `read` or `write` with the query's result afterwards.
    pub(crate) async fn connection(&mut self) -> Result<&mut MySqlConnection, StoreError> {
        let usable = self.permit.take().filter(|idle| !self.dialer.is_suspect(idle.answered_at));
        let (connection, was_idle) = match usable {
            Some(idle) => (idle.connection, true),
            None => {
                let connection = self.dialer.connect().await?;
                if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    // Too late for this request. The next one uses the connection.
                    *self.permit = Some(IdleConnection::new(connection));
                    return Err(self.dialer.failed(timed_out()));
                }
                (connection, false)
            }
        };
        self.dialer.metrics.commands.queries.inc();
        Ok(&mut self.busy.insert(BusyConnection { connection, was_idle, since: Instant::now() }).connection)
    }

    /// The result of an idempotent read. `None`, at most once: the idle connection was broken; retry the read on a new one.
    pub(crate) fn read<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<Option<T>, StoreError> {
        let was_idle = self.give_back(&result);
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if was_idle && !self.is_retry && is_broken(&error) => {
                tracing::debug!(%error, "connection broken, retrying the read on a new one");
                self.dialer.metrics.commands.retries.inc();
                self.is_retry = true;
                Ok(None)
            }
            Err(error) => Err(self.dialer.failed(error)),
        }
    }

    /// The result of a statement that must not be retried automatically.
    pub(crate) fn write<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        self.give_back(&result);
        result.map_err(|error| self.dialer.failed(error))
    }

    /// Returns the connection to its slot, unless it is broken or its state is unknown. True: it was an idle one.
    fn give_back<T>(&mut self, result: &Result<T, sqlx::Error>) -> bool {
        let Some(busy) = self.busy.take() else { return false };
        let now = Instant::now();
        self.dialer.metrics.commands.seconds.observe(now.saturating_duration_since(busy.since).as_secs_f64());
        match result {
            Err(error) if is_broken(error) => {
                if is_timed_out(error) {
                    self.dialer.note_silence(busy.since);
                }
            }
            _ => *self.permit = Some(IdleConnection { connection: busy.connection, answered_at: now }),
        }
        busy.was_idle
    }

    /// The timeout of a command on this connection. A request that has exceeded its deadline by `GRACE` closes its connection: the next
    /// request on it would wait for the old response first.
    pub(crate) fn command_timeout(&self) -> CommandTimeout {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        CommandTimeout::new(self.dialer.session_timeout, left)
    }

    /// The statement timeout that the query must carry. `None`: the session's timeout is close enough.
    pub(crate) fn statement_timeout(&self) -> Option<StatementTimeout> {
        let left = self.deadline?.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let session = self.dialer.session_timeout;
        if session != Duration::ZERO && left > session / 2 { None } else { self.dialer.statement_timeout(left) }
    }

    /// Counts reads whose caller left before they ended.
    pub(crate) fn abandoned_reads(&self) -> IntCounter {
        self.dialer.metrics.commands.abandoned_reads.clone()
    }

    /// See `Dialer::unlimited_select`.
    pub(crate) fn unlimited_select(&self) -> &'static str {
        self.dialer.unlimited_select()
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        // Before the permit is returned: its next holder decrements the gauge.
        if self.permit.is_some() {
            self.dialer.metrics.idle.inc();
        }
    }
}

/// A request that waits for a connection to this shard's server. Its wait is counted when this is dropped.
pub(crate) struct PendingCheckout<'a> {
    metrics: &'a ShardMetrics,
    since: Instant,
}
impl<'a> PendingCheckout<'a> {
    pub(crate) fn new(metrics: &'a ShardMetrics) -> Self {
        metrics.checkouts.inc();
        metrics.pending.inc();
        Self { metrics, since: Instant::now() }
    }
}
impl Drop for PendingCheckout<'_> {
    fn drop(&mut self) {
        self.metrics.pending.dec();
        self.metrics.wait_seconds.inc_by(self.since.elapsed().as_secs_f64());
    }
}

/// Increments a gauge until it is dropped.
#[derive(Debug)]
struct GaugeGuard(prometheus::IntGauge);
impl GaugeGuard {
    fn new(gauge: &prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}
impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
