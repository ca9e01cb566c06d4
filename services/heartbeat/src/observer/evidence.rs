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
            // Three workers could not: the shard is at fault, and another move would help no one. One that is offline now says nothing. Not so
            // if only requesters find fault: they asked workers whose own path to the shard is good.
            let is_other = |node: &NodeId| node != primary && table.is_online(node);
            let others = self.unable.keys().filter(|(partition, node)| *partition == at && is_other(node)).count();
            self.unable.insert((at, primary.clone()), now + times.unable);
            if others < 2 || source == Source::Requesters && self.claims_to_serve(now, table, at, primary, times) {
                findings.unserved.insert(at, source);
            }
        }
        // Also partitions that it lost a short time ago: a path that fails some requests shows at one partition after the other.
        let failed = |node: &NodeId| self.unable.keys().filter(|(_, unable)| unable == node).count();
        let is_at_fault = |(node, (now, owned)): &(NodeId, (usize, usize))| {
            let failed = failed(node);
            *now >= 1 && failed >= 2 && 3 * failed >= *owned
        };
        findings.not_serving = by_node.into_iter().filter(is_at_fault).map(|(node, _)| node).collect();
        findings
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
mod tests {
    use super::*;
    use crate::{assign::Membership, message::Complaint};

    const INTERVAL: Nanos = 1_000_000_000;

    /// Workers a, b, c; a is the primary of all partitions.
    fn table() -> Table {
        let membership = Membership { incarnation: 1, process: 1, online: true };
        let nodes = ["a", "b", "c"].map(|id| (id.into(), membership)).into();
        let mut table = Table { epoch: 5, history: 1, nodes, ..Table::default() };
        for assignment in &mut table.partitions {
            (assignment.primary, assignment.epoch) = (Some("a".into()), 5);
        }
        table
    }

    fn report(serving: u32, failing: u32) -> WorkerReport {
        WorkerReport { process: 1, history: 1, epoch: 5, serving, failing, ..WorkerReport::default() }
    }

    fn accusing(node: &str, partitions: u32) -> WorkerReport {
        let complaints = vec![Complaint { node_id: node.into(), partitions }];
        WorkerReport { complaints, ..report(0, 0) }
    }

    /// The findings after this many intervals with these reports in each.
    fn after(intervals: u64, evidence: &mut Evidence, reports: &[(&str, WorkerReport)]) -> Findings {
        let (table, times) = (table(), Times::for_interval(INTERVAL));
        let mut findings = Findings::default();
        for n in 1..=intervals {
            for (node, report) in reports {
                evidence.reported(n * INTERVAL, &(*node).into(), 1, report.clone());
            }
            findings = evidence.judge(n * INTERVAL, &table, &times, |_| false);
        }
        findings
    }

    #[test]
    fn a_worker_that_serves_is_left_alone_and_one_that_fails_loses_what_it_does_not_serve() {
        assert_eq!(after(20, &mut Evidence::default(), &[("a", report(0xFFFF, 0))]), Findings::default());
        let one = after(2, &mut Evidence::default(), &[("a", report(0xFFFF, 4))]);
        assert_eq!(one.unserved, [(2, Source::Report)].into());
        assert!(one.not_serving.is_empty(), "one of 16: the shard may be at fault");
        let all = after(2, &mut Evidence::default(), &[("a", report(0, 0xFFFF))]);
        assert_eq!((all.unserved.len(), all.not_serving), (16, ["a".into()].into()));
        let taking_over = [("a", report(0xFF, 0))];
        assert!(after(3, &mut Evidence::default(), &taking_over).unserved.is_empty(), "it may be taking over");
        assert_eq!(after(4, &mut Evidence::default(), &taking_over).unserved.len(), 8);
    }

    #[test]
    fn two_requesters_are_believed_and_one_or_one_that_accuses_everybody_is_not() {
        let well = ("a", report(0xFFFF, 0));
        let one = [well.clone(), ("b", accusing("a", 1))];
        assert_eq!(after(9, &mut Evidence::default(), &one), Findings::default());
        let two = [well.clone(), ("b", accusing("a", 7)), ("c", accusing("a", 3))];
        assert!(after(3, &mut Evidence::default(), &two).unserved.is_empty(), "the primary is new");
        let found = after(5, &mut Evidence::default(), &two).unserved;
        assert_eq!(found, [(0, Source::Requesters), (1, Source::Requesters)].into());
        let one_shard = [well.clone(), ("b", accusing("a", 1)), ("c", accusing("a", 1))];
        let mut moved = Evidence::default();
        moved.unable.extend(["b", "c"].map(|node| ((0, node.into()), 100 * INTERVAL)));
        let found = after(9, &mut moved, &one_shard).unserved;
        assert_eq!(found, [(0, Source::Requesters)].into(), "their own path to the shard is good");
        let failing = [("a", report(0xFFFF, 1)), one_shard[1].clone(), one_shard[2].clone()];
        assert!(after(9, &mut moved, &failing).unserved.is_empty(), "the shard fails for everybody");
        let mut everybody = accusing("a", 1);
        everybody.complaints.push(Complaint { node_id: "c".into(), partitions: 1 });
        let two = [well, ("b", everybody), ("c", accusing("a", 1))];
        assert_eq!(after(9, &mut Evidence::default(), &two), Findings::default());
    }

