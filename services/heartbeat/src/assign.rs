//! The partition table, and the plan that assigns partitions to online workers. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Name of a worker or a monitor: 1..=64 bytes.
pub type NodeId = Arc<str>;

pub const PARTITIONS: usize = 16;
/// Replicas of a partition besides the primary.
pub const REPLICAS: usize = 2;

/// One version of the partition table. It is stored under one key of the registry, so that every change is one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Increases with every change; by one, unless a later epoch was found in use.
    pub epoch: u64,
    /// A random number that the first table of the registry gets, and the first after the registry lost a later one. Epochs of two histories
    /// do not compare.
    #[serde(default)]
    pub history: u64,
    /// 16 partitions, by number.
    pub partitions: Vec<Assignment>,
    pub nodes: BTreeMap<NodeId, Membership>,
    /// W3C trace context of the span that wrote the table: a takeover continues this trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Assignment {
    /// Epoch of the table in which this incarnation of the primary got the partition; it fences the writes. 0: no primary yet.
    pub epoch: u64,
    pub primary: Option<NodeId>,
    /// Best first.
    pub replicas: Vec<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Incarnation of the worker that was admitted or failed last.
    pub incarnation: u64,
    /// Its process: see `Registration::process`.
    #[serde(default)]
    pub process: u64,
    pub online: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            epoch: 0,
            history: 0,
            partitions: vec![Assignment::default(); PARTITIONS],
            nodes: BTreeMap::new(),
            traceparent: None,
        }
    }
}

impl Table {
    pub fn is_online(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|membership| membership.online)
    }

    /// Whether this incarnation of the worker is online. Of two processes with one name, only one owns partitions.
    pub fn is_admitted(&self, node: &str, incarnation: u64, process: u64) -> bool {
        self.nodes.get(node).is_some_and(|membership| {
            membership.online && (membership.incarnation, membership.process) == (incarnation, process)
        })
    }

    /// The worker that may write under the partition's epoch, its incarnation and its process.
    pub fn owner<'a>(&self, assignment: &'a Assignment) -> Option<(&'a NodeId, u64, u64)> {
        let primary = assignment.primary.as_ref()?;
        let membership = self.nodes.get(primary);
        let (incarnation, process) = membership.map_or((0, 0), |known| (known.incarnation, known.process));
        Some((primary, incarnation, process))
    }

    /// Whether this incarnation of the worker was failed.
    pub fn is_failed(&self, node: &str, incarnation: u64) -> bool {
        self.nodes.get(node).is_some_and(|membership| !membership.online && incarnation <= membership.incarnation)
    }
}

/// Checks the rules between two consecutive versions. The simulation and the monitors use it.
///
/// # Errors
/// The violated rule.
pub fn check_step(before: &Table, after: &Table) -> Result<(), String> {
    if after.epoch <= before.epoch {
        return Err(format!("epoch {} follows {}", after.epoch, before.epoch));
    }
    if after.partitions.len() != PARTITIONS {
        return Err(format!("{} partitions", after.partitions.len()));
    }
    for (number, (old, new)) in before.partitions.iter().zip(&after.partitions).enumerate() {
        let keeps_owner = before.owner(old) == after.owner(new);
        if !keeps_owner && new.epoch != after.epoch {
            return Err(format!("partition {number} has a new primary in the old epoch {}", new.epoch));
        }
        if keeps_owner && old.epoch != new.epoch {
            return Err(format!("partition {number} has a new epoch without a new primary"));
        }
        let owners: BTreeSet<&NodeId> = new.primary.iter().chain(&new.replicas).collect();
        if owners.len() != new.replicas.len() + usize::from(new.primary.is_some()) {
            return Err(format!("partition {number} has one node twice: {new:?}"));
        }
    }
    Ok(())
}

