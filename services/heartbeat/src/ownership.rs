//! The partitions that a worker owns: it serves fenced ones, redirects requests for others, and refuses old epochs. Pure. The store's fence
//! guarantees this; here it is fast and explained.

use std::{collections::BTreeMap, sync::Arc};

use crate::assign::{Assignment, MAX_EPOCH_JUMP, NodeId, PARTITIONS, Table};

/// Of a partition that the table assigns to this worker.
///
/// ```text
/// TakingOver ── the store has the fence ──→ Serving ── the store does not answer ──→ TakingOver
/// TakingOver, Serving ── the store has a later epoch, or another owner of this epoch ──→ Overruled
/// any ── a table with a later epoch of the partition ──→ TakingOver
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The store has not set the fence yet.
    TakingOver,
    Serving,
    /// The store refused the epoch.
    Overruled,
}

/// The store must refuse writes of earlier epochs to this partition from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub partition: usize,
    pub epoch: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There are 16 partitions.
    NoSuchPartition,
    /// Another worker's; `None` without a primary.
    NotMine { primary: Option<NodeId>, epoch: u64 },
    /// This worker's, but the store has not set the fence yet.
    TakingOver { epoch: u64 },
    /// The writer has an older table.
    OldEpoch { epoch: u64 },
}

#[derive(Debug)]
pub struct Ownership {
    me: NodeId,
    table: Arc<Table>,
    owned: BTreeMap<usize, (u64, Phase)>,
    overruled_by: u64,
}

/// Whether a table follows the known one: its epoch is later, and all its epochs are plausible. Epochs decide also between two histories:
/// a new history begins above every epoch that a worker reported.
pub fn is_next(known: &Table, next: &Table) -> bool {
    let is_later = next.epoch > known.epoch && next.epoch - known.epoch <= MAX_EPOCH_JUMP;
    is_later && next.partitions.len() == PARTITIONS && next.partitions.iter().all(|a| a.epoch <= next.epoch)
}

impl Ownership {
    pub fn new(me: NodeId) -> Self {
        Self { me, table: Arc::default(), owned: BTreeMap::new(), overruled_by: 0 }
    }

    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Accepts a later table. Returns the fences to set before the new partitions are served. Any other table is ignored: see `is_next`.
    /// Partitions of another process with this name are not this worker's, and one with a successor is not served any more.
    pub fn learn(&mut self, table: Arc<Table>, incarnation: u64, process: u64) -> Vec<Fence> {
        if !is_next(&self.table, &table) {
            return Vec::new();
        }
        let mut owned = BTreeMap::new();
        let mut fences = Vec::new();
        let is_admitted = table.is_admitted(&self.me, incarnation, process);
        let is_mine = |a: &Assignment| a.primary.as_ref() == Some(&self.me) && a.successor.is_none();
        let mine = |(_, a): &(usize, &Assignment)| is_admitted && is_mine(a);
        let mine = table.partitions.iter().enumerate().filter(mine);
        for (partition, assignment) in mine {
            let epoch = assignment.epoch;
            let now = match self.owned.get(&partition) {
                Some(&(known, phase)) if known == epoch => phase,
                _ => Phase::TakingOver,
            };
            if now == Phase::TakingOver {
                fences.push(Fence { partition, epoch });
            }
            owned.insert(partition, (epoch, now));
        }
        (self.table, self.owned) = (table, owned);
        fences
    }

    /// The store has set the fence.
    pub fn fenced(&mut self, fence: Fence) {
        self.change(fence, Phase::TakingOver, Phase::Serving);
    }

    /// The store does not answer: requests are refused until the fence is set again.
    pub fn resign(&mut self, fence: Fence) {
        self.change(fence, Phase::Serving, Phase::TakingOver);
    }

    /// The store refused this epoch because it has the epoch `by`, a later one or the same of another owner. The partition is not served
    /// until a table has a later epoch for it.
    pub fn overruled(&mut self, fence: Fence, by: u64) {
        self.overruled_by = self.overruled_by.max(by);
        self.change(fence, Phase::TakingOver, Phase::Overruled);
        self.change(fence, Phase::Serving, Phase::Overruled);
    }

    /// The latest epoch by which the store refused one of this worker; 0: never.
    pub fn overruled_by(&self) -> u64 {
        self.overruled_by
    }

    fn change(&mut self, fence: Fence, from: Phase, to: Phase) {
        if let Some((epoch, phase)) = self.owned.get_mut(&fence.partition)
            && (*epoch, *phase) == (fence.epoch, from)
        {
            *phase = to;
        }
    }

