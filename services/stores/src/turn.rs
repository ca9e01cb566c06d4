//! When a command gets a connection.

use contract::http::Criticality;
use tokio::time::Instant;

/// Whose turn it is when a connection comes free, and until when it is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn {
    /// The most critical command gets the next free connection.
    pub criticality: Criticality,
    /// Of the request that the command serves. `None`: it serves none, and waits for as long as `store.checkout_timeout_ms` permits.
    pub deadline: Option<Instant>,
}

impl Turn {
    /// A command that replaces hundreds of others, such as a read of many users for the warm-up: it is served next.
    pub const BATCH: Self = Self { criticality: Criticality::Critical, deadline: None };

    /// A command that others wait for.
    pub(crate) fn critical(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::BATCH }
    }

    /// Whether it may wait only briefly in a queue that stands (`store.standing_wait_ms`).
    pub(crate) fn waits_briefly(self) -> bool {
        self.deadline.is_some() && self.criticality != Criticality::Critical
    }
}

/// Of default criticality.
impl From<Option<Instant>> for Turn {
    fn from(deadline: Option<Instant>) -> Self {
        Self { deadline, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_answers_a_request_that_is_not_critical_may_be_refused_early() {
        let deadline = Some(Instant::now());
        let waits_briefly = Criticality::ALL.map(|criticality| Turn { criticality, deadline }.waits_briefly());
        assert_eq!(waits_briefly, [false, true, true]);
        for turn in [Turn::default(), Turn::BATCH, Turn::critical(Instant::now())] {
            assert!(!turn.waits_briefly(), "{turn:?}");
        }
    }
}
