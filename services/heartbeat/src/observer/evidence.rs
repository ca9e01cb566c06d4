use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    Nanos,
    assign::{Eligibility, LostTables, MAX_EPOCH_JUMP, NodeId, PARTITIONS, Table},
    message::WorkerReport,
};

/// Where it is known from that a worker does not serve a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The worker's own heartbeats.
    Report,
    /// Requesters, by the heartbeats of the workers that they asked next.
    Requesters,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Requesters => "requesters",
        }
    }
}

/// Times of the rules below.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// An older report does not count.
    pub(super) fresh: Nanos,
    /// How long a partition is reported as failing until that counts.
    pub(super) failing: Nanos,
    /// How long a new primary may take to serve a partition, and a primary to give one up.
    pub(super) takeover: Nanos,
    /// A worker whose store answered longer ago gets no partitions.
    pub(super) store_age: Nanos,
    /// How long it counts that a worker could not serve a partition.
    pub(super) unable: Nanos,
    /// How long the leader waits for the verdict of the heartbeats of a worker whose next one is overdue: if the worker has failed, one
    /// table does for both.
    pub(super) verdict: Nanos,
}

impl Times {
    pub(super) fn for_interval(interval: Nanos) -> Self {
        Self {
            fresh: 3 * interval,
            failing: interval,
            takeover: 3 * interval.max(300_000_000),
            store_age: 3 * interval.max(300_000_000),
            unable: 60 * interval.max(300_000_000),
            verdict: 2 * interval,
        }
    }
}

/// What workers report about their partitions, and what requesters had no success with. Heartbeats alone show that a process runs, not that
/// it serves (gray failure; Huang et al., HotOS 2017).
#[derive(Debug, Default)]
pub(super) struct Evidence {
    reports: BTreeMap<NodeId, Reported>,
    suspects: [Option<Suspect>; PARTITIONS],
    /// Epoch of each partition, and since when this monitor knows of it.
    epochs: [(u64, Nanos); PARTITIONS],
    /// Workers that could not serve a partition, and until when that counts.
    unable: BTreeMap<(usize, NodeId), Nanos>,
    /// Since when this monitor knows of a planned move, and its successor.
    moving: [Option<(NodeId, Nanos)>; PARTITIONS],
    /// Number of online workers, and the epoch of the table since which it is so.
    online: (usize, u64),
    /// The epoch of the latest table that each worker said it has.
    followed: BTreeMap<NodeId, u64>,
    /// The latest epoch in use that is not the registry's, and since when it is known.
    in_use: Option<(u64, Nanos)>,
}

#[derive(Debug)]
struct Reported {
    at: Nanos,
    incarnation: u64,
    report: WorkerReport,
}

#[derive(Debug)]
struct Suspect {
    node: NodeId,
    source: Source,
    since: Nanos,
}

/// The result of the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Partitions that their primary does not serve.
    pub(super) unserved: BTreeMap<usize, Source>,
    /// Primaries that do not serve several of their partitions: the worker is at fault, and not a shard.
    pub(super) not_serving: BTreeSet<NodeId>,
    /// Partitions whose primary was overruled in the store: it needs a later epoch.
    pub(super) overruled: BTreeSet<usize>,
}

impl Evidence {
    /// A heartbeat of this incarnation carried a report.
    pub(super) fn reported(&mut self, now: Nanos, node: &NodeId, incarnation: u64, report: WorkerReport) {
        self.reports.insert(node.clone(), Reported { at: now, incarnation, report });
    }

    /// The worker has said that it has the table of this epoch.
    pub(super) fn follows(&mut self, node: &NodeId, epoch: u64) {
        self.followed.insert(node.clone(), epoch);
    }

    pub(super) fn forget(&mut self, node: &str) {
        self.reports.remove(node);
        self.followed.remove(node);
    }

    /// A worker, registered or not, follows a table or was overruled. What is above the registry's table shows that the registry lost tables.
    pub(super) fn epochs_in_use(&mut self, now: Nanos, table: &Table, report: &WorkerReport) {
        let follows = match report.history == table.history {
            true => report.epoch,
            // Epochs of two histories do not compare: also the same one is another table.
            false if report.epoch > 0 => report.epoch.saturating_add(u64::from(report.epoch == table.epoch)),
            false => 0,
        };
        self.in_use(now, table, follows.max(report.overruled_by));
    }

    pub(super) fn in_use(&mut self, now: Nanos, table: &Table, epoch: u64) {
        if epoch <= table.epoch || epoch - table.epoch > MAX_EPOCH_JUMP {
            return;
        }
        // What the registry has caught up with is over: the time counts anew.
        let (known, since) = self.in_use.filter(|(known, _)| *known > table.epoch).unwrap_or((0, now));
        self.in_use = Some((known.max(epoch), since));
    }

    /// The tables that the registry lost, if it has been known for `settled`: before that a commit or a read may be in flight.
    pub(super) fn lost_tables(
        &mut self,
        now: Nanos,
        table: &Table,
        settled: Nanos,
        history: u64,
    ) -> Option<LostTables> {
        let (epoch, since) = self.in_use?;
        if epoch <= table.epoch {
            self.in_use = None;
            return None;
        }
        (now.saturating_sub(since) >= settled).then_some(LostTables { epoch, history })
    }

