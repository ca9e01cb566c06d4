//! The partition table, and the plan that assigns partitions to online workers. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Name of a worker or a monitor: 1..=64 bytes.
pub type NodeId = Arc<str>;

pub const PARTITIONS: usize = 16;
/// An epoch further above the known one is refused: no number of failovers explains it, and it would shut all later epochs out.
pub const MAX_EPOCH_JUMP: u64 = 1 << 32;
/// Replicas of a partition besides the primary.
pub const REPLICAS: usize = 2;
/// Planned moves at a time: each has a moment in which neither worker serves the partition.
pub const MAX_MOVES: usize = 2;

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
    /// A planned move: the primary stops to serve the partition and reports it; then this worker becomes the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<NodeId>,
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
        if old.epoch != new.epoch && new.epoch != after.epoch {
            return Err(format!(
                "partition {number} has epoch {}, which is neither the old nor the new one",
                new.epoch
            ));
        }
        let owners: BTreeSet<&NodeId> = new.primary.iter().chain(&new.replicas).collect();
        if owners.len() != new.replicas.len() + usize::from(new.primary.is_some()) {
            return Err(format!("partition {number} has one node twice: {new:?}"));
        }
    }
    Ok(())
}

/// How much work a worker may get. The order is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Eligibility {
    Full,
    /// Keeps its partitions, and gets another one only if no other worker can. Its weight is below 1.
    Keeps,
    /// Loses its primaries as soon as a worker of full eligibility can have them.
    Loses,
}

/// What the plan has to know besides the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// Workers without full eligibility.
    pub limited: BTreeMap<NodeId, Eligibility>,
    /// Partitions that the primary does not serve, although it is online.
    pub unserved: BTreeSet<usize>,
    /// Workers that could not serve a partition a short time ago.
    pub unable: BTreeSet<(usize, NodeId)>,
    /// Partitions with a successor that the primary has stopped to serve.
    pub acknowledged: BTreeSet<usize>,
    /// Partitions whose primary was overruled in the store: it needs a later epoch.
    pub overruled: BTreeSet<usize>,
    /// How far copies of a partition's segment are: the higher, the more of the logs is in them. A copy that is not here is not complete.
    pub caught_up: BTreeMap<(usize, NodeId), u64>,
    /// Whether partitions may be moved for balance.
    pub may_rebalance: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            limited: BTreeMap::new(),
            unserved: BTreeSet::new(),
            unable: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            overruled: BTreeSet::new(),
            caught_up: BTreeMap::new(),
            may_rebalance: true,
        }
    }
}

impl Conditions {
    fn eligibility(&self, node: &NodeId) -> Eligibility {
        self.limited.get(node).copied().unwrap_or(Eligibility::Full)
    }
}

/// The next assignments, in this order: partitions of offline workers go to replicas; partitions that are not served, or whose primary is
/// not eligible, go to workers that are; planned moves go on; missing replicas are added. Without online workers nothing changes. The epoch
/// is not changed: see `stamp`.
pub fn plan(table: &Table, conditions: &Conditions) -> Vec<Assignment> {
    let online: Vec<NodeId> = table.nodes.iter().filter(|(_, s)| s.online).map(|(id, _)| id.clone()).collect();
    let partitions = table.partitions.clone();
    if online.is_empty() {
        return partitions;
    }
    let mut plan = Plan { partitions, online, conditions };
    for at in 0..plan.partitions.len() {
        plan.replace_offline_primary(at);
        plan.replace_unable_primary(at);
        plan.finish_move(at);
    }
    if conditions.may_rebalance {
        plan.begin_moves();
    }
    for at in 0..plan.partitions.len() {
        plan.fill_replicas(at);
    }
    plan.partitions
}

struct Plan<'a> {
    partitions: Vec<Assignment>,
    /// Sorted.
    online: Vec<NodeId>,
    conditions: &'a Conditions,
}

