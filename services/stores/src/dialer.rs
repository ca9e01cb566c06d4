//! Opens connections to one MySQL server: a few at a time, and none while the server is known to be down.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, MySqlConnection,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{
    breaker::Breaker,
    config::{Address, Flavour, StoreConfig},
    error::{StoreError, is_statement_timeout, timed_out},
    metrics::PoolMetrics,
};

/// While the server is down, one attempt is made per this time. So all requests reach it again within this time after it is back.
const BACK_OFF: Duration = Duration::from_millis(250);

/// Concurrent handshakes of one process with one server. A server with hundreds of them, as after a restart, completes them late or never.
pub(crate) const CONCURRENT_HANDSHAKES: usize = 8;

#[derive(Debug)]
pub(crate) struct Dialer {
    options: MySqlConnectOptions,
    pub(crate) connect_timeout: Duration,
    handshakes: Semaphore,
    breaker: Breaker,
    /// The time at which the last command without a response was sent.
    silent_since: Mutex<Option<Instant>>,
    flavour: AtomicU8,
    /// The statement timeout of each session; zero: none.
    pub(crate) session_timeout: Duration,
    pub(crate) metrics: PoolMetrics,
}

/// The time limit of a statement, for the SQL of each kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatementTimeout {
    Mariadb { ms: u64 },
    Mysql { ms: u64 },
}

impl StatementTimeout {
    fn for_session(self) -> String {
        match self {
            // In seconds.
            Self::Mariadb { ms } => format!("SET SESSION max_statement_time={}.{:03}", ms / 1000, ms % 1000),
            Self::Mysql { ms } => format!("SET SESSION max_execution_time={ms}"),
        }
    }
}

impl Dialer {
    pub(crate) fn new(config: &StoreConfig, address: &str, metrics: PoolMetrics) -> Option<Self> {
        Some(Self {
            options: connect_options(config, address)?,
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            handshakes: Semaphore::new(CONCURRENT_HANDSHAKES),
            // One connection attempt that times out is sufficient evidence.
            breaker: Breaker::new("mysql", BACK_OFF, 1),
            silent_since: Mutex::new(None),
            flavour: AtomicU8::new(config.flavour as u8),
            session_timeout: Duration::from_millis(config.statement_timeout_ms),
            metrics,
        })
    }

    /// A new connection for a request. Waits up to `connect_timeout` for a permit, and again to connect, independent of the request's
    /// deadline: an attempt that is cut short tells nothing about a server that does not respond, and requests with little time left would
    /// try such a server for ever.
    ///
    /// # Errors
    /// `Down` at once while the server is known to be down, otherwise `Unavailable`.
    pub(crate) async fn connect(&self) -> Result<MySqlConnection, StoreError> {
        let _handshake = if self.breaker.is_closed() {
            let Ok(Ok(handshake)) = timeout(self.connect_timeout, self.handshakes.acquire()).await else {
                return Err(self.failed(timed_out()));
            };
            Some(handshake)
        } else {
            None
        };
        // Re-checks the breaker: it may have opened while this request waited for its permit.
        let Some(attempt) = self.breaker.admit(Instant::now()) else {
            self.metrics.commands.down.inc();
            return Err(StoreError::Down);
        };
        match self.open(self.connect_timeout).await {
            Ok(connection) => {
                attempt.succeeded();
                Ok(connection)
            }
            Err(error) => {
                attempt.failed(Instant::now());
                Err(self.failed(error))
            }
        }
    }

    /// Records that a command sent at `since` got no response. The host may have vanished, and with it all connections without a later
    /// response.
    pub(crate) fn note_silence(&self, since: Instant) {
        let mut last = self.silent_since();
        *last = (*last).max(Some(since));
    }

    /// Whether a connection whose last response came at `answered_at` must not be used (see `note_silence`): a request on it would wait
    /// until its timeout.
    pub(crate) fn is_suspect(&self, answered_at: Instant) -> bool {
        self.silent_since().is_some_and(|since| answered_at <= since)
    }