    /// Whether an epoch above the table's is in use.
    pub(super) fn is_behind(&self, table: &Table) -> bool {
        self.in_use.is_some_and(|(epoch, _)| epoch > table.epoch)
    }

    /// Applies the rules. Call it regularly: they need durations. `is_overdue`: whether the worker's next heartbeat is.
    pub(super) fn judge(
        &mut self,
        now: Nanos,
        table: &Table,
        times: &Times,
        is_overdue: impl Fn(&NodeId) -> bool,
    ) -> Findings {
        self.unable.retain(|_, until| now < *until);
        let online = table.nodes.values().filter(|membership| membership.online).count();
        if self.online.0 != online {
            self.online = (online, table.epoch);
        }
        let mut findings = Findings::default();
        let mut by_node: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
        for (at, assignment) in table.partitions.iter().enumerate().take(PARTITIONS) {
            let primary = assignment.primary.as_ref().filter(|node| table.is_online(node));
            let Some(primary) = primary.filter(|_| assignment.successor.is_none()) else {
                self.suspects[at] = None;
                continue;
            };
            if self.epochs[at].0 != assignment.epoch {
                // What was known of the partition before says nothing about this takeover.
                (self.epochs[at], self.suspects[at]) = ((assignment.epoch, now), None);
            }
            let counts = by_node.entry(primary.clone()).or_default();
            counts.1 += 1;
            let found = self.suspicion(now, table, at, primary, times);
            let Some((source, mut patience)) = found else {
                self.suspects[at] = None;
                continue;
            };
            if source == Source::Requesters && is_overdue(primary) {
                patience = times.verdict;
            }
            let suspect = match self.suspects[at].take() {
                Some(known) if known.node == *primary => Suspect { source: source.max(known.source), ..known },
                _ => Suspect { node: primary.clone(), source, since: now },
            };
            let silent = now.saturating_sub(suspect.since);
            let source = suspect.source;
            self.suspects[at] = Some(suspect);
            if silent >= times.failing && self.is_overruled(now, table, at, primary, assignment.epoch, times) {
                findings.overruled.insert(at);
                self.suspects[at] = Some(Suspect { node: primary.clone(), source, since: now });
                continue;
            }
            if silent < patience {
                continue;
            }
            counts.0 += 1;
            self.unable.insert((at, primary.clone()), now + times.unable);
            // If the shard is at fault, another move would help no one. Not so if only requesters find fault: they asked workers whose own path
            // to the shard is good.
            let is_claimed = source == Source::Requesters && self.claims_to_serve(now, table, at, primary, times);
            if is_claimed || !self.is_shards_fault(table, at, primary) {
                findings.unserved.insert(at, source);
            }
        }
        // Also partitions that it lost a short time ago: a path that fails some requests shows at one partition after the other.
        let failed = |node: &NodeId| {
            let by_it =
                self.unable.keys().filter(|(at, unable)| unable == node && !self.is_shards_fault(table, *at, node));
            by_it.count()
        };
        let is_at_fault = |(node, (now, owned)): &(NodeId, (usize, usize))| {
            let failed = failed(node);
            *now >= 1 && failed >= 2 && 3 * failed >= *owned
        };
        findings.not_serving = by_node.into_iter().filter(is_at_fault).map(|(node, _)| node).collect();
        findings
    }

    /// Three workers could not serve the partition a short time ago, this one included. One that is offline now says nothing.
    fn is_shards_fault(&self, table: &Table, at: usize, node: &NodeId) -> bool {
        let is_other = |other: &NodeId| other != node && table.is_online(other);
        self.unable.keys().filter(|(partition, other)| *partition == at && is_other(other)).count() >= 2
    }

    /// Why the primary seems not to serve the partition, and how long that must last.
    fn suspicion(
        &self,
        now: Nanos,
        table: &Table,
        at: usize,
        primary: &NodeId,
        times: &Times,
    ) -> Option<(Source, Nanos)> {
        // Requesters may come to a new primary before it serves.
        let is_settled = now.saturating_sub(self.epochs[at].1) >= times.takeover;
        if is_settled && self.is_accused(now, table, at, primary, times) {
            return Some((Source::Requesters, 0));
        }
        let Some(report) = self.fresh_report(now, table, primary, times) else {
            // It may answer probes over another worker, and not know of its partitions.
            return sends_reports(table, primary).then_some((Source::Report, times.takeover));
        };
        if report.failing & bit(at) != 0 {
            return Some((Source::Report, times.failing));
        }
        (report.serving & bit(at) == 0).then_some((Source::Report, times.takeover))
    }

