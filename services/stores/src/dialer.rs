//! Opens connections to one MySQL server: a few at a time, and not at all while the server is known to be down.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, MySqlConnection,
    mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlSslMode},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{
    breaker::Breaker,
    config::{Address, Flavour, StoreConfig},
    limit::timed_out,
    metrics::PoolMetrics,
    pool::{OPENED_AT_ONCE, StoreError},
};

/// While the server is down, one attempt per this time is made; it is back for everybody within one of it.
const BACK_OFF: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Dialer {
    options: MySqlConnectOptions,
    pub(crate) connect_timeout: Duration,
    /// Hundreds of handshakes at once, as after a restart, are answered late or never.
    turns: Semaphore,
    breaker: Breaker,
    /// When the last command was sent that nobody answered.
    silent_since: Mutex<Option<Instant>>,
    flavour: AtomicU8,
    /// Zero: none.
    pub(crate) statement_timeout: Duration,
    pub(crate) metrics: PoolMetrics,
}

/// The time a statement has, in the words of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatementLimit {
    Mariadb { ms: u64 },
    Mysql { ms: u64 },
}

impl StatementLimit {
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
            turns: Semaphore::new(OPENED_AT_ONCE),
            // A connection that cannot be made in its whole time-out is reason enough.
            breaker: Breaker::new("mysql", BACK_OFF, 1),
            silent_since: Mutex::new(None),
            flavour: AtomicU8::new(config.flavour as u8),
            statement_timeout: Duration::from_millis(config.statement_timeout_ms),
            metrics,
        })
    }

    /// A new connection for a request. Takes `connect_timeout` for a turn and as long again to connect, whatever time the request has
    /// left: an attempt that is cut short would say nothing about a server that swallows it, and requests with little time would try
    /// such a server for ever.
    ///
    /// # Errors
    /// `Down` at once while connecting is known to fail; else `Unavailable`.
    pub(crate) async fn connect(&self) -> Result<MySqlConnection, StoreError> {
        let _turn = if self.breaker.is_closed() {
            let Ok(Ok(turn)) = timeout(self.connect_timeout, self.turns.acquire()).await else {
                return Err(self.failed(timed_out()));
            };
            Some(turn)
        } else {
            None
        };
        // Asked for again by those who waited for their turn behind one that failed.
        let Some(pass) = self.breaker.admit(Instant::now()) else {
            self.metrics.commands.down.inc();
            return Err(StoreError::Down);
        };
        match self.open(self.connect_timeout).await {
            Ok(connection) => {
                pass.ok();
                Ok(connection)
            }
            Err(error) => {
                pass.failed(Instant::now());
                Err(self.failed(error))
            }
        }
    }

    /// A command sent then was not answered at all: the host may be gone, and every connection to it that has not answered since.
    pub(crate) fn silent(&self, since: Instant) {
        let mut last = self.silent_since();
        *last = (*last).max(Some(since));
    }

    /// A connection whose last answer came then is not to be used: see `silent`. Each of them would keep a request waiting to its end.
    pub(crate) fn is_suspect(&self, answered: Instant) -> bool {
        self.silent_since().is_some_and(|since| answered <= since)
    }

    fn silent_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One attempt, whatever the breaker says: for a start, which has patience of its own.
    pub(crate) async fn open(&self, patience: Duration) -> Result<MySqlConnection, sqlx::Error> {
        self.metrics.commands.connects.inc();
        let opened = async {
            let mut connection = self.options.connect().await?;
            self.learn_flavour(&mut connection).await;
            // Once for the connection: with every query the words would cost a tenth of a miss.
            if let Some(limit) = self.limit(self.statement_timeout) {
                sqlx::raw_sql(AssertSqlSafe(limit.for_session())).execute(&mut connection).await?;
            }
            Ok(connection)
        };
        timeout(patience, opened).await.unwrap_or_else(|_elapsed| Err(timed_out()))
    }

    /// This time in the words of the server; `None` for zero, and where the server is not known.
    pub(crate) fn limit(&self, time: Duration) -> Option<StatementLimit> {
        let ms = time.as_millis() as u64;
        match self.flavour() {
            _ if time == Duration::ZERO => None,
            // Zero would mean "no limit" to both.
            Flavour::Mariadb => Some(StatementLimit::Mariadb { ms: ms.max(1) }),
            Flavour::Mysql => Some(StatementLimit::Mysql { ms: ms.max(1) }),
            Flavour::Detect | Flavour::None => None,
        }
    }

    /// How a SELECT begins that may take as long as it takes, whatever the session says.
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

    /// Once for a server; a failure leaves it undetected, that is without limit, until the next start.
    async fn learn_flavour(&self, connection: &mut MySqlConnection) {
        if self.flavour() != Flavour::Detect {
            return;
        }
        match sqlx::query_scalar::<_, String>("SELECT VERSION()").fetch_one(connection).await {
            Ok(version) => {
                let flavour = if version.contains("MariaDB") { Flavour::Mariadb } else { Flavour::Mysql };
                self.flavour.store(flavour as u8, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(%error, "the store does not tell its version: queries have no time limit"),
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

/// MariaDB 1969, MySQL 3024.
fn is_statement_timeout(error: &sqlx::Error) -> bool {
    let database = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    database.is_some_and(|error| matches!(error.number(), 1969 | 3024))
}

pub(crate) fn connect_options(config: &StoreConfig, address: &str) -> Option<MySqlConnectOptions> {
    let options = match Address::parse(address)? {
        Address::Tcp { host, port } => MySqlConnectOptions::new().host(host).port(port),
        Address::Unix { path } => MySqlConnectOptions::new().socket(path),
    };
    let options = options
        .username(&config.user)
        // Loopback or a private network; faultproxy could not follow an encrypted stream.
        .ssl_mode(MySqlSslMode::Disabled)
        .statement_cache_capacity(128)
        .disable_statement_logging();
    Some(if config.password.is_empty() { options } else { options.password(&config.password) })
}
