//! Orders that workers carry out.

use std::collections::BTreeMap;

use heartbeat::{Nanos, assign::NodeId};
use segments::{
    Plan, Rebuild, Transfer,
    rpc::{Finished, Order, OrderId, Step},
};

/// An order without a report of its end is given up.
const MAX_TIME: Nanos = 60_000_000_000;
/// An order that was handed out is handed out to a later poll too after this time, since the reply may have been lost.
pub const REPEAT_AFTER: Nanos = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Transfer,
    Rebuild,
    Drop,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Transfer, Self::Rebuild, Self::Drop];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Rebuild => "rebuild",
            Self::Drop => "drop",
        }
    }
}

/// An order that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub order: Order,
    /// The worker that acts.
    pub worker: NodeId,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done {
        /// Received.
        bytes: u64,
    },
    /// With the worker's reason.
    Failed(String),
    TimedOut,
    /// One of its workers is offline.
    Offline,
}

impl Ended {
    pub fn kind(&self) -> Kind {
        match self.order.step {
            Step::Transfer { .. } => Kind::Transfer,
            Step::Rebuild { .. } => Kind::Rebuild,
            Step::Remove => Kind::Drop,
        }
    }

    /// Blocks that were to be copied.
    pub fn blocks(&self) -> usize {
        match &self.order.step {
            Step::Transfer { blocks, .. } => blocks.len(),
            Step::Rebuild { .. } | Step::Remove => 0,
        }
    }

    /// Source and receiver, as `segments::FailedPairs` names them.
    pub fn pair(&self) -> (NodeId, NodeId) {
        let source = match &self.order.step {
            Step::Transfer { from, .. } => from,
            Step::Rebuild { .. } | Step::Remove => &self.worker,
        };
        (source.clone(), self.worker.clone())
    }
}

#[derive(Debug)]
struct Running {
    order: Order,
    worker: NodeId,
    since: Nanos,
    handed_out: Option<Nanos>,
}

/// A plan bounds their number: see `segments::MAX_TRANSFERS`.
#[derive(Debug, Default)]
pub struct RunningOrders(BTreeMap<OrderId, Running>);

impl RunningOrders {
    pub fn start(&mut self, now: Nanos, worker: NodeId, order: Order) {
        self.0.insert(order.id, Running { order, worker, since: now, handed_out: None });
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// For the next plan.
    pub fn as_plan(&self) -> Plan {
        let mut plan = Plan::default();
        for Running { order, worker, .. } in self.0.values() {
            let (segment, worker) = (order.segment, worker.clone());
            match order.step.clone() {
                Step::Transfer { version, content, from, manifest, blocks, .. } => {
                    plan.transfers.push(Transfer { segment, version, content, from, to: worker, manifest, blocks });
                }
                Step::Rebuild { version } => plan.rebuilds.push(Rebuild { segment, version, worker }),
                Step::Remove => plan.drops.push((segment, worker)),
            }
        }
        plan
    }

    /// The worker says that an order has ended. `None`: it is not an order of this worker, or it has ended before.
    pub fn finish(&mut self, worker: &str, finished: &Finished) -> Option<Ended> {
        self.0.get(&finished.order).filter(|running| *running.worker == *worker)?;
        let outcome = match finished.error.is_empty() {
            true => Outcome::Done { bytes: finished.bytes },
            false => Outcome::Failed(finished.error.clone()),
        };
        self.0.remove(&finished.order).map(|running| ended(running, outcome))
    }

    /// Gives up orders that took too long, and those of workers that are not online.
    pub fn give_up(&mut self, now: Nanos, is_online: impl Fn(&NodeId) -> bool) -> Vec<Ended> {
        let why = |running: &Running| {
            let source = match &running.order.step {
                Step::Transfer { from, .. } => Some(from),
                Step::Rebuild { .. } | Step::Remove => None,
            };
            if !source.into_iter().chain([&running.worker]).all(&is_online) {
                return Some(Outcome::Offline);
            }
            (now >= running.since + MAX_TIME).then_some(Outcome::TimedOut)
        };
        let given_up: Vec<_> = self.0.iter().filter_map(|(id, running)| Some((*id, why(running)?))).collect();
        let remove = |(id, outcome): (OrderId, Outcome)| Some(ended(self.0.remove(&id)?, outcome));
        given_up.into_iter().filter_map(remove).collect()
    }

    /// Workers with orders that their polls should get now.
    pub fn due(&self, now: Nanos) -> impl Iterator<Item = &NodeId> {
        self.0.values().filter(move |running| running.is_due(now)).map(|running| &running.worker)
    }

    /// Orders for a poll of the worker.
    pub fn hand_out(&mut self, now: Nanos, worker: &str) -> Vec<Order> {
        let of_worker = self.0.values_mut().filter(|running| *running.worker == *worker && running.is_due(now));
        let hand_out = |running: &mut Running| {
            running.handed_out = Some(now);
            running.order.clone()
        };
        of_worker.map(hand_out).collect()
    }
}

impl Running {
    fn is_due(&self, now: Nanos) -> bool {
        self.handed_out.is_none_or(|at| now >= at + REPEAT_AFTER)
    }
}

fn ended(running: Running, outcome: Outcome) -> Ended {
    Ended { order: running.order, worker: running.worker, outcome }
}

#[cfg(test)]
mod tests {
    use contract::SegmentId;

