//! What a policy is.

use std::{fmt::Debug, time::Duration};

pub use stores::QueueOrder;
use tokio::time::Instant;

/// A policy by name.
#[derive(Debug)]
pub struct PolicyKind {
    /// The value of `http.admission`.
    pub name: &'static str,
    /// Which of the waiting requests of one criticality is admitted next.
    pub order: QueueOrder,
    pub start: fn(&Settings, Instant) -> Box<dyn Policy>,
}

/// Settings of the replica that policies use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `http.admission_limit`: the highest limit, at least 1.
    pub max_limit: usize,
    /// `http.admission_target_ms`.
    pub target: Duration,
    /// `http.admission_wait_ms`.
    pub wait: Duration,
}

/// Decides how many requests are in flight at a time, and how long others wait. Pure: `now` is an argument. The caller admits.
pub trait Policy: Debug + Send {
    /// Most requests in flight now, from 1 to `Settings::max_limit`.
    fn limit(&self) -> usize;

    /// A request has ended. The caller reads `limit` afterwards. It must not panic: the request's place would be lost.
    fn observe(&mut self, now: Instant, ended: Ended);

    /// Longest wait of a request that begins to wait now. `standing`: how long the queue has had a request in it all the time; 0 if this one is
    /// the first.
    fn max_wait(&self, standing: Duration) -> Duration;
}

/// An admitted request that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// From admission to the end.
    pub duration: Duration,
    pub outcome: Outcome,
    /// Requests in flight at the end, this one included.
    pub in_flight: usize,
}

/// How an admitted request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    /// The store did not serve it in time, or the client left before the answer.
    Overloaded,
    /// It failed for another reason, perhaps at once: its duration says nothing about the load.
    Failed,
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const SETTINGS: Settings =
        Settings { max_limit: 100, target: Duration::from_millis(100), wait: Duration::from_millis(50) };
}