    fn silent_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One attempt to connect, without the breaker.
    pub(crate) async fn open(&self, limit: Duration) -> Result<MySqlConnection, sqlx::Error> {
        self.metrics.commands.connects.inc();
        let opened = async {
            let mut connection = self.options.connect().await?;
            self.detect_flavour(&mut connection).await;
            // Once per connection: in every query the text would add a tenth to the time of a miss.
            if let Some(statement_timeout) = self.statement_timeout(self.session_timeout) {
                sqlx::raw_sql(AssertSqlSafe(statement_timeout.for_session())).execute(&mut connection).await?;
            }
            Ok(connection)
        };
        timeout(limit, opened).await.unwrap_or_else(|_elapsed| Err(timed_out()))
    }

    /// `None` if the time is zero or the kind of server is unknown.
    pub(crate) fn statement_timeout(&self, time: Duration) -> Option<StatementTimeout> {
        let ms = time.as_millis() as u64;
        match self.flavour() {
            _ if time == Duration::ZERO => None,
            // Both kinds take zero for "no limit".
            Flavour::Mariadb => Some(StatementTimeout::Mariadb { ms: ms.max(1) }),
            Flavour::Mysql => Some(StatementTimeout::Mysql { ms: ms.max(1) }),
            Flavour::Detect | Flavour::None => None,
        }
    }

    /// The start of a SELECT without a time limit, independent of the session's timeout.
    pub(crate) fn unlimited_select(&self) -> &'static str {
        match self.flavour() {
            Flavour::Mariadb => "SET STATEMENT max_statement_time=0 FOR SELECT ",
            Flavour::Mysql => "SELECT /*+ MAX_EXECUTION_TIME(0) */ ",
            Flavour::Detect | Flavour::None => "SELECT ",
        }
    }

    fn flavour(&self) -> Flavour {
        let value = self.flavour.load(Ordering::Relaxed);
        let all = [Flavour::Detect, Flavour::Mariadb, Flavour::Mysql, Flavour::None];
        all.into_iter().find(|flavour| *flavour as u8 == value).unwrap_or(Flavour::None)
    }

    /// Asks once per server. After a failure the next connection tries again; until then statements have no time limit.
    async fn detect_flavour(&self, connection: &mut MySqlConnection) {
        if self.flavour() != Flavour::Detect {
            return;
        }
        match sqlx::query_scalar::<_, String>("SELECT VERSION()").fetch_one(connection).await {
            Ok(version) => {
                let flavour = if version.contains("MariaDB") { Flavour::Mariadb } else { Flavour::Mysql };
                self.flavour.store(flavour as u8, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the version of the store: its statements have no time limit")
            }
        }
    }

    pub(crate) fn failed(&self, error: sqlx::Error) -> StoreError {
        if is_statement_timeout(&error) {
            self.metrics.commands.statement_timeouts.inc();
            return StoreError::StatementTimeout;
        }
        let error = StoreError::from(error);
        match &error {
            StoreError::Invalid(_) => self.metrics.commands.invalid.inc(),
            _ => self.metrics.commands.unavailable.inc(),
        }
        error
    }
}

pub(crate) fn connect_options(config: &StoreConfig, address: &str) -> Option<MySqlConnectOptions> {
    let options = match Address::parse(address)? {
        Address::Tcp { host, port } => MySqlConnectOptions::new().host(host).port(port),
        Address::Unix { path } => MySqlConnectOptions::new().socket(path),
    };
    let options = options
        .username(&config.user)
        // The network is loopback or private, and faultproxy cannot read an encrypted stream.
        .ssl_mode(MySqlSslMode::Disabled)
        .statement_cache_capacity(128)
        .disable_statement_logging();
    Some(if config.password.is_empty() { options } else { options.password(&config.password) })
}
