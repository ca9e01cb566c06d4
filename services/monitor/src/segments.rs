//! The care of segments' copies, to be read from top to bottom. A worker's report arrives at `server`; `care` holds what is known; the task
//! below plans after each change, and polls that wait get the orders.
//!
//! ```text
//! report → server → care (reports, announced versions) → segments::plan (pure) → running orders → polls → workers
//!                        ↘ how far copies are → control loop: the heir of a dead primary
//! ```

mod bodies;
mod care;
mod metrics;
mod polls;
mod refusals;
mod repairs;
mod running;
mod server;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use heartbeat::{Nanos, assign::NodeId, clock::Clock, transport::assignments::Assignments};
use runtime::telemetry::Telemetry;
use segments::rpc::{Order, ReadReport};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::{
    care::{Care, Planned, Refused},
    polls::Polls,
    refusals::Refusals,
    running::{Ended, Outcome, REPEAT_AFTER},
};
pub use self::{metrics::SegmentMetrics, server::router};
use crate::{input::Input, status::SegmentStatus};

/// Orders are repeated, and given up, at most this late.
const TICK: Duration = Duration::from_nanos(REPEAT_AFTER / 2);

/// What the task and the requests share. Cheap to clone.
#[derive(Clone)]
pub struct Segments(Arc<Shared>);

struct Shared {
    care: Mutex<Care>,
    polls: Polls,
    refusals: Refusals,
    /// Something was reported: the task plans.
    reported: Notify,
    clock: Clock,
    metrics: SegmentMetrics,
}

impl Segments {
    /// `report_every`: the workers' interval.
    pub fn new(report_every: Nanos, clock: Clock, telemetry: Telemetry, metrics: SegmentMetrics) -> Self {
        let care = Mutex::new(Care::new(report_every, telemetry));
        let (polls, refusals) = (Polls::default(), Refusals::default());
        Self(Arc::new(Shared { care, polls, refusals, reported: Notify::new(), clock, metrics }))
    }

    /// Plans after each change, until `stop`.
    pub async fn run(
        self,
        mut assignments: watch::Receiver<Arc<Assignments>>,
        mut leads: watch::Receiver<bool>,
        inbox: mpsc::Sender<Input>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut caught_up = BTreeMap::new();
        loop {
            let is_open = tokio::select! {
                () = stop.cancelled() => false,
                () = self.0.reported.notified() => true,
                changed = assignments.changed() => changed.is_ok(),
                changed = leads.changed() => changed.is_ok(),
                _ = ticks.tick() => true,
            };
            if !is_open {
                return;
            }
            let (latest, is_leading) = (Arc::clone(&assignments.borrow_and_update()), *leads.borrow_and_update());
            self.step(latest, is_leading);
            let now_caught_up = self.care().caught_up();
            // If the queue is full, the next tick tries again.
            if now_caught_up != caught_up && inbox.try_send(Input::Copies(now_caught_up.clone())).is_ok() {
                caught_up = now_caught_up;
            }
        }
    }

    fn step(&self, assignments: Arc<Assignments>, leads: bool) {
        let now = self.0.clock.now();
        let mut care = self.care();
        care.follow(now, assignments, leads);
        let planned = care.plan(now);
        let due: Vec<NodeId> = care.due(now).cloned().collect();
        self.0.metrics.under_replicated.set(care.under_replicated_seconds(now));
        drop(care);
        self.record(&planned);
        self.0.polls.wake(&due);
    }

    fn record(&self, planned: &Planned) {
        for (segment, health) in &planned.health {
            self.0.metrics.set_copies(*segment, health);
        }
        self.record_ends(&planned.ended);
        for (worker, order) in &planned.started {
            tracing::debug!(order = order.id, segment = %order.segment, %worker, step = ?order.step, "an order begins");
        }
        for segment in &planned.conflicts {
            self.0.metrics.conflicts.inc();
            tracing::error!(%segment, "two copies of one version have different contents: the primary's counts");
        }
    }

    fn record_ends(&self, ended: &[Ended]) {
        for end in ended {
            self.0.metrics.ended(end);
            let (id, segment, worker, kind) = (end.order.id, end.order.segment, &end.worker, end.kind().as_str());
            match &end.outcome {
                Outcome::Done { bytes } => {
                    tracing::info!(order = id, %segment, %worker, kind, blocks = end.blocks(), bytes, "an order was carried out");
                }
                Outcome::Failed(error) => tracing::warn!(order = id, %segment, %worker, kind, error, "an order failed"),
                Outcome::TimedOut => tracing::warn!(order = id, %segment, %worker, kind, "an order took too long"),
                Outcome::Offline => {
                    tracing::info!(order = id, %segment, %worker, kind, "the worker of an order is gone")
                }
            }
        }
    }

    fn report(&self, report: ReadReport) -> Result<(), Refused> {
        let ended = self.care().report(self.0.clock.now(), report)?;
        self.record_ends(&ended);
        self.0.reported.notify_one();
        Ok(())
    }

    /// Waits for orders. `None`: a newer poll has replaced this one.
    async fn orders(&self, worker: &NodeId, incarnation: u64, wait: Duration) -> Result<Option<Vec<Order>>, Refused> {
        let until = Instant::now() + wait;
        // A process that gave way to another one of its name must not end that one's polls.
        self.care().check_online(worker, incarnation)?;
        let poll = self.0.polls.begin(worker);
        loop {
            if poll.is_replaced() {
                return Ok(None);
            }
            let orders = self.care().hand_out(self.0.clock.now(), worker, incarnation)?;
            if !orders.is_empty() || Instant::now() >= until {
                return Ok(Some(orders));
            }
            timeout_at(until, poll.woken()).await.ok();
        }
    }

    /// For `GET /status`.
    pub fn status(&self) -> Vec<SegmentStatus> {
        self.care().status(self.0.clock.now())
    }

    fn care(&self) -> MutexGuard<'_, Care> {
        // A panic is a bug; what is known stays, and the next report replaces it.
        self.0.care.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "segments_tests.rs"]
mod tests;
