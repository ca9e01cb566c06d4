//! How long a client waits for the answer to one command.
//!
//! A server that is alive gives a statement up by itself (`store.statement_timeout_ms`, or what the query said), with the connection
//! intact. One that has vanished, its host with it, says nothing at all, not even that it is gone: without a limit of the client's
//! own a command would hold its connection until TCP gives up, after many minutes, or for ever if it only reads.

use std::{io, time::Duration};

use tokio::time::timeout;

/// After the server's own limit: its verdict needs time to arrive, also from a busy machine.
pub(crate) const GRACE: Duration = Duration::from_millis(1_500);
/// Of a command for which the server has no limit, such as an import's of a whole shard.
const LONGEST: Duration = Duration::from_secs(600);

/// Of a command that the server gives up by itself never, or after a time that it was told in other words.
pub(crate) const UNLIMITED_BY_SERVER: Limit = Limit(LONGEST);
/// Between two rows of an answer that may take as long as it takes.
pub(crate) const BETWEEN_ROWS: Limit = Limit(Duration::from_secs(30));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(Duration);

impl Limit {
    /// `statement`: the server's limit, zero for none. `left`: what the caller has left, after which nobody wants the answer.
    pub(crate) fn new(statement: Duration, left: Option<Duration>) -> Self {
        let statement = if statement == Duration::ZERO { LONGEST } else { statement };
        Self(left.map_or(statement, |left| left.min(statement)) + GRACE)
    }

    /// The command's result. Beyond the limit an error that says `is_silence`: the connection is of no use any more.
    pub(crate) async fn of<T>(self, command: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        timeout(self.0, command).await.unwrap_or_else(|_elapsed| Err(timed_out()))
    }
}

pub(crate) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(io::ErrorKind::TimedOut.into())
}

/// Nothing came from the server: by a limit of ours, or by TCP's.
pub(crate) fn is_silence(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_waits_without_limit() {
        let s = Duration::from_secs;
        assert_eq!(Limit::new(s(3), None), Limit(s(3) + GRACE));
        assert_eq!(Limit::new(s(3), Some(s(1))), Limit(s(1) + GRACE));
        assert_eq!(Limit::new(s(3), Some(s(9))), Limit(s(3) + GRACE));
        assert_eq!(Limit::new(Duration::ZERO, None), Limit(LONGEST + GRACE));
        assert_eq!(Limit::new(Duration::ZERO, Some(s(1))), Limit(s(1) + GRACE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_without_an_answer_ends() {
        let error =
            Limit::new(Duration::from_secs(3), None).of(std::future::pending::<Result<(), _>>()).await.unwrap_err();
        assert!(is_silence(&error));
    }
}