    /// The epoch for a request to this partition, or why it is refused. `claimed`: the epoch that the client knows, if any.
    ///
    /// # Errors
    /// See `Refusal`.
    pub fn admit(&self, partition: usize, claimed: Option<u64>) -> Result<u64, Refusal> {
        let assignment = self.table.partitions.get(partition).ok_or(Refusal::NoSuchPartition)?;
        let Some((epoch, phase)) = self.owned(partition).filter(|(_, phase)| *phase != Phase::Overruled) else {
            let next = assignment.successor.as_ref().or(assignment.primary.as_ref());
            let primary = next.filter(|next| **next != self.me).cloned();
            return Err(Refusal::NotMine { primary, epoch: assignment.epoch });
        };
        if claimed.is_some_and(|claimed| claimed < epoch) {
            return Err(Refusal::OldEpoch { epoch });
        }
        if phase == Phase::Serving { Ok(epoch) } else { Err(Refusal::TakingOver { epoch }) }
    }

    /// Epoch and phase of a partition that the table assigns to this worker.
    pub fn owned(&self, partition: usize) -> Option<(u64, Phase)> {
        self.owned.get(&partition).copied()
    }

    /// Partitions in this phase, with their epochs.
    pub fn in_phase(&self, phase: Phase) -> impl Iterator<Item = (usize, u64)> {
        self.owned.iter().filter(move |(_, owned)| owned.1 == phase).map(|(at, (epoch, _))| (*at, *epoch))
    }

