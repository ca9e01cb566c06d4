//! The state behind the care of copies: reports and the table in, orders out. Does no I/O; `segments::plan` makes the choices.
//!
//! All monitors take reports, so that a new leader knows the copies. Only the leading monitor plans and has orders.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use contract::SegmentId;
use heartbeat::{
    Nanos,
    assign::{MAX_EPOCH_JUMP, NodeId},
    transport::assignments::Assignments,
};
use runtime::telemetry::Telemetry;
use segments::{
    BadReport, CopyReport, FailedPairs, Health, Plan, Reports, SegmentCopies, Version, WorkerReport,
    rpc::{Order, ReadReport, Step},
};

use super::{
    repairs::Repairs,
    running::{Ended, Kind, Outcome, RunningOrders},
};
use crate::status::SegmentStatus;

/// A pair of workers whose last transfer failed comes last for this long.
const FAILED_FOR: Nanos = 60_000_000_000;
/// A step that failed is not tried again for this long, in the same way.
const RETRY_AFTER: Nanos = 1_000_000_000;
/// A worker's first report is awaited for this many report intervals.
const AWAITED_INTERVALS: u64 = 2;

pub struct Care {
    report_every: Nanos,
    assignments: Arc<Assignments>,
    /// `None`: this monitor does not lead.
    leads_since: Option<Nanos>,
    /// Incarnation of each online worker, and since when this monitor knows that it is online.
    online: BTreeMap<NodeId, (u64, Nanos)>,
    reports: Reports,
    announced: BTreeMap<SegmentId, Announced>,
    running: RunningOrders,
    /// Source and receiver, and when their last transfer failed.
    failed: BTreeMap<(NodeId, NodeId), Nanos>,
    /// Steps that failed a moment ago: segment, source and receiver.
    paused: BTreeMap<(SegmentId, NodeId, NodeId), Nanos>,
    conflicts: BTreeSet<SegmentId>,
    repairs: Repairs,
    under_replicated_since: Option<Nanos>,
}

#[derive(Debug, Clone, Copy)]
struct Announced {
    version: Version,
    since: Nanos,
}

/// Why a report or a poll is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("worker {0} is not in the partition table: it registers, and waits until the monitors admit it")]
    Unknown(NodeId),
    #[error(
        "incarnation {incarnation} of worker {worker} is not online in table {epoch} of this monitor: send a complete report when it is"
    )]
    NotOnline { worker: NodeId, incarnation: u64, epoch: u64 },
    #[error("the report is of table epoch {found}, which no number of changes since epoch {known} explains")]
    WildEpoch { found: u64, known: u64 },
    #[error(transparent)]
    Bad(BadReport),
    #[error("a complete report is wanted: this monitor has none of worker {0} since its start")]
    Incomplete(NodeId),
}

/// What a plan found and did.
#[derive(Debug, Default)]
pub struct Planned {
    pub ended: Vec<Ended>,
    pub started: Vec<(NodeId, Order)>,
    /// New ones.
    pub conflicts: Vec<SegmentId>,
    /// Of the holders of each segment of which a version is known.
    pub health: BTreeMap<SegmentId, BTreeMap<NodeId, Health>>,
}

impl Care {
    pub fn new(report_every: Nanos, telemetry: Telemetry) -> Self {
        Self {
            report_every,
            assignments: Arc::default(),
            leads_since: None,
            online: BTreeMap::new(),
            reports: Reports::default(),
            announced: BTreeMap::new(),
            running: RunningOrders::default(),
            failed: BTreeMap::new(),
            paused: BTreeMap::new(),
            conflicts: BTreeSet::new(),
            repairs: Repairs::new(telemetry),
            under_replicated_since: None,
        }
    }

    /// The table and the leadership as they are now. Copies of workers that are not online are no sources; what an earlier incarnation
    /// reported is forgotten.
    pub fn follow(&mut self, now: Nanos, assignments: Arc<Assignments>, leads: bool) {
        if !leads {
            self.running.keep_rebuilds();
            self.repairs.clear();
            self.leads_since = None;
        } else if self.leads_since.is_none() {
            self.leads_since = Some(now);
        }
        if Arc::ptr_eq(&self.assignments, &assignments) {
            return;
        }
        self.assignments = assignments;
        let nodes = self.assignments.table.nodes.iter().filter(|(_, membership)| membership.online);
        let online: BTreeMap<_, _> = nodes.map(|(node, membership)| (node.clone(), membership.incarnation)).collect();
        for worker in self.online.keys().filter(|worker| !online.contains_key(*worker)) {
            self.reports.forget(worker);
        }
        let mut since = BTreeMap::new();
        for (worker, incarnation) in online {
            let known = self.online.get(&worker).filter(|(known, _)| *known == incarnation);
            if known.is_none() {
                self.reports.forget(&worker);
            }
            since.insert(worker, (incarnation, known.map_or(now, |(_, since)| *since)));
        }
        self.online = since;
        self.announce(now);
    }

