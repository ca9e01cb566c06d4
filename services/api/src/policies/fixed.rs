//! A fixed limit: `http.admission_limit`.

use std::time::Duration;

use tokio::time::Instant;

use super::policy::{Ended, Policy, PolicyKind, QueueOrder, Settings};

pub const KIND: PolicyKind =
    PolicyKind { name: "fixed", order: QueueOrder::Oldest, start: |settings, _now| Box::new(Fixed(*settings)) };

#[derive(Debug)]
struct Fixed(Settings);

impl Policy for Fixed {
    fn limit(&self) -> usize {
        self.0.max_limit
    }

    fn observe(&mut self, _now: Instant, _ended: Ended) {}

    fn max_wait(&self, _standing: Duration) -> Duration {
        self.0.wait
    }
}
