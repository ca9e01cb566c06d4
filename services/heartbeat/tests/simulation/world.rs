//! Monitors, workers, a client, the registry in memory and the store's fence on one virtual clock. One event queue and one source of
//! randomness: a seed repeats a run bit for bit. All decisions are made by the product's code. The shells around it (sending, waiting,
//! open requests) and the store's fence are reimplemented after the product's.

mod failing;
mod monitors;
mod network;
mod workers;

use std::{collections::BinaryHeap, sync::Arc};

use heartbeat::{
    Nanos,
    assign::{NodeId, PARTITIONS, Table},
    ownership::Ownership,
    registry::InMemoryRegistry,
    vote,
};

use self::{
    monitors::{Monitor, observer},
    workers::Worker,
};
use crate::{
    checks::Checks,
    events::{Event, Message, Queued},
    faults::{Fault, Kind, Who},
    process::Process,
    random::Random,
};

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MS;

#[derive(Clone)]
pub struct Config {
    pub seed: u64,
    pub monitors: usize,
    pub workers: usize,
    pub interval: Nanos,
    /// Datagrams lost without faults.
    pub loss: f64,
    pub length: Nanos,
    pub faults: Vec<Fault>,
    /// Workers follow the table, and a client writes.
    pub serve: bool,
    /// A mutant that breaks this rule.
    pub quorum: fn(usize) -> usize,
    /// A mutant whose registry accepts every commit.
    pub accepts_any_commit: bool,
}

impl Config {
    pub fn new(seed: u64, monitors: usize, workers: usize, length: Nanos) -> Self {
        let (interval, quorum) = (SECOND, vote::majority as fn(usize) -> usize);
        let faults = Vec::new();
        Self {
            seed,
            monitors,
            workers,
            interval,
            loss: 0.0,
            length,
            faults,
            serve: true,
            quorum,
            accepts_any_commit: false,
        }
    }

    pub fn worker(&self, id: &str) -> Who {
        Who::Worker(id[1..].parse().expect("a worker's name is w and its number"))
    }
}

pub struct World {
    pub config: Config,
    now: Nanos,
    order: u64,
    queue: BinaryHeap<Queued>,
    random: Random,
    monitors: Vec<Monitor>,
    workers: Vec<Worker>,
    registry: InMemoryRegistry,
    registry_down: u32,
    /// Cuts and losses in force, checked when messages are sent.
    in_force: Vec<Kind>,
    fences: [u64; PARTITIONS],
    client: Arc<Table>,
    pub acknowledged: u64,
    pub acknowledged_at: [Nanos; PARTITIONS],
    pub checks: Checks,
    /// A running hash over all events.
    pub trace: u64,
    /// From a crash to the commit that failed the worker.
    pub detected: Vec<Nanos>,
    /// Workers failed while they were up: correct if they paused or were cut off.
    pub failed_alive: Vec<(Nanos, NodeId)>,
}

impl World {
    pub fn new(config: Config) -> Self {
        let mut random = Random::new(config.seed);
        let mut process = || Process {
            skew_ppm: random.range(0, 400) as i64 - 200,
            offset: random.range(0, 1_000_000 * SECOND),
            ..Process::default()
        };
        let processes: Vec<Process> = (0..config.monitors + config.workers).map(|_| process()).collect();
        let mut processes = processes.into_iter();
        let mut monitors = Vec::new();
        for number in 0..config.monitors {
            let process = processes.next().expect("one for each");
            let observer = observer(&config, number, &process, 0);
            monitors.push(Monitor { process, observer, timer: 0, open: Vec::new(), number: 0, told_epoch: 0 });
        }
        let worker = |(number, process)| {
            let id: NodeId = format!("w{number}").into();
            let ownership = Ownership::new(id.clone());
            Worker { id, process, incarnation: 1, sequence: 0, ownership, crashed_at: None }
        };
        let workers = processes.enumerate().map(worker).collect();
        let registry = InMemoryRegistry::default();
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            random,
            monitors,
            workers,
            registry,
            registry_down: 0,
            in_force: Vec::new(),
            fences: [0; PARTITIONS],
            client: Arc::default(),
            acknowledged: 0,
            acknowledged_at: [0; PARTITIONS],
            checks: Checks::default(),
            trace: 0,
            detected: Vec::new(),
            failed_alive: Vec::new(),
            config,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for number in 0..self.monitors.len() {
            self.after(number as u64, Event::Timer { who: Who::Monitor(number), life: 0 });
        }
        for number in 0..self.workers.len() {
            // Heartbeats of different workers have different phases.
            let phase = self.random.range(0, self.config.interval);
            self.after(phase, Event::Timer { who: Who::Worker(number), life: 0 });
        }
        if self.config.serve {
            self.after(SECOND, Event::Timer { who: Who::Client, life: 0 });
        }
        for number in 0..self.config.faults.len() {
            let Fault { at, lasts, .. } = self.config.faults[number];
            self.at(at, Event::Begin(number));
            self.at(at + lasts, Event::End(number));
        }
    }

