//! The client's timeout for the response to one command.
//!
//! A running server aborts a statement at its own limit (`store.statement_timeout_ms`, or the query's limit), and the connection stays
//! intact. A server whose host has vanished sends nothing, not even a reset. Without a timeout of the client a command would occupy its
//! connection until TCP gives up after many minutes, or for ever if it only reads.

use std::time::Duration;

use tokio::time::timeout;

use crate::error::timed_out;

/// Added to the server's limit, so that its error can arrive, also from a busy machine.
pub(crate) const GRACE: Duration = Duration::from_millis(1_500);
/// For a command without a limit in the server, such as the import of a whole shard.
const LONGEST: Duration = Duration::from_secs(600);

/// For commands to which the server's statement timeout does not apply.
pub(crate) const WITHOUT_SERVER_LIMIT: CommandTimeout = CommandTimeout(LONGEST);
/// Between two rows of a result that may take any time.
pub(crate) const BETWEEN_ROWS: CommandTimeout = CommandTimeout(Duration::from_secs(30));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommandTimeout(Duration);

impl CommandTimeout {
    /// `statement`: the server's limit, zero for none. `left`: the time until the caller's deadline.
    pub(crate) fn new(statement: Duration, left: Option<Duration>) -> Self {
        let statement = if statement == Duration::ZERO { LONGEST } else { statement };
        Self(left.map_or(statement, |left| left.min(statement)) + GRACE)
    }

    /// Of a packet with this number of long statements.
    pub(crate) fn times(self, statements: u32) -> Self {
        Self(self.0 * statements)
    }

    /// Runs the command. After the timeout the error is `timed_out`, and the connection must be closed.
    pub(crate) async fn run<T>(self, command: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        timeout(self.0, command).await.unwrap_or_else(|_elapsed| Err(timed_out()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::is_timed_out;

    #[test]
    fn every_command_has_a_timeout() {
        let s = Duration::from_secs;
        assert_eq!(CommandTimeout::new(s(3), None), CommandTimeout(s(3) + GRACE));
        assert_eq!(CommandTimeout::new(s(3), Some(s(1))), CommandTimeout(s(1) + GRACE));
        assert_eq!(CommandTimeout::new(s(3), Some(s(9))), CommandTimeout(s(3) + GRACE));
        assert_eq!(CommandTimeout::new(Duration::ZERO, None), CommandTimeout(LONGEST + GRACE));
        assert_eq!(CommandTimeout::new(Duration::ZERO, Some(s(1))), CommandTimeout(s(1) + GRACE));
        assert_eq!(CommandTimeout::new(s(3), None).times(5), CommandTimeout((s(3) + GRACE) * 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_without_a_response_times_out() {
        let error = CommandTimeout::new(Duration::from_secs(3), None)
            .run(std::future::pending::<Result<(), _>>())
            .await
            .unwrap_err();
        assert!(is_timed_out(&error));
    }
}