    /// Partitions served now, with their epochs.
    pub fn serving(&self) -> impl Iterator<Item = (usize, u64)> {
        self.in_phase(Phase::Serving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assign::Membership;

    /// Epochs and primaries of partitions 0, 1, …; all workers are in incarnation 1 of process 7.
    fn table(epoch: u64, owners: &[(u64, &str)]) -> Arc<Table> {
        let membership = Membership { incarnation: 1, process: 7, online: true };
        let nodes = owners.iter().map(|(_, owner)| ((*owner).into(), membership)).collect();
        let mut table = Table { epoch, nodes, ..Table::default() };
        for (assignment, (epoch, owner)) in table.partitions.iter_mut().zip(owners) {
            (assignment.epoch, assignment.primary) = (*epoch, Some((*owner).into()));
        }
        table.into()
    }

    #[test]
    fn a_partition_is_served_once_its_fence_is_up_and_sent_on_once_it_is_anothers() {
        let mut a = Ownership::new("a".into());
        let not_mine = |primary: &str, epoch| Err(Refusal::NotMine { primary: Some(primary.into()), epoch });
        assert_eq!(a.admit(0, None), Err(Refusal::NotMine { primary: None, epoch: 0 }));
        let fences = a.learn(table(1, &[(1, "a"), (1, "b")]), 1, 7);
        assert_eq!(fences, [Fence { partition: 0, epoch: 1 }]);
        assert_eq!((a.admit(0, None), a.admit(1, None)), (Err(Refusal::TakingOver { epoch: 1 }), not_mine("b", 1)));
        a.fenced(fences[0]);
        assert_eq!((a.admit(0, Some(1)), a.admit(0, Some(0))), (Ok(1), Err(Refusal::OldEpoch { epoch: 1 })));
        assert_eq!(a.learn(table(2, &[(1, "a"), (2, "a")]), 1, 7), [Fence { partition: 1, epoch: 2 }]);
        assert_eq!(a.admit(0, None), Ok(1), "what goes on being its own is served on");
        a.learn(table(3, &[(3, "b"), (2, "a")]), 1, 7);
        assert_eq!((a.admit(0, None), a.admit(16, None)), (not_mine("b", 3), Err(Refusal::NoSuchPartition)));
    }

    #[test]
    fn an_old_table_or_an_old_fence_changes_nothing_and_the_store_has_the_last_word() {
        let mut a = Ownership::new("a".into());
        a.learn(table(5, &[(5, "a")]), 1, 7);
        assert_eq!(a.learn(table(4, &[(4, "b")]), 1, 7), []);
        let fence = |epoch| Fence { partition: 0, epoch };
        a.fenced(fence(4));
        assert_eq!(a.admit(0, None), Err(Refusal::TakingOver { epoch: 5 }));
        a.fenced(fence(5));
        a.overruled(fence(4), 5);
        assert_eq!(a.admit(0, None), Ok(5));
        a.overruled(fence(5), 8);
        let refused = |epoch| Err(Refusal::NotMine { primary: None, epoch });
        assert_eq!((a.admit(0, None), a.overruled_by()), (refused(5), 8));
        a.fenced(fence(5));
        assert_eq!(a.learn(table(6, &[(5, "a"), (6, "a")]), 1, 7), [Fence { partition: 1, epoch: 6 }]);
        assert_eq!(a.admit(0, None), refused(5), "the table does not know of the store's epoch yet");
        assert_eq!(a.learn(table(9, &[(9, "a")]), 1, 7), [fence(9)]);
    }

    #[test]
    fn a_partition_with_a_successor_is_given_up_and_taken_back_if_the_move_is_dropped() {
        let mut a = Ownership::new("a".into());
        for fence in a.learn(table(1, &[(1, "a"), (1, "a")]), 1, 7) {
            a.fenced(fence);
        }
        let mut moving = Table::clone(&table(2, &[(1, "a"), (1, "a")]));
        moving.partitions[1].successor = Some("b".into());
        assert_eq!(a.learn(moving.into(), 1, 7), []);
        assert_eq!(a.serving().collect::<Vec<_>>(), [(0, 1)]);
        assert_eq!(a.admit(1, None), Err(Refusal::NotMine { primary: Some("b".into()), epoch: 1 }));
        assert_eq!(a.learn(table(3, &[(1, "a"), (1, "a")]), 1, 7), [Fence { partition: 1, epoch: 1 }]);
    }

    #[test]
    fn a_partition_whose_store_is_silent_is_refused_until_its_fence_is_set_again() {
        let mut a = Ownership::new("a".into());
        a.learn(table(1, &[(1, "a"), (1, "a")]), 1, 7);
        let fence = Fence { partition: 0, epoch: 1 };
        a.resign(fence);
        a.fenced(fence);
        assert_eq!(a.admit(0, None), Ok(1));
        a.resign(Fence { partition: 0, epoch: 0 });
        assert_eq!(a.admit(0, None), Ok(1), "of another epoch");
        a.resign(fence);
        assert_eq!(a.admit(0, None), Err(Refusal::TakingOver { epoch: 1 }));
        a.fenced(fence);
        assert_eq!(a.serving().collect::<Vec<_>>(), [(0, 1)]);
    }

    #[test]
    fn tables_with_impossible_epochs_are_not_followed() {
        let mut a = Ownership::new("a".into());
        assert_eq!(a.learn(table(u64::MAX, &[(u64::MAX, "a")]), 1, 7), []);
        assert_eq!(a.learn(table(1, &[(MAX_EPOCH_JUMP, "a")]), 1, 7), [], "a partition's epoch above the table's");
        assert_eq!(a.learn(table(3, &[(3, "a")]), 1, 7).len(), 1);
        assert_eq!(a.learn(table(4 + MAX_EPOCH_JUMP, &[(4, "a")]), 1, 7), []);
        assert_eq!(a.learn(table(3 + MAX_EPOCH_JUMP, &[(4, "a")]), 1, 7).len(), 1);
        let mut short = Table::clone(a.table());
        short.epoch += 1;
        short.partitions.pop();
        assert!(!is_next(a.table(), &short));
    }

    #[test]
    fn what_another_process_of_the_name_got_is_not_its_own() {
        let (mut former, mut later) = (Ownership::new("a".into()), Ownership::new("a".into()));
        assert_eq!(later.learn(table(1, &[(1, "a")]), 2, 8), [], "the table does not know this incarnation yet");
        let mut clone = Ownership::new("a".into());
        assert_eq!(clone.learn(table(1, &[(1, "a")]), 1, 9), [], "another process with the same incarnation");
        for fence in former.learn(table(1, &[(1, "a")]), 1, 7) {
            former.fenced(fence);
        }
        assert_eq!(former.admit(0, None), Ok(1));
        let mut confirmed = Table::clone(&table(2, &[(2, "a")]));
        confirmed.nodes.insert("a".into(), Membership { incarnation: 2, process: 8, online: true });
        let confirmed = Arc::new(confirmed);
        assert_eq!(former.learn(Arc::clone(&confirmed), 1, 7), []);
        assert_eq!(former.admit(0, None), Err(Refusal::NotMine { primary: None, epoch: 2 }));
        assert_eq!(later.learn(confirmed, 2, 8), [Fence { partition: 0, epoch: 2 }]);
    }
}