/// Reassigns places of offline workers, adds missing replicas, and moves primaries one by one until no two workers differ by more than one.
/// Workers `in_warning` keep their partitions and get no new ones while another worker is online. Without online workers nothing changes.
/// The epoch is not changed: see `stamp`.
pub fn plan(table: &Table, in_warning: &BTreeSet<NodeId>) -> Vec<Assignment> {
    let online: Vec<NodeId> = table.nodes.iter().filter(|(_, s)| s.online).map(|(id, _)| id.clone()).collect();
    let mut partitions = table.partitions.clone();
    if online.is_empty() {
        return partitions;
    }
    let is_online = |node: &NodeId| online.binary_search(node).is_ok();
    for at in 0..partitions.len() {
        if !partitions[at].primary.as_ref().is_some_and(is_online) {
            let heirs: Vec<NodeId> = partitions[at].replicas.iter().filter(|r| is_online(r)).cloned().collect();
            let heir = lightest(&heirs, in_warning, &partitions).or_else(|| lightest(&online, in_warning, &partitions));
            partitions[at].replicas.retain(|replica| Some(replica) != heir.as_ref());
            partitions[at].primary = heir;
        }
    }
    level(&mut partitions, &online, in_warning);
    for at in 0..partitions.len() {
        let primary = partitions[at].primary.clone();
        partitions[at].replicas.retain(|replica| is_online(replica) && Some(replica) != primary.as_ref());
        partitions[at].replicas.truncate(REPLICAS);
        while partitions[at].replicas.len() < REPLICAS {
            let taken = |node: &&NodeId| Some(*node) != primary.as_ref() && !partitions[at].replicas.contains(node);
            let free: Vec<NodeId> = online.iter().filter(taken).cloned().collect();
            let Some(replica) = least(&free, in_warning, |node| copies(&partitions, node)) else { break };
            partitions[at].replicas.push(replica);
        }
    }
    partitions
}

/// The next table with these workers and this plan. Partitions with a new primary carry the new epoch. So do partitions of a primary with a
/// new incarnation: writes of its former process must be refused.
pub fn stamp(before: &Table, nodes: BTreeMap<NodeId, Membership>, partitions: Vec<Assignment>) -> Table {
    let mut next = Table { epoch: before.epoch + 1, history: before.history, partitions, nodes, traceparent: None };
    for (number, old) in before.partitions.iter().enumerate() {
        let keeps_owner = next.owner(&next.partitions[number]) == before.owner(old);
        next.partitions[number].epoch = if keeps_owner { old.epoch } else { next.epoch };
    }
    debug_assert_eq!(check_step(before, &next), Ok(()));
    next
}

/// Moves one partition at a time from the worker with most primaries to the one with fewest; preferably to a replica.
fn level(partitions: &mut [Assignment], online: &[NodeId], in_warning: &BTreeSet<NodeId>) {
    // Each move lowers the sum of squares: at most as many moves as partitions.
    for _ in 0..partitions.len() {
        let load = |node: &NodeId| primaries(partitions, node);
        let Some(most) = online.iter().max_by_key(|node| load(node)) else { return };
        let steady: Vec<NodeId> = online.iter().filter(|node| !in_warning.contains(*node)).cloned().collect();
        let Some(fewest) = least(&steady, in_warning, load) else { return };
        if load(most) <= load(&fewest) + 1 {
            return;
        }
        let of_most = |a: &Assignment| a.primary.as_ref() == Some(most);
        let prepared = partitions.iter().position(|a| of_most(a) && a.replicas.contains(&fewest));
        let Some(at) = prepared.or_else(|| partitions.iter().position(of_most)) else { return };
        let former = partitions[at].primary.replace(fewest.clone());
        // The former primary is the best replica.
        partitions[at].replicas.retain(|replica| *replica != fewest);
        partitions[at].replicas.splice(0..0, former);
    }
}

fn lightest(nodes: &[NodeId], in_warning: &BTreeSet<NodeId>, partitions: &[Assignment]) -> Option<NodeId> {
    least(nodes, in_warning, |node| primaries(partitions, node))
}

/// Workers not in warning come first, then those with the least load, then by order in the list.
fn least(nodes: &[NodeId], in_warning: &BTreeSet<NodeId>, load: impl Fn(&NodeId) -> usize) -> Option<NodeId> {
    nodes.iter().min_by_key(|node| (in_warning.contains(*node), load(node))).cloned()
}

fn primaries(partitions: &[Assignment], node: &NodeId) -> usize {
    partitions.iter().filter(|a| a.primary.as_ref() == Some(node)).count()
}

fn copies(partitions: &[Assignment], node: &NodeId) -> usize {
    partitions.iter().filter(|a| a.primary.as_ref() == Some(node) || a.replicas.contains(node)).count()
}

#[cfg(test)]
mod tests;
