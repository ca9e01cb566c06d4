//! The figures of a run.

/// One second of the run, from the begin of the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Second {
    /// Requests that arrived.
    pub requests: u64,
    /// Of these, requests that were sent: all but those that adaptive throttling refused.
    pub first_tries: u64,
    /// Further tries of the same requests.
    pub retries: u64,
    /// Requests that succeeded within their deadline: the goodput.
    pub good: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Queries that ended.
    pub queries: u64,
    /// Of these, queries whose client had given up.
    pub zombies: u64,
}