    use super::*;

    const S: Nanos = 1_000_000_000;

    fn started() -> RunningOrders {
        let mut orders = RunningOrders::default();
        let order = |id, step| Order { id, segment: SegmentId::all().next().unwrap(), step, traceparent: None };
        orders.start(0, "a".into(), order(1, Step::Remove));
        let version = segments::Version { epoch: 1, vector: contract::VersionVector::default() };
        let (content, from, address) = (segments::Digest::of(b""), "b".into(), "b:1".to_owned());
        let transfer = Step::Transfer { version, content, from, address, manifest: true, blocks: vec![3] };
        orders.start(0, "a".into(), order(2, transfer));
        orders
    }

    #[test]
    fn an_order_is_handed_out_again_until_its_worker_says_that_it_has_ended() {
        let mut orders = started();
        let ids = |orders: Vec<Order>| orders.iter().map(|order| order.id).collect::<Vec<_>>();
        assert_eq!((ids(orders.hand_out(0, "a")), ids(orders.hand_out(0, "b"))), (vec![1, 2], vec![]));
        assert_eq!((ids(orders.hand_out(1, "a")), orders.due(1).count()), (vec![], 0));
        assert_eq!(ids(orders.hand_out(REPEAT_AFTER, "a")), [1, 2], "the reply may be lost");
        let finished = Finished { order: 1, ..Finished::default() };
        assert_eq!(orders.finish("b", &finished), None, "another worker's order");
        let ended = orders.finish("a", &finished).unwrap();
        assert_eq!((ended.kind(), ended.outcome.clone()), (Kind::Drop, Outcome::Done { bytes: 0 }));
        assert_eq!(orders.finish("a", &finished), None);
        assert_eq!(orders.as_plan().transfers[0].blocks, [3]);
        let failed = Finished { order: 2, error: "no".into(), bytes: 7 };
        let ended = orders.finish("a", &failed).unwrap();
        assert_eq!((ended.pair(), ended.outcome), (("b".into(), "a".into()), Outcome::Failed("no".into())));
    }

    #[test]
    fn an_order_ends_with_one_of_its_workers_and_after_a_while() {
        let mut orders = started();
        assert!(orders.give_up(59 * S, |_| true).is_empty());
        let ended = orders.give_up(59 * S, |worker| &**worker != "b");
        assert_eq!((ended.len(), ended[0].order.id, &ended[0].outcome), (1, 2, &Outcome::Offline));
        assert_eq!(orders.give_up(60 * S, |_| true)[0].outcome, Outcome::TimedOut);
        assert_eq!(orders.as_plan(), Plan::default());
    }
}
