//! Who owns which partition: the table of assignments, and the plan that follows from who is there. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Name of a worker or a monitor: 1..=64 bytes.
pub type NodeId = Arc<str>;

pub const PARTITIONS: usize = 16;
/// Besides the primary.
pub const REPLICAS: usize = 2;

/// One version of what all agree on; kept whole under one key of the registry, so that every change is one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Rises by one with every change.
    pub epoch: u64,
    /// 16, by number.
    pub partitions: Vec<Assignment>,
    pub nodes: BTreeMap<NodeId, Membership>,
    /// Of the span that wrote it (W3C trace context): who takes over because of it goes on with that trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Assignment {
    /// The table's epoch in which this primary, in the incarnation it has, got the partition: the fence of its writes. 0: there was no primary
    /// yet.
    pub epoch: u64,
    pub primary: Option<NodeId>,
    /// Best first.
    pub replicas: Vec<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The incarnation of the node that was admitted or failed last.
    pub incarnation: u64,
    pub online: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            epoch: 0,
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

    /// Whether this very incarnation of the node is online. Of two processes under one name only one has places.
    pub fn is_admitted(&self, node: &str, incarnation: u64) -> bool {
        self.nodes.get(node).is_some_and(|membership| membership.online && membership.incarnation == incarnation)
    }

    /// Whose writes the partition's epoch lets pass: one incarnation of one node.
    pub fn owner<'a>(&self, assignment: &'a Assignment) -> Option<(&'a NodeId, u64)> {
        let primary = assignment.primary.as_ref()?;
        Some((primary, self.nodes.get(primary).map_or(0, |membership| membership.incarnation)))
    }

    /// Whether this incarnation of the node was failed.
    pub fn is_failed(&self, node: &str, incarnation: u64) -> bool {
        self.nodes.get(node).is_some_and(|membership| !membership.online && incarnation <= membership.incarnation)
    }
}

/// What must hold from one version to the next, whoever made it. The simulation and the monitors both ask.
///
/// # Errors
/// Which rule is broken.
pub fn check_step(before: &Table, after: &Table) -> Result<(), String> {
    if after.epoch != before.epoch + 1 {
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
            return Err(format!("partition {number} is held twice by one node: {new:?}"));
        }
    }
    Ok(())
}

/// Reassigns what must be: places of nodes that are gone, missing replicas, and single moves until no two nodes differ by
/// more than one primary. `wary` nodes (in warning) keep what they have and get nothing while another one is there. With
/// nobody online, nothing changes. The epoch is not touched: see `stamp`.
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

/// The table one epoch later with these nodes and this plan in it. Partitions whose primary changed carry the new epoch, and so do those
/// of a primary that began a later incarnation: what its former process has still under way must not pass.
pub fn stamp(before: &Table, nodes: BTreeMap<NodeId, Membership>, partitions: Vec<Assignment>) -> Table {
    let mut next = Table { epoch: before.epoch + 1, partitions, nodes, traceparent: None };
    for (number, old) in before.partitions.iter().enumerate() {
        let keeps_owner = next.owner(&next.partitions[number]) == before.owner(old);
        next.partitions[number].epoch = if keeps_owner { old.epoch } else { next.epoch };
    }
    debug_assert_eq!(check_step(before, &next), Ok(()));
    next
}

/// Moves one partition at a time from who has most primaries to who has fewest; to a replica where one of them can be.
fn level(partitions: &mut [Assignment], online: &[NodeId], in_warning: &BTreeSet<NodeId>) {
    // Each move lowers the sum of squares: there are at most as many as partitions.
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
        // Who had it is the best replica there can be.
        partitions[at].replicas.retain(|replica| *replica != fewest);
        partitions[at].replicas.splice(0..0, former);
    }
}

fn lightest(nodes: &[NodeId], in_warning: &BTreeSet<NodeId>, partitions: &[Assignment]) -> Option<NodeId> {
    least(nodes, in_warning, |node| primaries(partitions, node))
}

/// Nodes that are not wary come first, then those with the least load, then the first of the list.
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
