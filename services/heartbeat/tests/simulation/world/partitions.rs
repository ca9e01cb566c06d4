//! A worker's partitions: one task for each, with a deadline for every request to the store.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use heartbeat::{
    Nanos,
    assign::{NodeId, PARTITIONS},
    message::{Complaint, MAX_COMPLAINTS, WorkerReport},
    ownership::{Fence, Refusal},
};

use super::World;
use crate::{
    config::{MS, Mutant, SECOND},
    events::{Event, Message, Published, StoreAnswer, StoreRequest, Write},
    faults::{Kind, Who},
};

/// Timeout of a request to the store.
const STORE_TIMEOUT: Nanos = SECOND;
/// Pause before a failed fence is set again.
const RETRY_PAUSE: Nanos = 500 * MS;
/// Requests of this time decide whether a partition is failing.
const WINDOW: Nanos = 3 * SECOND;
/// Failures in the window from which a partition is failing, if they are also a large share.
const FAILURES: usize = 4;
/// Complaints of requesters within the window that are reported.
const COMPLAINTS: usize = 3;

/// State of one partition of a worker.
#[derive(Default)]
pub(super) struct PartitionTask {
    /// The fence in flight or waiting for its repetition, and its epoch.
    fencing: Option<u64>,
    owned_epoch: u64,
    last_success: Nanos,
    /// Ends of requests, and whether they succeeded.
    outcomes: VecDeque<(Nanos, bool)>,
    failing_since: Option<Nanos>,
}

impl World {
    pub(super) fn learn(&mut self, number: usize, published: Arc<Published>) {
        let worker = &mut self.workers[number];
        if self.config.is(Mutant::SerialTakeover) && worker.partitions.iter().any(|task| task.fencing.is_some()) {
            let is_later = worker.waiting.as_ref().is_none_or(|known| known.table.epoch < published.table.epoch);
            if is_later {
                worker.waiting = Some(published);
            }
            return;
        }
        if published.table.epoch <= worker.ownership.table().epoch {
            return;
        }
        worker.addresses.clone_from(&published.addresses);
        let mut process_id = worker.process_id;
        if self.config.is(Mutant::AnyProcess)
            && let Some(membership) = published.table.nodes.get(&worker.id)
        {
            process_id = membership.process;
        }
        // Before it serves: later it gives way to another process of its name, instead of beginning another incarnation.
        worker.was_admitted |= published.table.is_admitted(&worker.id, worker.incarnation, process_id);
        let before = Arc::clone(worker.ownership.table());
        // Complaints about the former primary say nothing about the new one.
        worker.complaints.retain(|(_, at), _| before.partitions[*at].epoch == published.table.partitions[*at].epoch);
        let fences = worker.ownership.learn(Arc::clone(&published.table), worker.incarnation, process_id);
        for fence in fences {
            self.set_fence(number, fence);
        }
        // Its next polls.
        let follows = published.table.epoch;
        for monitor in 0..self.config.monitors {
            self.send_stream(Who::Worker(number), Who::Monitor(monitor), Message::Follows { epoch: follows });
        }
    }

    fn set_fence(&mut self, number: usize, fence: Fence) {
        let now = self.now;
        let task = &mut self.workers[number].partitions[fence.partition];
        if task.fencing == Some(fence.epoch) {
            return;
        }
        if task.owned_epoch != fence.epoch {
            *task = PartitionTask { owned_epoch: fence.epoch, last_success: now, ..PartitionTask::default() };
        }
        task.fencing = Some(fence.epoch);
        self.ask_store(number, fence.partition, fence.epoch, None);
    }

    fn ask_store(&mut self, number: usize, partition: usize, epoch: u64, write: Option<Write>) {
        let worker = &mut self.workers[number];
        worker.number += 1;
        let life = worker.process.life;
        let request = StoreRequest {
            worker: number,
            life,
            number: worker.number,
            process_id: worker.process_id,
            incarnation: worker.incarnation,
            partition,
            epoch,
            write,
        };
        worker.open.insert(request.number, request.clone());
        if request.write.is_some() || !self.config.is(Mutant::SerialTakeover) {
            self.after(STORE_TIMEOUT, Event::StoreTimeout { worker: number, life, number: request.number });
        }
        self.send_to_store(request);
    }

