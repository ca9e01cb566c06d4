//! Orders that workers carry out.

use std::collections::BTreeMap;

use heartbeat::{Nanos, assign::NodeId};
use segments::{
    BLOCK_BYTES, Plan, Rebuild, Transfer,
    rpc::{Finished, Order, OrderId, Step},
};

const SECOND: Nanos = 1_000_000_000;
/// An order without a report of its end is given up after this time; a transfer after the time of its blocks too.
const MAX_TIME: Nanos = 60 * SECOND;
/// A rebuild reads all logs from their start: minutes with many users.
const MAX_REBUILD_TIME: Nanos = 600 * SECOND;
/// The slowest transfer that is not given up, in bytes/s.
const MIN_RATE: u64 = 64 << 10;
/// An order that was handed out is handed out to a later poll too after this time, since the reply may have been lost.
pub const REPEAT_AFTER: Nanos = SECOND;

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

    /// Forgets all orders but the rebuilds that a worker may have begun. A monitor that leads again must not order them a second time.
    pub fn keep_rebuilds(&mut self) {
        let is_rebuild = |order: &Order| matches!(order.step, Step::Rebuild { .. });
        self.0.retain(|_, running| is_rebuild(&running.order) && running.handed_out.is_some());
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
            (now >= running.since + running.max_time()).then_some(Outcome::TimedOut)
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
    fn max_time(&self) -> Nanos {
        match &self.order.step {
            Step::Transfer { blocks, .. } => MAX_TIME + (blocks.len() * BLOCK_BYTES) as u64 * SECOND / MIN_RATE,
            Step::Rebuild { .. } => MAX_REBUILD_TIME,
            Step::Remove => MAX_TIME,
        }
    }

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

    const S: Nanos = SECOND;

    fn started() -> RunningOrders {
        let mut orders = RunningOrders::default();
        let order = |id, step| Order { id, segment: SegmentId::all().next().unwrap(), step, traceparent: None };
        orders.start(0, "a".into(), order(1, Step::Remove));
        let version = segments::Version { epoch: 1, vector: contract::VersionVector::default() };
        let (content, from, address) = (segments::Digest::of(b""), "b".into(), "b:1".to_owned());
        let transfer = Step::Transfer { version, content, from, address, manifest: true, blocks: vec![3; 32] };
        orders.start(0, "a".into(), order(2, transfer));
        orders.start(0, "c".into(), order(3, Step::Rebuild { version }));
        orders
    }

    #[test]
    fn an_order_is_handed_out_again_until_its_worker_says_that_it_has_ended() {
        let mut orders = started();
        orders.hand_out(0, "c");
        let ids = |orders: Vec<Order>| orders.iter().map(|order| order.id).collect::<Vec<_>>();
        assert_eq!((ids(orders.hand_out(0, "a")), ids(orders.hand_out(0, "b"))), (vec![1, 2], vec![]));
        assert_eq!((ids(orders.hand_out(1, "a")), orders.due(1).count()), (vec![], 0));
        assert_eq!(ids(orders.hand_out(REPEAT_AFTER, "a")), [1, 2], "the reply may be lost");
        let finished = Finished { order: 1, ..Finished::default() };
        assert_eq!(orders.finish("b", &finished), None, "another worker's order");
        let ended = orders.finish("a", &finished).unwrap();
        assert_eq!((ended.kind(), ended.outcome.clone()), (Kind::Drop, Outcome::Done { bytes: 0 }));
        assert_eq!(orders.finish("a", &finished), None);
        assert_eq!(orders.as_plan().transfers[0].blocks, [3; 32]);
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
        let timed_out = |orders: &mut RunningOrders, now| -> Vec<Kind> {
            let ended = orders.give_up(now, |_| true);
            assert!(ended.iter().all(|end| end.outcome == Outcome::TimedOut), "{ended:?}");
            ended.iter().map(Ended::kind).collect()
        };
        assert_eq!(timed_out(&mut orders, 60 * S), [Kind::Drop]);
        assert_eq!(timed_out(&mut orders, 600 * S - 1), []);
        assert_eq!(timed_out(&mut orders, 600 * S), [Kind::Rebuild]);
        assert_eq!(orders.as_plan(), Plan::default());
        // 32 blocks at 64 KiB/s: two seconds.
        let mut orders = started();
        assert_eq!(timed_out(&mut orders, 62 * S - 1), [Kind::Drop]);
        assert_eq!(timed_out(&mut orders, 62 * S), [Kind::Transfer]);
    }

    #[test]
    fn only_rebuilds_that_were_handed_out_are_kept() {
        let mut orders = started();
        ["a", "c"].iter().for_each(|worker| drop(orders.hand_out(0, worker)));
        orders.keep_rebuilds();
        let kept = orders.as_plan();
        assert_eq!((kept.rebuilds.len(), kept.transfers.len(), kept.drops.len()), (1, 0, 0));
        let mut orders = started();
        orders.keep_rebuilds();
        assert_eq!(orders.as_plan(), Plan::default());
    }
}
