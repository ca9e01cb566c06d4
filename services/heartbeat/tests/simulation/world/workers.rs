//! The workers' shell, after services/worker: heartbeats, registration and the partition table.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use heartbeat::{
    Nanos,
    assign::{NodeId, PARTITIONS},
    message::{Alive, Beat},
    ownership::Ownership,
    registry::{Registration, Response},
};

use super::{World, consumers::Consumer, partitions::PartitionTask};
use crate::{
    config::{Mutant, SECOND},
    events::{Event, Message, Published, StoreRequest},
    faults::Who,
    process::Process,
};

/// Heartbeats that can be replayed.
const RECORDED: Nanos = 20 * SECOND;

pub(super) struct Worker {
    pub(super) id: NodeId,
    pub(super) process: Process,
    /// Random, of this start.
    pub(super) process_id: u64,
    pub(super) incarnation: u64,
    /// The table has listed this incarnation as online.
    pub(super) was_admitted: bool,
    /// Another process with its name was registered later.
    gives_way: bool,
    pub(super) leaving: bool,
    pub(super) has_left: bool,
    sequence: u64,
    pub(super) ownership: Ownership,
    pub(super) addresses: BTreeMap<NodeId, usize>,
    pub(super) partitions: [PartitionTask; PARTITIONS],
    pub(super) consumers: [Consumer; PARTITIONS],
    /// Requests to the store without an answer.
    pub(super) open: BTreeMap<u64, StoreRequest>,
    pub(super) number: u64,
    /// A table that waits for the fences of the one before: a mutant.
    pub(super) waiting: Option<Arc<Published>>,
    pub(super) complaints: BTreeMap<(NodeId, usize), VecDeque<Nanos>>,
    pub(super) crashed_at: Option<Nanos>,
    /// Recent heartbeats, for replays.
    recorded: VecDeque<(Nanos, Arc<Beat>)>,
}

impl Worker {
    pub(super) fn new(id: NodeId, process: Process) -> Self {
        Self {
            ownership: Ownership::new(id.clone()),
            id,
            process,
            process_id: 0,
            incarnation: 0,
            was_admitted: false,
            gives_way: false,
            leaving: false,
            has_left: false,
            sequence: 0,
            addresses: BTreeMap::new(),
            partitions: Default::default(),
            consumers: Default::default(),
            open: BTreeMap::new(),
            number: 0,
            waiting: None,
            complaints: BTreeMap::new(),
            crashed_at: None,
            recorded: VecDeque::new(),
        }
    }

    fn begin_incarnation(&mut self, incarnation: u64) {
        (self.incarnation, self.sequence) = (incarnation, 0);
        (self.was_admitted, self.gives_way) = (false, false);
    }
}

impl World {
    /// A new process. `incarnation`: `None` for the wall clock's.
    pub(super) fn start_worker(&mut self, number: usize, incarnation: Option<u64>) {
        let (now, process_id) = (self.now, self.random.next().max(1));
        let worker = &mut self.workers[number];
        let process = std::mem::take(&mut worker.process);
        let recorded = std::mem::take(&mut worker.recorded);
        let incarnation = incarnation.unwrap_or_else(|| process.wall_ms(now));
        *worker = Worker { process_id, incarnation, recorded, ..Worker::new(worker.id.clone(), process) };
    }

    /// A heartbeat interval has passed.
    pub(super) fn beat(&mut self, number: usize) {
        if self.config.serve {
            self.tend_partitions(number);
        }
        self.send_beat(number);
        let monitors = self.monitors.len();
        let worker = &mut self.workers[number];
        let asked = (worker.sequence as usize + number) % monitors;
        if self.config.serve || worker.sequence == 1 {
            self.poll(asked, number);
        }
        self.register(number, asked);
    }

    fn send_beat(&mut self, number: usize) {
        let report = self.config.serve.then(|| self.report(number));
        let now = self.now;
        let worker = &mut self.workers[number];
        worker.sequence += 1;
        let beat = Arc::new(Beat {
            timestamp: worker.process.wall_ms(now),
            node_id: worker.id.to_string(),
            sequence: worker.sequence,
            incarnation: worker.incarnation,
            report,
            ..Beat::default()
        });
        if self.config.is_replayed(number) {
            worker.recorded.push_back((now, Arc::clone(&beat)));
            while worker.recorded.front().is_some_and(|(at, _)| at + RECORDED < now) {
                worker.recorded.pop_front();
            }
        }
        for monitor in 0..self.monitors.len() {
            self.send_datagram(Who::Worker(number), Who::Monitor(monitor), Message::Beat(Arc::clone(&beat)));
        }
    }

