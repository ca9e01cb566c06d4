//! Transactions that are one packet, and the end of those that are not.
//!
//! A packet goes from BEGIN to COMMIT. The server runs it without its client, so that a process that is stopped in between holds no locks.
//! After an error, the process rolls back; if it is stopped before, the server ends the session after `IDLE_LIMIT_S`.
//!
//! When a transaction of several packets is dropped, sqlx delays its ROLLBACK until the next command on the connection. An idle connection
//! would keep the locks of all rows that it wrote.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, Executor, MySql, MySqlConnection, Transaction, mysql::MySqlRow};

use crate::{command_timeout::CommandTimeout, error::is_broken};

/// A session in the middle of a transaction ends if its client sends nothing for this time.
const IDLE_LIMIT_S: u32 = 5;
/// The longest wait for the lock of a row: a packet whose client has given up must not wait on.
const LOCK_LIMIT_S: u32 = 3;
pub(crate) const RESET_LIMITS: &str = "SET SESSION wait_timeout = DEFAULT, innodb_lock_wait_timeout = DEFAULT";

/// The begin of a packet.
pub(crate) fn begin(sql: &mut String) {
    let _ =
        write!(sql, "SET SESSION wait_timeout = {IDLE_LIMIT_S}, innodb_lock_wait_timeout = {LOCK_LIMIT_S}; BEGIN; ");
}

/// The end of a packet. `then`: a statement after the COMMIT, with its semicolon.
pub(crate) fn commit(sql: &mut String, then: &str) {
    let _ = write!(sql, "COMMIT; {then}{RESET_LIMITS}");
}

/// Runs a packet, and rolls back if a statement failed. Returns the rows of all SELECTs.
pub(crate) async fn run_packet(
    connection: &mut MySqlConnection,
    sql: String,
    timeout: CommandTimeout,
) -> Result<Vec<MySqlRow>, sqlx::Error> {
    let result = timeout.run(connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql)))).await;
    if let Err(error) = &result {
        roll_back(connection, error, timeout).await?;
    }
    result
}

/// Ends the transaction of a packet that failed. An error closes the connection.
async fn roll_back(
    connection: &mut MySqlConnection,
    error: &sqlx::Error,
    timeout: CommandTimeout,
) -> Result<(), sqlx::Error> {
    if is_broken(error) {
        return Ok(());
    }
    let rollback = format!("ROLLBACK; {RESET_LIMITS}");
    match timeout.run(connection.execute(sqlx::raw_sql(AssertSqlSafe(rollback)))).await {
        Ok(_) => Ok(()),
        Err(failed) => {
            tracing::warn!(%error, rollback = %failed, "the rollback of a failed transaction failed, closing the connection");
            Err(as_broken("ROLLBACK", failed))
        }
    }
}

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
