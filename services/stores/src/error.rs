//! Errors of the store, and what they mean for the connection.

use std::{io, time::Duration};

use sqlx::mysql::MySqlDatabaseError;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The pool is exhausted; the article calls it "database connection pool exhausted".
    #[error("no connection to the store came free within {0:?}")]
    CheckoutTimeout(Duration),
    #[error("the queue for connections to the store is full ({0} requests wait)")]
    QueueFull(usize),
    /// Not tried, because connecting failed a moment ago.
    #[error("the store is down")]
    Down,
    /// The server aborted the query at its time limit. The connection is intact.
    #[error("the store did not answer the query within its time limit")]
    StatementTimeout,
    /// Connecting or the query failed, also on the retry where one is allowed.
    #[error("the store is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The configuration is invalid, a row cannot be decoded, or the query's task panicked. A retry would fail again.
    #[error("the store's configuration or data is not valid")]
    Invalid(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    /// For errors that are not statement timeouts.
    fn from(error: sqlx::Error) -> Self {
        if is_invalid(&error) { Self::Invalid(error) } else { Self::Unavailable(error) }
    }
}

impl StoreError {
    /// The value of the span attribute `error.type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CheckoutTimeout(_) => "checkout_timeout",
            Self::QueueFull(_) => "line_full",
            Self::Down => "down",
            Self::StatementTimeout => "statement_timeout",
            Self::Unavailable(_) => "unavailable",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// Neither the server nor the connection caused the error.
pub(crate) fn is_invalid(error: &sqlx::Error) -> bool {
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

/// The connection is broken, or its state is unknown.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        // A statement that the server refused leaves the connection intact, unless the session ends: 1053 shutdown, 1152/1184 aborted,
        // 1927 killed, 4031 idle too long.
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<MySqlDatabaseError>()
            .is_some_and(|error| matches!(error.number(), 1053 | 1152 | 1184 | 1927 | 4031)),
        // With an invalid error the connection is intact, or was dropped by the task that panicked.
        error => !is_invalid(error),
    }
}

/// The server aborted the statement at its time limit: MariaDB 1969, MySQL 3024.
pub(crate) fn is_statement_timeout(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| matches!(error.number(), 1969 | 3024))
}

pub(crate) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(io::ErrorKind::TimedOut.into())
}

/// The server did not answer, within our timeout or TCP's.
pub(crate) fn is_timed_out(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}