    #[test]
    fn while_a_heartbeat_is_overdue_requesters_wait_for_its_verdict() {
        let (mut evidence, table, times) = (Evidence::default(), table(), Times::for_interval(INTERVAL));
        let mut at = |interval: u64, is_overdue: bool| {
            for (node, report) in [("a", report(0xFFFF, 0)), ("b", accusing("a", 1)), ("c", accusing("a", 1))] {
                evidence.reported(interval * INTERVAL, &node.into(), 1, report);
            }
            evidence.judge(interval * INTERVAL, &table, &times, |_| is_overdue).unserved.len()
        };
        // From 4 on the primary is settled.
        assert_eq!([1, 4, 5, 6].map(|interval| at(interval, true)), [0, 0, 0, 1]);
        assert_eq!(at(7, false), 1);
    }

    #[test]
    fn a_partition_that_a_third_worker_cannot_serve_either_stays() {
        let mut evidence = Evidence::default();
        let failing = [("a", report(0xFFFF, 4))];
        for (node, moves) in [("b", true), ("gone", true), ("c", false)] {
            evidence.unable.insert((2, node.into()), 100 * INTERVAL);
            let found = after(5, &mut evidence, &failing);
            assert_eq!(!found.unserved.is_empty(), moves, "{node}: {found:?}");
        }
    }

    #[test]
    fn a_worker_whose_store_is_silent_gets_nothing() {
        let (mut evidence, times) = (Evidence::default(), Times::for_interval(INTERVAL));
        let mut of = |report: WorkerReport| {
            evidence.reported(INTERVAL, &"b".into(), 1, report);
            evidence.eligibility(INTERVAL, &table(), "b", &times)
        };
        assert_eq!(of(report(0, 0)), Eligibility::Full);
        assert_eq!(of(WorkerReport { store_age_ms: 4_000, ..report(0, 0) }), Eligibility::Keeps);
        assert_eq!(of(report(0, 1)), Eligibility::Keeps);
        let other = |node| evidence.eligibility(9 * INTERVAL, &table(), node, &times);
        assert_eq!(other("b"), Eligibility::Keeps, "an old report");
        assert_eq!(other("c"), Eligibility::Keeps, "no report yet");
        assert_eq!(other("article's node"), Eligibility::Full, "it sends no reports");
    }

    #[test]
    fn a_worker_that_lives_but_whose_reports_do_not_arrive_loses_its_partitions() {
        let mut evidence = Evidence::default();
        assert!(after(3, &mut evidence, &[]).unserved.is_empty());
        assert_eq!(after(4, &mut evidence, &[]).unserved.len(), 16);
    }

    #[test]
    fn an_epoch_above_the_registrys_shows_that_tables_were_lost_unless_it_is_absurd() {
        let (mut evidence, table) = (Evidence::default(), table());
        let follows = |epoch, history| WorkerReport { epoch, history, ..report(0, 0) };
        evidence.epochs_in_use(1, &table, &follows(5, 1));
        evidence.epochs_in_use(1, &table, &follows(u64::MAX, 1));
        evidence.epochs_in_use(1, &table, &follows(4, 9));
        assert_eq!(evidence.lost_tables(100, &table, 10, 3), None);
        evidence.epochs_in_use(1, &table, &follows(5, 9));
        assert_eq!(evidence.lost_tables(10, &table, 10, 3), None, "a commit may be in flight");
        evidence.epochs_in_use(5, &table, &WorkerReport { overruled_by: 57, ..follows(5, 1) });
        assert_eq!(evidence.lost_tables(11, &table, 10, 3), Some(LostTables { epoch: 57, history: 3 }));
        let stamped = Table { epoch: 58, ..table };
        // A worker has the table of the next commit before this monitor has it.
        evidence.epochs_in_use(100, &stamped, &follows(59, 1));
        assert_eq!(evidence.lost_tables(100, &stamped, 10, 3), None, "the former loss is over");
        assert_eq!(evidence.lost_tables(110, &Table { epoch: 59, ..stamped }, 10, 3), None);
        assert_eq!(evidence.in_use, None);
    }

    #[test]
    fn a_primary_that_was_overruled_gets_a_later_epoch() {
        let overruled = WorkerReport { overruled_by: 5, ..report(0xFFFE, 0) };
        let found = after(2, &mut Evidence::default(), &[("a", overruled)]);
        assert_eq!((found.overruled, found.unserved.len()), ([0].into(), 0));
    }

    #[test]
    fn a_move_goes_on_when_the_primary_stops_or_does_not_answer() {
        let (mut table, times) = (table(), Times::for_interval(INTERVAL));
        table.partitions[3].successor = Some("b".into());
        let mut evidence = Evidence::default();
        evidence.reported(1, &"a".into(), 1, report(0xFFFF, 0));
        assert!(evidence.acknowledged(1, &table, &times).is_empty());
        evidence.reported(2, &"a".into(), 1, report(0xFFFF & !8, 0));
        assert_eq!(evidence.acknowledged(2, &table, &times), [3].into());
        evidence.reported(3, &"a".into(), 1, report(0xFFFF, 0));
        assert!(evidence.acknowledged(3, &table, &times).is_empty());
        assert_eq!(evidence.acknowledged(4 * INTERVAL, &table, &times), [3].into());
        assert_eq!(Evidence::default().acknowledged(1, &table, &times), [3].into(), "no reports");
    }
}
