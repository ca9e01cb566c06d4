//! Workers, their requests to the store, and the client that writes to them.

use std::sync::Arc;

use heartbeat::{
    Nanos,
    assign::NodeId,
    ownership::{Fence, Ownership, Refusal},
    registry::Registration,
};

use super::{SECOND, World};
use crate::{
    events::{Event, Message},
    faults::Who,
    process::Process,
};

pub(super) struct Worker {
    pub(super) id: NodeId,
    pub(super) process: Process,
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) ownership: Ownership,
    pub(super) crashed_at: Option<Nanos>,
}

impl World {
    /// A worker's heartbeat, to every monitor; registers while it is not admitted, and polls the table.
    pub(super) fn beat(&mut self, number: usize) {
        let monitors = self.monitors.len();
        let worker = &mut self.workers[number];
        worker.sequence += 1;
        let (incarnation, sequence) = (worker.incarnation, worker.sequence);
        for monitor in 0..monitors {
            let beat = Message::Beat { worker: number, incarnation, sequence };
            self.send_datagram(Who::Worker(number), Who::Monitor(monitor), beat);
        }
        let asked = (sequence as usize + number) % monitors;
        if self.config.serve || sequence == 1 {
            self.answer_poll(asked, number);
        }
        let worker = &mut self.workers[number];
        let table = worker.ownership.table();
        if table.is_failed(&worker.id, worker.incarnation) {
            // This incarnation was failed: the next one begins, without partitions.
            (worker.incarnation, worker.sequence) = (worker.incarnation + 1, 0);
        }
        if !table.is_admitted(&worker.id, worker.incarnation, number as u64) && (self.config.serve || sequence <= 5) {
            let (id, incarnation) = (worker.id.clone(), worker.incarnation);
            let (http, udp) = (String::new(), String::new());
            let node = Registration { id, incarnation, process: number as u64, http, udp, leaving: false };
            self.send_stream(Who::Worker(number), Who::Monitor(asked), Message::Register(node));
        }
    }

    /// A monitor answers a worker's poll immediately with its table; the request's way is left out.
    pub(super) fn answer_poll(&mut self, monitor: usize, worker: usize) {
        if self.is_cut(Who::Worker(worker), Who::Monitor(monitor)) || self.monitors[monitor].process.down > 0 {
            return;
        }
        let table = Arc::clone(&self.monitors[monitor].observer.snapshot().table);
        if table.epoch > self.workers[worker].ownership.table().epoch {
            self.send_stream(Who::Monitor(monitor), Who::Worker(worker), Message::Table(table));
        }
    }

    pub(super) fn worker_hears(&mut self, number: usize, from: Who, message: Message) {
        let me = Who::Worker(number);
        let incarnation = self.workers[number].incarnation;
        match message {
            Message::Probe { monitor, worker, round, via: Some(via) } if worker != number => {
                let probe = Message::Probe { monitor, worker, round, via: Some(via) };
                self.send_datagram(me, Who::Worker(worker), probe);
            }
            Message::Probe { monitor, worker, round, .. } => {
                let answer = Message::Answer { monitor, worker, incarnation, round };
                self.send_datagram(me, from, answer);
            }
            // On the way back.
            Message::Answer { monitor, .. } => self.send_datagram(me, Who::Monitor(monitor), message),
            Message::Table(table) => {
                let life = self.workers[number].process.life;
                for fence in self.workers[number].ownership.learn(table, incarnation, number as u64) {
                    let delay = self.delay();
                    self.after(delay, Event::StoreFence { worker: number, life, fence });
                }
            }
            Message::Write { partition, epoch, hops } => {
                match self.workers[number].ownership.admit(partition, Some(epoch)) {
                    Ok(epoch) => {
                        // A write may be in flight for long.
                        let late = if self.random.chance(0.02) { self.random.range(0, 3 * SECOND) } else { 0 };
                        let delay = self.delay() + late;
                        self.after(delay, Event::StoreWrite { worker: number, incarnation, partition, epoch });
                    }
                    Err(refusal) => self.send_stream(me, Who::Client, Message::Refused { partition, refusal, hops }),
                }
            }
            _ => {}
        }
    }

    /// `incarnation`: of the worker when it sent the write, which may arrive after its end.
    pub(super) fn store_write(&mut self, worker: usize, incarnation: u64, partition: usize, epoch: u64) {
        if self.fences[partition] > epoch {
            self.checks.refused_by_fence += 1;
            let by = self.fences[partition];
            self.workers[worker].ownership.overruled(Fence { partition, epoch }, by);
            return;
        }
        let writer = self.workers[worker].id.clone();
        self.checks.written(self.now, partition, epoch, (&writer, incarnation));
        self.send_stream(Who::Worker(worker), Who::Client, Message::Acknowledged { partition });
    }

    pub(super) fn store_fence(&mut self, worker: usize, life: u64, fence: Fence) {
        if self.workers[worker].process.life != life {
            return;
        }
        if self.fences[fence.partition] > fence.epoch {
            let by = self.fences[fence.partition];
            return self.workers[worker].ownership.overruled(fence, by);
        }
        self.fences[fence.partition] = fence.epoch;
        self.workers[worker].ownership.fenced(fence);
    }

    pub(super) fn client_write(&mut self, partition: usize, hops: u8) {
        let assignment = &self.client.partitions[partition];
        let Some(primary) = assignment.primary.clone() else { return };
        let (epoch, to) = (assignment.epoch, self.config.worker(&primary));
        self.send_stream(Who::Client, to, Message::Write { partition, epoch, hops });
    }

    pub(super) fn redirected(&mut self, partition: usize, refusal: Refusal, hops: u8) {
        let Refusal::NotMine { primary: Some(primary), epoch } = refusal else { return };
        if hops < 2 && epoch > self.client.partitions[partition].epoch {
            let to = self.config.worker(&primary);
            self.send_stream(Who::Client, to, Message::Write { partition, epoch, hops: hops + 1 });
        }
    }
}