impl Plan<'_> {
    fn replace_offline_primary(&mut self, at: usize) {
        if self.partitions[at].primary.as_ref().is_some_and(|primary| self.is_online(primary)) {
            return;
        }
        let replicas = self.partitions[at].replicas.iter().filter(|replica| self.is_online(replica)).cloned().collect();
        let heir = self.best_heir(at, replicas).or_else(|| self.best_heir(at, self.online.clone()));
        let assignment = &mut self.partitions[at];
        assignment.replicas.retain(|replica| Some(replica) != heir.as_ref());
        (assignment.primary, assignment.successor) = (heir, None);
    }

    /// Workers that could serve the partition a short time ago come first, then the most eligible ones, then those whose copy of the segment
    /// has most of the logs, then those with the fewest primaries.
    fn best_heir(&self, at: usize, nodes: Vec<NodeId>) -> Option<NodeId> {
        let is_unable = |node: &NodeId| self.conditions.unable.contains(&(at, node.clone()));
        let behind = |node: &NodeId| Reverse(self.conditions.caught_up.get(&(at, node.clone())).copied());
        let rank =
            |node: &NodeId| (is_unable(node), self.conditions.eligibility(node), behind(node), self.primaries(node));
        nodes.into_iter().min_by_key(rank)
    }

    /// The primary is online, but does not serve the partition or is not eligible. Without a worker that can serve it nothing changes.
    fn replace_unable_primary(&mut self, at: usize) {
        let Some(primary) = self.partitions[at].primary.clone() else { return };
        let loses = self.conditions.eligibility(&primary) == Eligibility::Loses;
        if !loses && !self.conditions.unserved.contains(&at) {
            return;
        }
        let is_able = |node: &&NodeId| {
            **node != primary
                && self.conditions.eligibility(node) == Eligibility::Full
                && !self.conditions.unable.contains(&(at, (*node).clone()))
        };
        let able: Vec<NodeId> = self.online.iter().filter(is_able).cloned().collect();
        let prepared = able.iter().filter(|node| self.partitions[at].replicas.contains(node)).cloned().collect();
        let Some(heir) = self.best_heir(at, prepared).or_else(|| self.best_heir(at, able)) else { return };
        let assignment = &mut self.partitions[at];
        assignment.replicas.retain(|replica| *replica != heir);
        // What it has of the partition may be of use, but it is the last choice.
        assignment.replicas.push(primary);
        (assignment.primary, assignment.successor) = (Some(heir), None);
    }

    /// Third step of a planned move: the successor takes over once the primary has acknowledged that it serves the partition no more.
    fn finish_move(&mut self, at: usize) {
        let assignment = &self.partitions[at];
        let Some(successor) = assignment.successor.clone() else { return };
        let is_possible = self.is_online(&successor)
            && self.conditions.eligibility(&successor) != Eligibility::Loses
            && assignment.primary.as_ref() != Some(&successor);
        if is_possible && !self.conditions.acknowledged.contains(&at) {
            return;
        }
        let assignment = &mut self.partitions[at];
        assignment.successor = None;
        if is_possible {
            let former = assignment.primary.replace(successor.clone());
            // The former primary is the best replica.
            assignment.replicas.retain(|replica| *replica != successor);
            assignment.replicas.splice(0..0, former);
        }
    }

    /// First step of planned moves: names successors, from the worker with most primaries to the one with fewest, until no two workers
    /// differ by more than one. The second step is the primary's: it stops to serve the partition, and reports it.
    fn begin_moves(&mut self) {
        let under_way = self.partitions.iter().filter(|assignment| assignment.successor.is_some()).count();
        for _ in under_way..MAX_MOVES {
            let Some(most) = self.online.iter().max_by_key(|node| self.planned(node)).cloned() else { return };
            let full = self.online.iter().filter(|node| self.conditions.eligibility(node) == Eligibility::Full);
            let Some(fewest) = full.min_by_key(|node| self.planned(node)).cloned() else { return };
            if self.planned(&most) <= self.planned(&fewest) + 1 {
                return;
            }
            let is_movable = |at: &usize| {
                let assignment = &self.partitions[*at];
                let is_unable = self.conditions.unable.contains(&(*at, fewest.clone()));
                assignment.primary.as_ref() == Some(&most) && assignment.successor.is_none() && !is_unable
            };
            let movable: Vec<usize> = (0..self.partitions.len()).filter(is_movable).collect();
            let prepared = movable.iter().find(|at| self.partitions[**at].replicas.contains(&fewest));
            let Some(&at) = prepared.or(movable.first()) else { return };
            self.partitions[at].successor = Some(fewest);
        }
    }

    fn fill_replicas(&mut self, at: usize) {
        let mut replicas = std::mem::take(&mut self.partitions[at].replicas);
        let primary = self.partitions[at].primary.clone();
        replicas.retain(|replica| self.is_online(replica) && Some(replica) != primary.as_ref());
        replicas.truncate(REPLICAS);
        while replicas.len() < REPLICAS {
            let is_free = |node: &&NodeId| Some(*node) != primary.as_ref() && !replicas.contains(node);
            let rank = |node: &&NodeId| (self.conditions.eligibility(node), self.copies(node));
            let Some(replica) = self.online.iter().filter(is_free).min_by_key(rank) else { break };
            replicas.push(replica.clone());
        }
        self.partitions[at].replicas = replicas;
    }

    fn is_online(&self, node: &NodeId) -> bool {
        self.online.binary_search(node).is_ok()
    }

    fn primaries(&self, node: &NodeId) -> usize {
        primaries(&self.partitions, node)
    }

    /// Primaries after all planned moves.
    fn planned(&self, node: &NodeId) -> usize {
        self.partitions.iter().filter(|a| a.successor.as_ref().or(a.primary.as_ref()) == Some(node)).count()
    }

    fn copies(&self, node: &NodeId) -> usize {
        let has = |a: &&Assignment| a.primary.as_ref() == Some(node) || a.replicas.contains(node);
        self.partitions.iter().filter(has).count()
    }
}

/// The epoch and history that the next table must exceed: they are in use although the registry does not know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostTables {
    /// The latest epoch in use.
    pub epoch: u64,
    /// History of the next table.
    pub history: u64,
}

/// The next table with these workers and this plan. Partitions with a new primary carry the new epoch. So do partitions of a primary with a
/// new incarnation, because writes of its former process must be refused, and those of one that was overruled. After tables were lost, all partitions carry it: workers may follow a
/// lost table, and no epoch may have two owners.
pub fn stamp(
    before: &Table,
    nodes: BTreeMap<NodeId, Membership>,
    partitions: Vec<Assignment>,
    conditions: &Conditions,
    lost: Option<LostTables>,
) -> Table {
    let epoch = before.epoch.max(lost.map_or(0, |lost| lost.epoch)) + 1;
    let history = lost.map_or(before.history, |lost| lost.history);
    let mut next = Table { epoch, history, partitions, nodes, traceparent: None };
    for (number, old) in before.partitions.iter().enumerate() {
        let keeps_owner = next.owner(&next.partitions[number]) == before.owner(old);
        let keeps_epoch = keeps_owner && lost.is_none() && !conditions.overruled.contains(&number);
        next.partitions[number].epoch = if keeps_epoch { old.epoch } else { epoch };
    }
    debug_assert_eq!(check_step(before, &next), Ok(()));
    next
}

fn primaries(partitions: &[Assignment], node: &NodeId) -> usize {
    partitions.iter().filter(|a| a.primary.as_ref() == Some(node)).count()
}

#[cfg(test)]
mod tests;
