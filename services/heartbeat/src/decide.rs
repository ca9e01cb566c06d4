//! The leader's decision: registry and votes → the next table, or none. Pure. The registry's transaction rejects a decision that is based
//! on old data.

use crate::{
    assign::{Conditions, LostTables, Membership, Table, plan, stamp},
    registry::{Registration, Snapshot},
};

/// The majority's view of a registered worker.
pub trait MajorityView {
    /// The majority has failed this incarnation.
    fn failed(&self, node: &str, incarnation: u64) -> bool;
    /// The majority hears this incarnation.
    fn fit(&self, node: &str, incarnation: u64) -> bool;
}

/// The next table; `None`: nothing changes.
pub fn next(
    snapshot: &Snapshot,
    votes: &impl MajorityView,
    conditions: &Conditions,
    lost: Option<LostTables>,
) -> Option<Table> {
    let (mut table, mut has_failure) = (Table::clone(&snapshot.table), false);
    for node in snapshot.nodes.values() {
        let membership = table.nodes.get(&node.id).copied();
        let was_online = membership.is_some_and(|membership| membership.online);
        let is_admitted = membership.is_some_and(|membership| membership.incarnation >= node.incarnation);
        let online = match was_online {
            true => !node.leaving && !votes.failed(&node.id, node.incarnation),
            // An incarnation that failed or left never returns. A later one does when the majority hears it.
            false => !node.leaving && !is_admitted && votes.fit(&node.id, node.incarnation),
        };
        let confirmed = was_online && !is_admitted && votes.fit(&node.id, node.incarnation);
        if online != was_online || confirmed {
            let Registration { incarnation, process, .. } = *node;
            table.nodes.insert(node.id.clone(), Membership { incarnation, process, online });
        }
        has_failure |= was_online && !online && !node.leaving;
    }
    // The name is gone: see `Request::Forget`.
    table.nodes.retain(|id, membership| membership.online || snapshot.nodes.contains_key(id));
    // A failure moves as few partitions as possible.
    let may_rebalance = conditions.may_rebalance && !has_failure;
    let partitions = plan(&table, &Conditions { may_rebalance, ..conditions.clone() });
    let is_changed = table.nodes != snapshot.table.nodes || partitions != snapshot.table.partitions;
    let next = || stamp(&snapshot.table, table.nodes, partitions, conditions, lost);
    (is_changed || lost.is_some() || !conditions.overruled.is_empty()).then(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assign::NodeId;
    use crate::registry::Registration;

    fn next(snapshot: &Snapshot, votes: &FakeVotes) -> Option<Table> {
        super::next(snapshot, votes, &Conditions::default(), None)
    }

    #[derive(Default)]
    struct FakeVotes {
        failed: Vec<(&'static str, u64)>,
        fit: Vec<(&'static str, u64)>,
    }

    impl MajorityView for FakeVotes {
        fn failed(&self, node: &str, incarnation: u64) -> bool {
            self.failed.contains(&(node, incarnation))
        }
        fn fit(&self, node: &str, incarnation: u64) -> bool {
            self.fit.contains(&(node, incarnation))
        }
    }

    fn snapshot(incarnations: &[(&str, u64)]) -> Snapshot {
        let node = |(id, incarnation): &(&str, u64)| {
            let (id, http, udp): (NodeId, _, _) = ((*id).into(), String::new(), String::new());
            (id.clone(), Registration { id, incarnation: *incarnation, process: 0, http, udp, leaving: false })
        };
        Snapshot { nodes: incarnations.iter().map(node).collect(), ..Snapshot::default() }
    }

    #[test]
    fn a_table_that_fails_a_worker_moves_nothing_for_balance() {
        let mut snapshot = snapshot(&[("a", 1), ("b", 1), ("c", 1)]);
        let all = FakeVotes { fit: vec![("a", 1), ("b", 1)], failed: vec![] };
        snapshot.table =
            super::next(&snapshot, &all, &Conditions { may_rebalance: false, ..Conditions::default() }, None)
                .unwrap()
                .into();
        // The third one comes, and has nothing yet.
        let third = FakeVotes { fit: vec![("c", 1)], failed: vec![] };
        let without = Conditions { may_rebalance: false, ..Conditions::default() };
        snapshot.table = super::next(&snapshot, &third, &without, None).unwrap().into();
        let planned = |table: &Table| table.partitions.iter().filter(|a| a.successor.is_some()).count();
        let failed = next(&snapshot, &FakeVotes { failed: vec![("b", 1)], fit: vec![] }).unwrap();
        assert_eq!(planned(&failed), 0);
        let balanced = next(&snapshot, &FakeVotes::default()).unwrap();
        assert!(planned(&balanced) > 0, "without a failure it is time for balance");
    }

    #[test]
    fn a_node_comes_in_when_the_majority_hears_it_and_goes_when_the_majority_has_failed_it() {
        let mut snapshot = snapshot(&[("a", 1), ("b", 1)]);
        assert_eq!(next(&snapshot, &FakeVotes::default()), None);
        let both = FakeVotes { fit: vec![("a", 1), ("b", 1)], failed: vec![] };
        snapshot.table = next(&snapshot, &both).unwrap().into();
        assert_eq!(next(&snapshot, &both), None, "what was done is not done again");
        let died = FakeVotes { failed: vec![("b", 1)], fit: vec![] };
        let table = next(&snapshot, &died).unwrap();
        assert!(table.is_failed("b", 1) && table.partitions.iter().all(|a| a.primary.as_deref() == Some("a")));
        snapshot.table = table.into();
        assert_eq!(next(&snapshot, &both), None, "a failed incarnation stays failed");
        snapshot.nodes.get_mut("b").unwrap().incarnation = 2;
        assert_eq!(next(&snapshot, &both), None, "no monitor has heard the new incarnation yet");
        let back = next(&snapshot, &FakeVotes { fit: vec![("b", 2)], failed: vec![] }).unwrap();
        assert!(back.is_online("b"));
    }

    #[test]
    fn a_restart_before_anybody_noticed_moves_nothing_and_shuts_the_former_process_out() {
        let mut snapshot = snapshot(&[("a", 1), ("b", 1)]);
        snapshot.table = next(&snapshot, &FakeVotes { fit: vec![("a", 1), ("b", 1)], failed: vec![] }).unwrap().into();
        snapshot.nodes.get_mut("b").unwrap().incarnation = 2;
        let late = FakeVotes { failed: vec![("b", 1)], fit: vec![] };
        assert_eq!(next(&snapshot, &late), None, "votes against the earlier incarnation do not count");
        let table = next(&snapshot, &FakeVotes { fit: vec![("b", 2)], failed: vec![] }).unwrap();
        assert_eq!((table.nodes["b"].incarnation, table.epoch), (2, 2));
        for (new, old) in table.partitions.iter().zip(&snapshot.table.partitions) {
            assert_eq!((&new.primary, &new.replicas), (&old.primary, &old.replicas));
            let is_bs = new.primary.as_deref() == Some("b");
            assert_eq!(new.epoch, if is_bs { 2 } else { 1 }, "the store lets nothing of b's former incarnation pass");
        }
    }

    #[test]
    fn who_leaves_goes_at_once() {
        let mut snapshot = snapshot(&[("a", 1), ("b", 1)]);
        snapshot.table = next(&snapshot, &FakeVotes { fit: vec![("a", 1), ("b", 1)], failed: vec![] }).unwrap().into();
        snapshot.nodes.get_mut("b").unwrap().leaving = true;
        let table = next(&snapshot, &FakeVotes::default()).unwrap();
        assert!(!table.is_online("b"));
        snapshot.table = table.into();
        assert_eq!(next(&snapshot, &FakeVotes::default()), None);
    }

    #[test]
    fn a_name_without_a_registration_leaves_the_table_only_when_it_is_offline() {
        let mut snapshot = snapshot(&[("a", 1), ("b", 1)]);
        snapshot.table = next(&snapshot, &FakeVotes { fit: vec![("a", 1), ("b", 1)], failed: vec![] }).unwrap().into();
        let forgotten = snapshot.nodes.remove("b").unwrap();
        assert_eq!(next(&snapshot, &FakeVotes::default()), None);
        snapshot.nodes.insert("b".into(), forgotten);
        snapshot.table = next(&snapshot, &FakeVotes { failed: vec![("b", 1)], fit: vec![] }).unwrap().into();
        assert!(snapshot.table.nodes.contains_key("b"));
        snapshot.nodes.remove("b");
        assert!(!next(&snapshot, &FakeVotes::default()).unwrap().nodes.contains_key("b"));
    }
}