    pub(super) fn store_answered(&mut self, number: usize, life: u64, request: u64, answer: StoreAnswer) {
        let worker = &mut self.workers[number];
        if worker.process.life != life || worker.process.down > 0 {
            return;
        }
        // An answer after the timeout is ignored.
        let Some(request) = worker.open.remove(&request) else { return };
        let StoreRequest { partition, epoch, .. } = request;
        let task = &mut worker.partitions[partition];
        let is_fence = request.write.is_none();
        if is_fence && task.fencing == Some(epoch) {
            task.fencing = None;
        }
        task.outcomes.push_back((self.now, answer != StoreAnswer::Error));
        match answer {
            StoreAnswer::Done { .. } => {
                task.last_success = self.now;
                if is_fence {
                    worker.ownership.fenced(Fence { partition, epoch });
                    self.start_consumer(number, Fence { partition, epoch });
                }
            }
            StoreAnswer::Stale { current } => {
                worker.ownership.overruled(Fence { partition, epoch }, current);
            }
            StoreAnswer::Error if is_fence => {
                // A fence of a later epoch may be on its way.
                task.fencing.get_or_insert(epoch);
                self.after(RETRY_PAUSE, Event::FenceAgain { worker: number, life, partition });
            }
            StoreAnswer::Error => {}
        }
        self.answer_client(number, request.write, epoch, answer);
        if let Some(published) = self.workers[number].waiting.take() {
            self.learn(number, published);
        }
    }

    fn answer_client(&mut self, number: usize, write: Option<Write>, epoch: u64, answer: StoreAnswer) {
        let Some(write) = write else { return };
        if let StoreAnswer::Done { counter } = answer {
            if !self.config.is(Mutant::AcknowledgedBeforeStored) {
                let acknowledged = Message::Acknowledged { write, epoch, counter };
                self.send_stream(Who::Worker(number), Who::Client, acknowledged);
            }
        } else {
            let is_certain = matches!(answer, StoreAnswer::Stale { .. });
            self.send_stream(Who::Worker(number), Who::Client, Message::Refused { write, redirect: None, is_certain });
        }
    }

    pub(super) fn fence_again(&mut self, number: usize, life: u64, partition: usize) {
        let worker = &mut self.workers[number];
        if worker.process.life != life || worker.process.down > 0 {
            return;
        }
        worker.partitions[partition].fencing = None;
        if let Some(epoch) = self.owned_epoch(number, partition) {
            self.set_fence(number, Fence { partition, epoch });
        }
    }

    /// The epoch in which the worker owns the partition, whether its fence is set or not.
    fn owned_epoch(&self, number: usize, partition: usize) -> Option<u64> {
        match self.workers[number].ownership.admit(partition, None) {
            Ok(epoch) | Err(Refusal::TakingOver { epoch }) => Some(epoch),
            Err(_) => None,
        }
    }

    /// Checks the way to the store where no request does, and judges it.
    pub(super) fn tend_partitions(&mut self, number: usize) {
        let (now, interval) = (self.now, self.config.interval);
        let longest = SECOND.max(3 * interval);
        for partition in 0..PARTITIONS {
            let Some(epoch) = self.owned_epoch(number, partition) else {
                self.workers[number].partitions[partition].failing_since = None;
                continue;
            };
            let task = &mut self.workers[number].partitions[partition];
            while task.outcomes.front().is_some_and(|(at, _)| at + WINDOW < now) {
                task.outcomes.pop_front();
            }
            let silent = now.saturating_sub(task.last_success);
            let failures = task.outcomes.iter().filter(|(_, succeeded)| !succeeded).count();
            let fails = failures >= FAILURES && 20 * failures >= task.outcomes.len();
            let mut resigns = false;
            if silent > longest || fails {
                let since = *task.failing_since.get_or_insert(now);
                resigns = silent > longest && now - since > longest;
            } else {
                task.failing_since = None;
            }
            let needs_fence = task.fencing.is_none() && silent > interval;
            if resigns {
                self.workers[number].ownership.resign(Fence { partition, epoch });
            }
            if needs_fence {
                self.set_fence(number, Fence { partition, epoch });
            }
        }
    }