    /// Takes a report. The orders whose end it reports are returned.
    ///
    /// # Errors
    /// The worker is not online, or the report is foreign, late, old, or not complete. What is known stays.
    pub fn report(&mut self, now: Nanos, report: ReadReport) -> Result<Vec<Ended>, Refused> {
        let ReadReport { worker, incarnation, number, table_epoch, complete, copies, finished } = report;
        self.check_online(&worker, incarnation)?;
        let known = self.assignments.table.epoch;
        if table_epoch > known.saturating_add(MAX_EPOCH_JUMP) {
            return Err(Refused::WildEpoch { found: table_epoch, known });
        }
        let taken = match complete {
            true => {
                let copies = copies.into_iter().filter_map(|(segment, copy)| Some((segment, copy?))).collect();
                let worker = worker.clone();
                self.reports.accept(WorkerReport { worker, incarnation, number, table_epoch, copies })
            }
            false => self.reports.update_all(&worker, incarnation, number, table_epoch, copies),
        };
        taken.map_err(|bad| match bad {
            BadReport::AllMissing { worker } => Refused::Incomplete(worker),
            other => Refused::Bad(other),
        })?;
        self.announce(now);
        let ended: Vec<Ended> = finished.iter().filter_map(|end| self.running.finish(&worker, end)).collect();
        ended.iter().for_each(|end| self.remember(now, end));
        Ok(ended)
    }

    /// # Errors
    /// This incarnation is not online.
    pub fn check_online(&self, worker: &NodeId, incarnation: u64) -> Result<(), Refused> {
        match self.online.get(worker) {
            Some((online, _)) if *online == incarnation => Ok(()),
            None if !self.assignments.table.nodes.contains_key(worker) => Err(Refused::Unknown(worker.clone())),
            _ => {
                let (worker, epoch) = (worker.clone(), self.assignments.table.epoch);
                Err(Refused::NotOnline { worker, incarnation, epoch })
            }
        }
    }

    fn remember(&mut self, now: Nanos, ended: &Ended) {
        let (from, to) = ended.pair();
        match ended.outcome {
            Outcome::Done { .. } => _ = self.failed.remove(&(from, to)),
            Outcome::Failed(_) | Outcome::TimedOut => {
                self.paused.insert((ended.order.segment, from.clone(), to.clone()), now);
                // A copy that cannot be removed says nothing about the worker's rebuilds.
                if ended.kind() != Kind::Drop {
                    self.failed.insert((from, to), now);
                }
            }
            Outcome::Offline => {}
        }
    }

    /// A version is announced when its primary has reported it complete. It never goes back.
    fn announce(&mut self, now: Nanos) {
        for segment in SegmentId::all() {
            let primary = self.assignments.table.partitions.get(segment.index()).and_then(|a| a.primary.as_deref());
            let report = primary.and_then(|primary| self.reports.of_worker(primary));
            let Some(version) = report.and_then(|report| complete(report.copies.get(&segment)?)) else { continue };
            if self.announced.get(&segment).is_none_or(|known| version.is_newer_than(&known.version)) {
                self.announced.insert(segment, Announced { version, since: now });
            }
        }
    }

    /// Plans, if this monitor leads. New steps become orders.
    pub fn plan(&mut self, now: Nanos) -> Planned {
        let online = &self.online;
        let ended = self.running.give_up(now, |worker| online.contains_key(worker));
        ended.iter().for_each(|end| self.remember(now, end));
        self.failed.retain(|_, at| now < *at + FAILED_FOR);
        self.paused.retain(|_, at| now < *at + RETRY_AFTER);
        let mut planned = Planned { ended, ..Planned::default() };
        let holders = self.holders();
        let awaited = self.awaited(now);
        let (reports, announced) = (&self.reports, &self.announced);
        let known = |segment, of| known_copies(reports, announced, segment, of, &awaited);
        let copies: Vec<_> = SegmentId::all().zip(&holders).map(|(segment, of)| known(segment, of)).collect();
        let health = copies.iter().filter_map(|of| Some((of.segment, of.health()?.1)));
        planned.health = health.collect();
        let is_good = |holders: &BTreeMap<NodeId, Health>| holders.values().all(|&health| health == Health::Good);
        if planned.health.values().all(is_good) {
            self.under_replicated_since = None;
        } else {
            self.under_replicated_since.get_or_insert(now);
        }
        if self.leads_since.is_some() {
            let failed: FailedPairs = self.failed.keys().cloned().collect();
            let running = self.running.as_plan();
            let plan = segments::plan(&copies, &running, &failed);
            for of in &copies {
                let mut rebuilds = running.rebuilds.iter().chain(&plan.rebuilds);
                let rebuilder = rebuilds.find(|rebuild| rebuild.segment == of.segment).map(|rebuild| &rebuild.worker);
                if let Some(health) = planned.health.get(&of.segment) {
                    self.repairs.observe(of, health, rebuilder);
                }
            }
            let conflicts = plan.conflicts.iter().copied().collect();
            planned.conflicts = BTreeSet::difference(&conflicts, &self.conflicts).copied().collect();
            self.conflicts = conflicts;
            planned.started = self.start(now, plan);
        }
        planned
    }

