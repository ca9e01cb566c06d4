//! The partitions that a worker owns: it serves fenced ones, redirects requests for others, and refuses old epochs. Pure. The store's fence
//! guarantees this; here it is fast and explained.

use std::{collections::BTreeMap, sync::Arc};

use crate::assign::{Assignment, NodeId, PARTITIONS, Table};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The store has not set the fence yet.
    TakingOver,
    Serving,
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
    /// This worker's, but the fence is not set yet; it takes milliseconds.
    TakingOver { epoch: u64 },
    /// The writer has an older table.
    OldEpoch { epoch: u64 },
}

#[derive(Debug)]
pub struct Ownership {
    me: NodeId,
    table: Arc<Table>,
    owned: BTreeMap<usize, (u64, Phase)>,
}

impl Ownership {
    pub fn new(me: NodeId) -> Self {
        Self { me, table: Arc::default(), owned: BTreeMap::new() }
    }

    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Accepts a later table. Returns the fences to set before the new partitions are served. An older table is ignored. Partitions of
    /// another incarnation (another process with this name) are not this worker's.
    pub fn learn(&mut self, table: Arc<Table>, incarnation: u64, process: u64) -> Vec<Fence> {
        if table.epoch <= self.table.epoch || table.partitions.len() != PARTITIONS {
            return Vec::new();
        }
        let mut owned = BTreeMap::new();
        let mut fences = Vec::new();
        let is_admitted = table.is_admitted(&self.me, incarnation, process);
        let mine = |(_, a): &(usize, &Assignment)| is_admitted && a.primary.as_ref() == Some(&self.me);
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
        if let Some((epoch, phase)) = self.owned.get_mut(&fence.partition)
            && *epoch == fence.epoch
        {
            *phase = Phase::Serving;
        }
    }

    /// The store has a later epoch: this worker does not own the partition any more.
    pub fn overruled(&mut self, partition: usize, epoch: u64) {
        self.owned.retain(|at, (owned_epoch, _)| *at != partition || *owned_epoch != epoch);
    }

    /// The epoch for a request to this partition, or why it is refused. `claimed`: the epoch that the client knows, if any.
    ///
    /// # Errors
    /// See `Refusal`.
    pub fn admit(&self, partition: usize, claimed: Option<u64>) -> Result<u64, Refusal> {
        let assignment = self.table.partitions.get(partition).ok_or(Refusal::NoSuchPartition)?;
        let Some(&(epoch, phase)) = self.owned.get(&partition) else {
            let primary = assignment.primary.clone().filter(|primary| *primary != self.me);
            return Err(Refusal::NotMine { primary, epoch: assignment.epoch });
        };
        if claimed.is_some_and(|claimed| claimed < epoch) {
            return Err(Refusal::OldEpoch { epoch });
        }
        match phase {
            Phase::TakingOver => Err(Refusal::TakingOver { epoch }),
            Phase::Serving => Ok(epoch),
        }
    }

    /// Partitions served now, with their epochs.
    pub fn serving(&self) -> impl Iterator<Item = (usize, u64)> {
        self.owned.iter().filter(|(_, (_, phase))| *phase == Phase::Serving).map(|(at, (epoch, _))| (*at, *epoch))
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
        a.fenced(Fence { partition: 0, epoch: 4 });
        assert_eq!(a.admit(0, None), Err(Refusal::TakingOver { epoch: 5 }));
        a.fenced(Fence { partition: 0, epoch: 5 });
        a.overruled(0, 4);
        assert_eq!(a.admit(0, None), Ok(5));
        a.overruled(0, 5);
        assert_eq!(a.admit(0, None), Err(Refusal::NotMine { primary: None, epoch: 5 }));
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