    /// To the end, or to the first violation.
    pub fn run(mut self) -> Self {
        while let Some(Queued { at, event, .. }) = self.queue.pop() {
            if at > self.config.length || self.checks.breach.is_some() {
                break;
            }
            self.now = at;
            self.handle(*event);
        }
        self
    }

    /// What must hold some time after all faults have ended.
    pub fn check_recovered(&mut self) {
        let table = Arc::clone(&self.registry.state().table);
        for worker in self.workers.iter().filter(|worker| worker.process.down == 0) {
            if !table.is_online(&worker.id) {
                self.checks.broken(self.now, &format!("{} is up and was not admitted again", worker.id));
            }
        }
        for partition in 0..PARTITIONS {
            if self.acknowledged_at[partition] + 10 * SECOND < self.now {
                self.checks.broken(self.now, &format!("nobody could write to partition {partition} at the end"));
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message } => {
                if let Some(resumes) = self.paused(to) {
                    return self.at(resumes, Event::Deliver { from, to, message });
                }
                if !self.is_down(to) {
                    self.record(1, to, message.kind());
                    self.deliver(from, to, message);
                }
            }
            Event::Timer { who, life } => {
                if self.life(who) != life || self.is_down(who) {
                    return;
                }
                match self.paused(who) {
                    Some(resumes) => self.at(resumes, Event::Timer { who, life }),
                    None => self.timer(who, life),
                }
            }
            Event::NoAnswer { monitor, life, number } => self.request_failed(monitor, life, number),
            Event::StoreWrite { worker, incarnation, partition, epoch } => {
                self.store_write(worker, incarnation, partition, epoch);
            }
            Event::StoreFence { worker, life, fence } => self.store_fence(worker, life, fence),
            Event::Begin(number) => self.fault(number, true),
            Event::End(number) => self.fault(number, false),
        }
    }

    fn timer(&mut self, who: Who, life: u64) {
        match who {
            Who::Monitor(number) => {
                // An obsolete timer. Continuing from it would multiply the timers.
                if self.monitors[number].timer <= self.now {
                    self.pump(number);
                }
            }
            Who::Worker(number) => {
                self.beat(number);
                self.after(self.config.interval, Event::Timer { who, life });
            }
            Who::Client => {
                let partition = self.random.range(0, PARTITIONS as u64) as usize;
                self.client_write(partition, 0);
                self.after(25 * MS, Event::Timer { who, life });
            }
            Who::Registry => {}
        }
    }

    fn deliver(&mut self, from: Who, to: Who, message: Message) {
        match (to, message) {
            (Who::Monitor(number), message) => self.monitor_hears(number, message),
            (Who::Worker(number), message) => self.worker_hears(number, from, message),
            (Who::Registry, Message::Ask { monitor, life, number, asked, request }) => {
                let before = Arc::clone(self.registry.state());
                let response = self.registry.apply(self.now, request);
                let after = Arc::clone(self.registry.state());
                if !Arc::ptr_eq(&before.table, &after.table) {
                    self.committed(&before.table, &after.table);
                }
                let told = Message::Told { life, number, asked, response };
                self.send_stream(Who::Registry, Who::Monitor(monitor), told);
                if after.revision != before.revision {
                    self.notify();
                }
            }
            (Who::Client, Message::Table(table)) if table.epoch > self.client.epoch => self.client = table,
            (Who::Client, Message::Refused { partition, refusal, hops }) => self.redirected(partition, refusal, hops),
            (Who::Client, Message::Acknowledged { partition }) => {
                self.acknowledged += 1;
                self.acknowledged_at[partition] = self.now;
            }
            _ => {}
        }
    }

    fn committed(&mut self, before: &Table, after: &Table) {
        self.record(4, Who::Registry, after.epoch);
        self.checks.committed(self.now, &self.config, before, after);
        for (id, membership) in after.nodes.iter().filter(|(id, s)| !s.online && before.is_online(id)) {
            let Who::Worker(number) = self.config.worker(id) else { continue };
            let worker = &self.workers[number];
            match worker.crashed_at {
                Some(at) => self.detected.push(self.now - at),
                None if worker.incarnation == membership.incarnation => self.failed_alive.push((self.now, id.clone())),
                None => {}
            }
        }
    }

    fn after(&mut self, delay: Nanos, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Nanos, event: Event) {
        self.order += 1;
        self.queue.push(Queued { at, order: self.order, event: Box::new(event) });
    }

    fn record(&mut self, kind: u64, who: Who, what: u64) {
        let who = match who {
            Who::Monitor(number) => number as u64,
            Who::Worker(number) => 1_000 + number as u64,
            Who::Registry => 1 << 20,
            Who::Client => 1 << 21,
        };
        for word in [self.now, kind, who, what] {
            self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01B3).rotate_left(5);
        }
    }
}