    /// The primary, then the replicas, of each segment.
    fn holders(&self) -> Vec<Vec<NodeId>> {
        let partitions = self.assignments.table.partitions.iter();
        partitions.map(|of| of.primary.iter().chain(&of.replicas).cloned().collect()).collect()
    }

    /// Online workers whose first report can still come.
    fn awaited(&self, now: Nanos) -> BTreeSet<NodeId> {
        let leads_since = self.leads_since.unwrap_or(0);
        let is_awaited = |worker: &NodeId, since: Nanos| {
            self.reports.of_worker(worker).is_none()
                && now < since.max(leads_since) + AWAITED_INTERVALS * self.report_every
        };
        let awaited = self.online.iter().filter(|(worker, (_, since))| is_awaited(worker, *since));
        awaited.map(|(worker, _)| worker.clone()).collect()
    }

    fn start(&mut self, now: Nanos, plan: Plan) -> Vec<(NodeId, Order)> {
        let mut steps = Vec::new();
        for transfer in plan.transfers {
            let segments::Transfer { segment, version, content, from, to, manifest, blocks } = transfer;
            // Without an address the source is not registered any more: the next table takes it offline.
            let Some(address) = self.assignments.addresses.get(&from).cloned() else { continue };
            steps.push((segment, to, Step::Transfer { version, content, from, address, manifest, blocks }));
        }
        for segments::Rebuild { segment, version, worker } in plan.rebuilds {
            steps.push((segment, worker, Step::Rebuild { version }));
        }
        steps.extend(plan.drops.into_iter().map(|(segment, worker)| (segment, worker, Step::Remove)));
        let mut started = Vec::new();
        for (segment, worker, step) in steps {
            let source = match &step {
                Step::Transfer { from, .. } => from,
                Step::Rebuild { .. } | Step::Remove => &worker,
            };
            if self.paused.contains_key(&(segment, source.clone(), worker.clone())) {
                continue;
            }
            let traceparent = self.repairs.traceparent(segment, &worker);
            let order = Order { id: rand::random(), segment, step, traceparent };
            self.running.start(now, worker.clone(), order.clone());
            started.push((worker, order));
        }
        started
    }

    /// Orders for a poll of this worker.
    ///
    /// # Errors
    /// This incarnation is not online.
    pub fn hand_out(&mut self, now: Nanos, worker: &NodeId, incarnation: u64) -> Result<Vec<Order>, Refused> {
        self.check_online(worker, incarnation)?;
        Ok(if self.leads_since.is_some() { self.running.hand_out(now, worker) } else { Vec::new() })
    }

    /// Workers whose polls should get orders now.
    pub fn due(&self, now: Nanos) -> impl Iterator<Item = &NodeId> {
        self.running.due(now)
    }

    /// For `Observer::copies`: of each partition and worker with a complete copy, the number of log entries in it.
    pub fn caught_up(&self) -> BTreeMap<(usize, NodeId), u64> {
        let of_segment = |segment: SegmentId| {
            let copies = self.reports.of(segment).into_iter();
            copies.filter_map(move |(worker, copy)| Some(((segment.index(), worker), entries(complete(copy?)?))))
        };
        SegmentId::all().flat_map(of_segment).collect()
    }

    /// Seconds since some segment has had fewer good copies than holders; 0: none has.
    pub fn under_replicated_seconds(&self, now: Nanos) -> f64 {
        self.under_replicated_since.map_or(0.0, |since| now.saturating_sub(since) as f64 / 1e9)
    }

    /// Of all segments of which a version is known.
    pub fn status(&self, now: Nanos) -> Vec<SegmentStatus> {
        let (holders, awaited) = (self.holders(), BTreeSet::new());
        let of_segment = |(segment, holders): (SegmentId, &Vec<NodeId>)| {
            let copies = known_copies(&self.reports, &self.announced, segment, holders, &awaited);
            let (winner, health) = copies.health()?;
            let since = self.announced.get(&segment).map_or(now, |announced| announced.since);
            Some(SegmentStatus {
                segment: segment.number(),
                version: entries(winner),
                epoch: winner.epoch,
                good: health.values().filter(|&&health| health == Health::Good).count(),
                holders: holders.len(),
                age_ms: now.saturating_sub(since) as f64 / 1e6,
            })
        };
        SegmentId::all().zip(&holders).filter_map(of_segment).collect()
    }
}

fn known_copies<'a>(
    reports: &'a Reports,
    announced: &BTreeMap<SegmentId, Announced>,
    segment: SegmentId,
    holders: &'a [NodeId],
    awaited: &'a BTreeSet<NodeId>,
) -> SegmentCopies<'a> {
    let announced = announced.get(&segment).map(|announced| announced.version);
    SegmentCopies { segment, holders, announced, copies: reports.of(segment), awaited }
}

/// The current version, if all its blocks are there.
fn complete(copy: &CopyReport) -> Option<Version> {
    copy.current.as_ref()?.complete_version()
}

/// Log entries that were folded, of all logs.
fn entries(version: Version) -> u64 {
    version.vector.positions().iter().fold(0, |sum, position| sum.saturating_add(*position))
}

#[cfg(test)]
#[path = "care_tests.rs"]
mod tests;
