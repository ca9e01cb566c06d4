use std::collections::BTreeMap;

use crate::{
    Nanos,
    assign::{Eligibility, NodeId},
    registry::Snapshot,
};

/// Restarts within the window from which a worker is in a crash loop.
const MANY_RESTARTS: usize = 3;
/// Length of the window, in units of `Settings::rebalance_after`.
const WINDOW: u64 = 4;
/// Each further strike doubles the time without partitions, up to 2^4 times.
const MOST_DOUBLINGS: u32 = 4;

/// How steadily workers run. A worker in a crash loop, or one that did not serve its partitions, loses them, and gets no others until it has
/// been steady for a time that doubles with every relapse. After a failure nothing is moved for balance for a while.
#[derive(Debug, Default)]
pub(super) struct Steadiness {
    nodes: BTreeMap<NodeId, Record>,
    /// The latest failure of any worker.
    failed_at: Option<Nanos>,
}

#[derive(Debug, Default)]
struct Record {
    /// Ends of incarnations that were not announced, at most `MANY_RESTARTS` of them, oldest first.
    restarts: Vec<Nanos>,
    strikes: u32,
    struck_at: Nanos,
    unsteady_until: Nanos,
    /// Until then it loses its partitions. Afterwards it keeps those that no other worker could have: it has served them meanwhile.
    loses_until: Nanos,
    /// Until then it gets no new partitions.
    keeps_until: Nanos,
}

impl Steadiness {
    /// The registry has changed.
    pub(super) fn learn(&mut self, now: Nanos, before: &Snapshot, after: &Snapshot, rebalance_after: Nanos) {
        if before.revision == 0 {
            return;
        }
        self.nodes.retain(|id, _| after.nodes.contains_key(id));
        for (id, node) in &after.nodes {
            let is_restart = before.nodes.get(id).is_some_and(|known| {
                known.incarnation < node.incarnation && !known.leaving && before.table.nodes.contains_key(id)
            });
            let was_failed = before.table.is_online(id) && !after.table.is_online(id) && !node.leaving;
            // A worker that flaps costs no moves: balance waits from its return on.
            let is_back = before.table.nodes.get(id).is_some_and(|known| !known.online) && after.table.is_online(id);
            if was_failed || is_back {
                self.failed_at = Some(now);
            }
            if is_restart {
                self.restarted(now, id, rebalance_after);
            }
        }
    }

    fn restarted(&mut self, now: Nanos, id: &NodeId, rebalance_after: Nanos) {
        let record = self.nodes.entry(id.clone()).or_default();
        record.restarts.retain(|at| now.saturating_sub(*at) < rebalance_after.saturating_mul(WINDOW));
        record.restarts.push(now);
        if record.restarts.len() >= MANY_RESTARTS {
            record.restarts.remove(0);
            record.strike(now, rebalance_after);
        }
    }

    /// The worker beats, but did not serve its partitions. Called for as long as it does not.
    pub(super) fn not_serving(&mut self, now: Nanos, id: &NodeId, rebalance_after: Nanos) {
        let record = self.nodes.entry(id.clone()).or_default();
        if now < record.unsteady_until {
            // The same spell: the time counts from its end.
            record.unsteady_until = record.unsteady_until.max(now + rebalance_after);
            record.loses_until = now + rebalance_after;
        } else {
            record.strike(now, rebalance_after);
        }
        self.failed_at = Some(now);
    }

    /// The worker beats, but did not serve a partition: it keeps the others, and gets no new ones for a while.
    pub(super) fn did_not_serve(&mut self, now: Nanos, id: &NodeId, rebalance_after: Nanos) {
        self.nodes.entry(id.clone()).or_default().keeps_until = now + 2 * rebalance_after;
        self.failed_at = Some(now);
    }

    pub(super) fn eligibility(&self, now: Nanos, id: &str) -> Eligibility {
        let Some(record) = self.nodes.get(id) else { return Eligibility::Full };
        if now < record.loses_until {
            return Eligibility::Loses;
        }
        if now < record.unsteady_until.max(record.keeps_until) { Eligibility::Keeps } else { Eligibility::Full }
    }

    /// When partitions may be moved for balance again.
    pub(super) fn rebalance_at(&self, rebalance_after: Nanos) -> Nanos {
        self.failed_at.map_or(0, |at| at + rebalance_after)
    }
}

impl Record {
    fn strike(&mut self, now: Nanos, rebalance_after: Nanos) {
        let longest = rebalance_after.saturating_mul(1 << MOST_DOUBLINGS);
        if now.saturating_sub(self.struck_at) > 2 * longest {
            self.strikes = 0;
        }
        self.unsteady_until = now + (rebalance_after << self.strikes.min(MOST_DOUBLINGS)).min(longest);
        self.loses_until = now + rebalance_after;
        self.strikes += 1;
        self.struck_at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        assign::{Membership, Table},
        registry::Registration,
    };

    const AFTER: Nanos = 30;

    fn snapshot(revision: u64, incarnation: u64, online: bool) -> Snapshot {
        let (http, udp) = (String::new(), String::new());
        let node = Registration { id: "w".into(), incarnation, process: 0, http, udp, leaving: false };
        let nodes = [("w".into(), Membership { incarnation, process: 0, online })].into();
        let table = Arc::new(Table { nodes, ..Table::default() });
        Snapshot { revision, nodes: [("w".into(), node)].into(), table, ..Snapshot::default() }
    }

    #[test]
    fn three_restarts_in_a_row_cost_the_partitions_and_relapses_cost_them_longer() {
        let mut steadiness = Steadiness::default();
        let mut before = snapshot(1, 1, true);
        let mut restart = |steadiness: &mut Steadiness, now| {
            let after = snapshot(before.revision + 1, before.nodes["w"].incarnation + 1, true);
            steadiness.learn(now, &before, &after, AFTER);
            before = after;
            steadiness.eligibility(now, "w")
        };
        assert_eq!([10, 20].map(|now| restart(&mut steadiness, now)), [Eligibility::Full; 2]);
        assert_eq!(restart(&mut steadiness, 30), Eligibility::Loses);
        assert_eq!([59, 60].map(|now| steadiness.eligibility(now, "w")), [Eligibility::Loses, Eligibility::Full]);
        assert_eq!(restart(&mut steadiness, 65), Eligibility::Loses);
        let probation = [94, 95, 124, 125].map(|now| steadiness.eligibility(now, "w"));
        assert_eq!(probation, [Eligibility::Loses, Eligibility::Keeps, Eligibility::Keeps, Eligibility::Full]);
        assert_eq!([1_000, 2_000].map(|now| restart(&mut steadiness, now)), [Eligibility::Full; 2], "once in a while");
    }

    #[test]
    fn after_a_failure_nothing_is_moved_for_balance_and_a_worker_that_does_not_serve_is_not_steady() {
        let mut steadiness = Steadiness::default();
        assert_eq!(steadiness.rebalance_at(AFTER), 0);
        steadiness.learn(100, &snapshot(1, 1, true), &snapshot(2, 1, false), AFTER);
        assert_eq!(steadiness.rebalance_at(AFTER), 130);
        for now in 200..220 {
            steadiness.not_serving(now, &"w".into(), AFTER);
        }
        assert_eq!([248, 249].map(|now| steadiness.eligibility(now, "w")), [Eligibility::Loses, Eligibility::Full]);
        steadiness.did_not_serve(300, &"w".into(), AFTER);
        assert_eq!([359, 360].map(|now| steadiness.eligibility(now, "w")), [Eligibility::Keeps, Eligibility::Full]);
        assert_eq!(steadiness.rebalance_at(AFTER), 330);
    }
}