    /// Registers while it is not admitted, and announces that it leaves.
    fn register(&mut self, number: usize, monitor: usize) {
        let wall_ms = self.workers[number].process.wall_ms(self.now);
        let worker = &mut self.workers[number];
        let table = Arc::clone(worker.ownership.table());
        if let Some(membership) = table.nodes.get(&worker.id)
            && table.is_failed(&worker.id, worker.incarnation)
            && !worker.leaving
        {
            worker.begin_incarnation(wall_ms.max(membership.incarnation + 1));
        }
        // The other process is gone, and its name with it.
        worker.gives_way &= table.nodes.contains_key(&worker.id);
        let is_admitted = table.is_admitted(&worker.id, worker.incarnation, worker.process_id);
        worker.was_admitted |= is_admitted;
        let is_settled = is_admitted != worker.leaving || worker.gives_way;
        if is_settled || !self.config.serve && worker.sequence > 5 {
            return;
        }
        let node = Registration {
            id: worker.id.clone(),
            incarnation: worker.incarnation,
            process: worker.process_id,
            http: number.to_string(),
            udp: number.to_string(),
            leaving: worker.leaving,
        };
        self.send_stream(Who::Worker(number), Who::Monitor(monitor), Message::Register(node));
    }

    fn registered(&mut self, number: usize, response: &Response) {
        let Response::Superseded { incarnation } = response else { return };
        if self.config.is(Mutant::IgnoresRefusal) || self.config.is(Mutant::AnyProcess) {
            return;
        }
        let wall_ms = self.workers[number].process.wall_ms(self.now);
        let worker = &mut self.workers[number];
        if *incarnation < worker.incarnation {
            return;
        }
        if worker.was_admitted {
            worker.gives_way = true;
        } else {
            worker.begin_incarnation(wall_ms.max(incarnation + 1));
        }
    }

    /// A monitor answers a worker's poll immediately with its table; the request's way is left out.
    pub(super) fn poll(&mut self, monitor: usize, worker: usize) {
        let (from, to) = (Who::Worker(worker), Who::Monitor(monitor));
        if self.network.is_cut(from, to) || self.is_down(to) || self.paused(to).is_some() {
            return;
        }
        let published = self.published(monitor);
        if published.table.epoch > self.workers[worker].ownership.table().epoch {
            self.send_stream(to, from, Message::Table(published));
        }
    }

    pub(super) fn worker_hears(&mut self, number: usize, from: Who, message: Message) {
        let me = Who::Worker(number);
        match message {
            Message::Probe { monitor, worker, round, via: Some(via) } if worker != number => {
                let probe = Message::Probe { monitor, worker, round, via: Some(via) };
                self.send_datagram(me, Who::Worker(worker), probe);
            }
            Message::Probe { monitor, worker, round, .. } => {
                let answering = &self.workers[number];
                let (incarnation, sent_ms) = (answering.incarnation, answering.process.wall_ms(self.now));
                let alive = Alive { incarnation, sent_ms };
                let answer = Message::Answer { monitor, worker, alive, round };
                self.send_datagram(me, from, answer);
            }
            // On the way back.
            Message::Answer { monitor, .. } => self.send_datagram(me, Who::Monitor(monitor), message),
            Message::RegisterAnswer(response) => self.registered(number, &response),
            Message::Table(published) => self.learn(number, published),
            Message::Write(write) => self.serve(number, write),
            _ => {}
        }
    }

    /// Sends recorded heartbeats again, at their rate, for as long as the fault lasts.
    pub(super) fn replay(&mut self, worker: usize, monitor: usize, until: Nanos) {
        let recorded: Vec<_> = self.workers[worker].recorded.iter().cloned().collect();
        let Some(first) = recorded.first().map(|(at, _)| *at) else { return };
        for (at, beat) in recorded {
            let again = self.now + (at - first);
            if again < until {
                let (from, to) = (Who::Worker(worker), Who::Monitor(monitor));
                self.at(again, Event::Deliver { from, to, message: Message::Beat(beat), received: None });
            }
        }
    }
}