    pub(super) fn report(&self, number: usize) -> WorkerReport {
        let worker = &self.workers[number];
        let mut report = WorkerReport {
            process: worker.process_id,
            history: worker.ownership.table().history,
            epoch: worker.ownership.table().epoch,
            ..WorkerReport::default()
        };
        let serving: Vec<usize> = worker.ownership.serving().map(|(partition, _)| partition).collect();
        for (partition, task) in worker.partitions.iter().enumerate() {
            let is_owned = self.owned_epoch(number, partition).is_some();
            report.serving |= u32::from(serving.contains(&partition)) << partition;
            report.failing |= u32::from(task.failing_since.is_some()) << partition;
            if is_owned {
                let age = self.now.saturating_sub(task.last_success) / MS;
                report.store_age_ms = report.store_age_ms.max(age as u32);
            }
        }
        report.overruled_by = worker.ownership.overruled_by();
        if self.config.is(Mutant::SilentOverrule) {
            (report.history, report.epoch, report.overruled_by) = (0, 0, 0);
        }
        if !self.config.is(Mutant::NoComplaints) {
            report.complaints = self.complaints(number);
        }
        report
    }

    fn complaints(&self, number: usize) -> Vec<Complaint> {
        let mut by_node: BTreeMap<&NodeId, (u32, usize)> = BTreeMap::new();
        for ((node, partition), times) in &self.workers[number].complaints {
            let recent = times.iter().filter(|at| **at + WINDOW >= self.now).count();
            if recent > 0 {
                let of_node = by_node.entry(node).or_default();
                *of_node = (of_node.0 | 1 << partition, of_node.1 + recent);
            }
        }
        let table = self.workers[number].ownership.table();
        // With two workers in all, one gets every complaint about the other, and counts for two.
        let has_one_peer = table.nodes.values().filter(|membership| membership.online).count() <= 2;
        let needed = if has_one_peer { 2 * COMPLAINTS } else { COMPLAINTS };
        let reported = by_node.into_iter().filter(|(_, (_, requests))| *requests >= needed);
        let complaint =
            |(node, (partitions, _)): (&NodeId, (u32, usize))| Complaint { node_id: node.to_string(), partitions };
        reported.map(complaint).take(MAX_COMPLAINTS).collect()
    }

    /// A client's write.
    pub(super) fn serve(&mut self, number: usize, write: Write) {
        let (now, partition) = (self.now, write.partition);
        let is_gray = |(kind, _): &(Kind, Nanos)| match kind {
            Kind::Gray { worker, partitions } => *worker == number && partitions & (1 << partition) != 0,
            _ => false,
        };
        if self.in_force.iter().any(is_gray) {
            return;
        }
        // A worker passes a complaint on if its own path to the store is good.
        let is_prompt = write.unserved_by.is_empty() || self.is_prompt(number, partition);
        let worker = &mut self.workers[number];
        for node in write.unserved_by.iter().filter(|node| is_prompt && **node != worker.id) {
            let times = worker.complaints.entry((node.clone(), partition)).or_default();
            times.push_back(now);
            if times.len() > 2 * COMPLAINTS {
                times.pop_front();
            }
        }
        let me = Who::Worker(number);
        let admitted = worker.ownership.admit(partition, write.epoch);
        match admitted {
            Ok(epoch) => {
                if self.config.is(Mutant::AcknowledgedBeforeStored) {
                    let counter = self.rows[partition].counter() + 1;
                    self.send_stream(me, Who::Client, Message::Acknowledged { write: write.clone(), epoch, counter });
                }
                self.ask_store(number, partition, epoch, Some(write));
            }
            Err(refusal) => {
                let redirect = match refusal {
                    Refusal::NotMine { primary: Some(primary), .. } => worker.addresses.get(&primary).copied(),
                    _ => None,
                };
                self.send_stream(me, Who::Client, Message::Refused { write, redirect, is_certain: true });
            }
        }
    }
}
