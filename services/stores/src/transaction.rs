//! The end of a transaction. sqlx only buffers the ROLLBACK of one that is dropped, until the connection's next command: back in its
//! slot the connection would idle with the locks of all rows that it wrote.

use sqlx::{MySql, Transaction};

use crate::{limit::Limit, pool::is_broken};

/// Commits after a success, and rolls back at once after an error. Where the outcome of either is in doubt the error says
/// `is_broken`, so that the connection is closed, on which the server rolls back.
pub(crate) async fn finish<T>(
    transaction: Transaction<'_, MySql>,
    result: Result<T, sqlx::Error>,
    limit: Limit,
) -> Result<T, sqlx::Error> {
    match result {
        Ok(value) => limit.of(transaction.commit()).await.map(|()| value).map_err(|error| in_doubt("COMMIT", error)),
        Err(error) if is_broken(&error) => Err(error),
        Err(error) => match limit.of(transaction.rollback()).await {
            Ok(()) => Err(error),
            Err(failed) => {
                tracing::warn!(%error, rollback = %failed, "the rollback of a failed transaction failed, connection closed");
                Err(in_doubt("ROLLBACK", failed))
            }
        },
    }
}

fn in_doubt(command: &str, error: sqlx::Error) -> sqlx::Error {
    if is_broken(&error) { error } else { sqlx::Error::Protocol(format!("{command} failed: {error}")) }
}
