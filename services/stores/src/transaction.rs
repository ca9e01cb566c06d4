//! The end of a transaction. When a transaction is dropped, sqlx delays its ROLLBACK until the next command on the connection. An idle
//! connection would keep the locks of all rows that it wrote.

use sqlx::{MySql, Transaction};

use crate::{command_timeout::CommandTimeout, error::is_broken};

/// Commits after a success, and rolls back at once after an error. If either fails, the error is one for which `is_broken` is true: the
/// connection is closed, and the server rolls back.
pub(crate) async fn finish<T>(
    transaction: Transaction<'_, MySql>,
    result: Result<T, sqlx::Error>,
    timeout: CommandTimeout,
) -> Result<T, sqlx::Error> {
    match result {
        Ok(value) => {
            timeout.run(transaction.commit()).await.map(|()| value).map_err(|error| as_broken("COMMIT", error))
        }
        Err(error) if is_broken(&error) => Err(error),
        Err(error) => match timeout.run(transaction.rollback()).await {
            Ok(()) => Err(error),
            Err(failed) => {
                tracing::warn!(%error, rollback = %failed, "the rollback of a failed transaction failed, closing the connection");
                Err(as_broken("ROLLBACK", failed))
            }
        },
    }
}

fn as_broken(command: &str, error: sqlx::Error) -> sqlx::Error {
    if is_broken(&error) { error } else { sqlx::Error::Protocol(format!("{command} failed: {error}")) }
}
