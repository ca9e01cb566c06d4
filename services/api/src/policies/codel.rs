//! A fixed limit with controlled delay (CoDel) and newest first: as long as the queue was empty within the last 100 ms, a request may wait
//! 100 ms. In a queue that stands longer, each may wait only 5 ms, and the newest is admitted first.
//!
//! After Maurer, "Fail at Scale" (ACM Queue 13(8), 2015), whose values these are; CoDel: Nichols and Jacobson, ACM Queue 10(5), 2012.

use std::time::Duration;

use tokio::time::Instant;

use super::policy::{Ended, Policy, PolicyKind, QueueOrder};

pub const KIND: PolicyKind = PolicyKind {
    name: "codel",
    order: QueueOrder::Newest,
    start: |settings, _now| Box::new(CoDel { limit: settings.max_limit }),
};

/// A queue that empties within this time only levels a burst.
const INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait in a queue that does not empty.
const TARGET: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct CoDel {
    limit: usize,
}

impl Policy for CoDel {
    fn limit(&self) -> usize {
        self.limit
    }

    fn observe(&mut self, _now: Instant, _ended: Ended) {}

    fn max_wait(&self, standing: Duration) -> Duration {
        if standing > INTERVAL { TARGET } else { INTERVAL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_become_short_when_the_queue_stands() {
        let codel = CoDel { limit: 8 };
        assert_eq!(codel.limit(), 8);
        assert_eq!(codel.max_wait(Duration::ZERO), INTERVAL);
        assert_eq!(codel.max_wait(INTERVAL), INTERVAL);
        assert_eq!(codel.max_wait(INTERVAL + Duration::from_millis(1)), TARGET);
    }
}
