//! A policy of one's own: halves the limit after an overload, and adds one slot after as many answers as the limit has slots (as TCP Reno does).

use std::time::Duration;

use tokio::time::Instant;

use crate::policies::{Ended, Outcome, Policy, PolicyKind, QueueOrder, Settings};

pub const KIND: PolicyKind = PolicyKind {
    name: "reno",
    order: QueueOrder::Oldest,
    start: |settings, _now| Box::new(Reno { limit: settings.max_limit as f64, settings: *settings }),
};

#[derive(Debug)]
struct Reno {
    limit: f64,
    settings: Settings,
}

impl Policy for Reno {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn observe(&mut self, _now: Instant, ended: Ended) {
        match ended.outcome {
            Outcome::Overloaded => self.limit /= 2.0,
            // If the limit was not reached, an answer does not show that a higher limit is possible.
            Outcome::Answered if ended.in_flight as f64 >= 0.8 * self.limit => self.limit += 1.0 / self.limit,
            Outcome::Answered | Outcome::Failed => {}
        }
        self.limit = self.limit.clamp(1.0, self.settings.max_limit as f64);
    }

    fn max_wait(&self, _standing: Duration) -> Duration {
        self.settings.wait
    }
}