    /// Two other workers heard of requesters that had no success; with two workers in all, one. A worker that accuses all others is at fault
    /// itself, or its requesters are. How many complaints make an accusation depends on the number of workers: the accuser must know it.
    fn is_accused(&self, now: Nanos, table: &Table, at: usize, primary: &NodeId, times: &Times) -> bool {
        let (online, since_epoch) = self.online;
        let needed = online.saturating_sub(1).min(2);
        let accuses = |(node, reported): &(&NodeId, &Reported)| {
            let complaints = &reported.report.complaints;
            let about = |partitions: u32| partitions & bit(at) != 0;
            // Clients that have old addresses ask also workers that are gone.
            let accused = complaints.iter().filter(|complaint| table.is_online(&complaint.node_id)).count();
            *node != primary
                && reported.report.epoch >= since_epoch
                && now.saturating_sub(reported.at) <= times.fresh
                && table.is_online(node)
                && (accused < 2 || 2 * accused < online)
                && complaints.iter().any(|complaint| *complaint.node_id == **primary && about(complaint.partitions))
        };
        needed > 0 && self.reports.iter().filter(accuses).count() >= needed
    }

    fn claims_to_serve(&self, now: Nanos, table: &Table, at: usize, primary: &NodeId, times: &Times) -> bool {
        let report = self.fresh_report(now, table, primary, times);
        report.is_some_and(|report| report.serving & !report.failing & bit(at) != 0)
    }

    fn is_overruled(&self, now: Nanos, table: &Table, at: usize, primary: &NodeId, epoch: u64, times: &Times) -> bool {
        let report = self.fresh_report(now, table, primary, times);
        report.is_some_and(|report| {
            report.serving & bit(at) == 0 && report.epoch == table.epoch && report.overruled_by >= epoch && epoch > 0
        })
    }

    /// The report of the admitted incarnation.
    fn fresh_report(&self, now: Nanos, table: &Table, node: &NodeId, times: &Times) -> Option<&WorkerReport> {
        let incarnation = table.nodes.get(node)?.incarnation;
        let reported = self.reports.get(node).filter(|reported| reported.incarnation == incarnation)?;
        (now.saturating_sub(reported.at) <= times.fresh).then_some(&reported.report)
    }

    /// Workers that could not serve a partition a short time ago.
    pub(super) fn unable(&self) -> BTreeSet<(usize, NodeId)> {
        self.unable.keys().cloned().collect()
    }

    /// A worker that sends reports gets partitions only if its last report is fresh and clean.
    pub(super) fn eligibility(&self, now: Nanos, table: &Table, node: &str, times: &Times) -> Eligibility {
        let Some(Reported { at, report, .. }) = self.reports.get(node) else {
            return if sends_reports(table, node) { Eligibility::Keeps } else { Eligibility::Full };
        };
        let store_age = Nanos::from(report.store_age_ms) * 1_000_000;
        let is_clean = now.saturating_sub(*at) <= times.fresh && report.failing == 0 && store_age <= times.store_age;
        let is_accused = self.suspects.iter().flatten().any(|suspect| *suspect.node == *node);
        if is_clean && !is_accused { Eligibility::Full } else { Eligibility::Keeps }
    }

    /// Partitions with a successor that the primary has stopped to serve, or does not acknowledge in time: the store's fence stops it then.
    /// A primary that sends no reports cannot acknowledge.
    pub(super) fn acknowledged(&mut self, now: Nanos, table: &Table, times: &Times) -> BTreeSet<usize> {
        let mut acknowledged = BTreeSet::new();
        for (at, assignment) in table.partitions.iter().enumerate().take(PARTITIONS) {
            let (Some(primary), Some(successor)) = (&assignment.primary, &assignment.successor) else {
                self.moving[at] = None;
                continue;
            };
            let since = match &self.moving[at] {
                Some((known, since)) if known == successor => *since,
                _ => now,
            };
            self.moving[at] = Some((successor.clone(), since));
            let has_stopped = match self.reports.get(primary) {
                None => true,
                Some(Reported { report, .. }) => {
                    let follows = report.epoch >= table.epoch && report.history == table.history;
                    follows && report.serving & bit(at) == 0
                }
            };
            // Its answer to the table is sooner than its next heartbeat.
            let follows = self.followed.get(primary).is_some_and(|epoch| *epoch == table.epoch);
            if has_stopped || follows || now.saturating_sub(since) >= times.takeover {
                acknowledged.insert(at);
            }
        }
        acknowledged
    }

    /// Whether every partition is served under its current epoch, as far as primaries report: no worker of an earlier epoch can write.
    pub(super) fn are_all_served(&self, now: Nanos, table: &Table, times: &Times) -> bool {
        table.partitions.iter().enumerate().take(PARTITIONS).all(|(at, assignment)| {
            let Some(primary) = &assignment.primary else { return assignment.epoch == 0 };
            match self.reports.contains_key(primary) {
                true => self.fresh_report(now, table, primary, times).is_some_and(|r| r.serving & bit(at) != 0),
                // A node that sends no reports does not write to the store either.
                false => true,
            }
        })
    }
}

/// A worker that names its process when it registers also sends reports. The article's nodes do neither.
fn sends_reports(table: &Table, node: &str) -> bool {
    table.nodes.get(node).is_some_and(|membership| membership.process != 0)
}

fn bit(partition: usize) -> u32 {
    1 << partition
}

#[cfg(test)]
mod tests;
