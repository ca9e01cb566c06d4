//! Monitors, workers, clients, topics, the registry in memory and the store on one virtual clock. One event queue and two sources of randomness:
//! a seed repeats a run bit for bit. All decisions about membership and ownership are made by the product's code. The shells around it
//! (sending, waiting, open requests), the store's fence and the consumers of behaviour events are reimplemented after the product's.

mod broker;
mod client;
mod consumers;
mod etcd;
mod failing;
mod monitors;
mod network;
mod partitions;
mod store;
mod tables;
mod transactions;
mod workers;

use std::{collections::BinaryHeap, sync::Arc};

use heartbeat::{
    Nanos,
    assign::{NodeId, PARTITIONS},
    history::Outcome,
};

use self::{
    broker::Broker, client::Client, etcd::Etcd, monitors::Monitor, network::Network, store::Row, workers::Worker,
};
use crate::{
    checks::Checks,
    config::{Config, MS, Mutant, SECOND},
    environment::Environment,
    events::{Event, Message, Queued, StoreAnswer},
    faults::{Kind, Who},
    log::Log,
    process::Process,
    random::Random,
};

/// How often it is checked that partitions are served.
const LOOK_EVERY: Nanos = 250 * MS;

pub struct World {
    pub config: Config,
    now: Nanos,
    order: u64,
    queue: BinaryHeap<Queued>,
    random: Random,
    monitors: Vec<Monitor>,
    workers: Vec<Worker>,
    etcd: Etcd,
    registry_down: u32,
    /// Faults, and when they end.
    in_force: Vec<(Kind, Nanos)>,
    network: Network,
    environment: Environment,
    rows: [Row; PARTITIONS],
    /// What the store keeps next to the rows.
    logs: [Log; PARTITIONS],
    broker: Broker,
    /// Of topics, consumers and batches: they do not change what the rest of a run draws.
    log_random: Random,
    client: Client,
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
        let (mut random, mut log_random) = (Random::new(config.seed), Random::new(config.seed ^ 0x10C5));
        let all = config.monitors + config.workers + config.spares;
        let mut process = || Process {
            skew_ppm: random.range(0, 400) as i64 - 200,
            offset: random.range(0, 1_000_000 * SECOND),
            ..Process::default()
        };
        let processes: Vec<Process> = (0..all).map(|_| process()).collect();
        let mut processes = processes.into_iter();
        let mut monitors = Vec::new();
        for number in 0..config.monitors {
            let process = processes.next().expect("one for each");
            monitors.push(Monitor::new(&config, number, process, 0));
        }
        let worker = |(number, process)| Worker::new(format!("w{number}").into(), process);
        let workers = processes.enumerate().map(worker).collect();
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            random,
            monitors,
            workers,
            etcd: Etcd::new(config.is(Mutant::AnyCommit)),
            registry_down: 0,
            in_force: Vec::new(),
            network: Network::default(),
            environment: Environment::default(),
            rows: Default::default(),
            logs: std::array::from_fn(|partition| Log::imported(broker::imported(partition))),
            broker: Broker::new(&mut log_random),
            log_random,
            client: Client::default(),
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
        self.network.set(self.config.loss, [].into_iter());
        for number in 0..self.monitors.len() {
            self.after(number as u64, Event::Timer { who: Who::Monitor(number), life: 0 });
        }
        for number in 0..self.workers.len() {
            if number >= self.config.workers {
                self.workers[number].process.down = 1;
                continue;
            }
            self.start_worker(number, None);
            // Heartbeats of different workers have different phases.
            let phase = self.random.range(0, self.config.interval);
            self.after(phase, Event::Timer { who: Who::Worker(number), life: 0 });
        }
        if self.config.serve {
            self.after(SECOND, Event::Timer { who: Who::Client, life: 0 });
            self.after(LOOK_EVERY, Event::Look);
        }
        if self.config.events {
            self.after(SECOND, Event::SendActions);
        }
        for number in 0..self.config.faults.len() {
            let fault = self.config.faults[number];
            self.at(fault.at, Event::Begin(number));
            self.at(fault.end(), Event::End(number));
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
        let table = Arc::clone(&self.etcd.state().table);
        for number in 0..self.config.workers {
            let worker = &self.workers[number];
            if worker.process.down == 0 && !table.is_online(&worker.id) {
                self.checks.broken(self.now, &format!("{} is up and was not admitted again", worker.id));
            }
        }
        for partition in 0..PARTITIONS {
            if self.client.acknowledged_at[partition] + 10 * SECOND < self.now {
                self.checks.broken(self.now, &format!("no client could write to partition {partition} at the end"));
            }
        }
        for number in 0..self.monitors.len() {
            if self.monitors[number].complete_at + 10 * SECOND < self.now {
                self.checks.broken(self.now, &format!("m{number} does not count the votes of all monitors at the end"));
            }
        }
        self.abandon_attempts();
        for (partition, row) in self.rows.iter().enumerate() {
            self.checks.check_history(self.now, partition, row.state());
        }
        self.check_logs();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message, received } => self.arrive(from, to, message, received),
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
            Event::Store(request) => self.store(request),
            Event::StoreAnswered { request, answer } => {
                self.unless_paused(
                    request.worker,
                    Event::StoreAnswered { request: request.clone(), answer },
                    |world| {
                        world.store_answered(request.worker, request.life, request.number, answer);
                    },
                );
            }
            Event::StoreTimeout { worker, life, number } => {
                self.unless_paused(worker, Event::StoreTimeout { worker, life, number }, |world| {
                    world.store_answered(worker, life, number, StoreAnswer::Error);
                });
            }
            Event::FenceAgain { worker, life, partition } => {
                self.unless_paused(worker, Event::FenceAgain { worker, life, partition }, |world| {
                    world.fence_again(worker, life, partition);
                });
            }
            Event::Command { step, command, is_answered } => self.execute(step, command, is_answered),
            Event::Reply { step, reply } => match self.paused(Who::Worker(step.worker)) {
                Some(resumes) => self.at(resumes, Event::Reply { step, reply }),
                None => self.consume(step, reply),
            },
            Event::SendActions => self.send_actions(),
            Event::Send(sending) => self.append(sending),
            Event::AttemptTimeout { operation, attempt } => self.attempt_timed_out(operation, attempt),
            Event::Look => self.look(),
            Event::Begin(number) => self.fault(number, true),
            Event::End(number) => self.fault(number, false),
        }
    }

    /// Now, or when the worker continues.
    fn unless_paused(&mut self, worker: usize, event: Event, then: impl FnOnce(&mut Self)) {
        match self.paused(Who::Worker(worker)) {
            Some(resumes) => self.at(resumes, event),
            None => then(self),
        }
    }

    fn arrive(&mut self, from: Who, to: Who, message: Message, received: Option<Nanos>) {
        let first = received.unwrap_or(self.now);
        if let Some(resumes) = self.paused(to) {
            // It waits in the socket: the process receives it later.
            return self.at(resumes, Event::Deliver { from, to, message, received: None });
        }
        // Answers of the registry come before the inputs.
        if !matches!(message, Message::Told { .. })
            && let Some(end) = self.backlog(to)
        {
            return self.at(end, Event::Deliver { from, to, message, received: Some(first) });
        }
        if self.is_down(to) {
            return;
        }
        self.record(1, to, message.kind());
        match (to, message) {
            (Who::Monitor(number), message) => self.monitor_hears(number, from, message, first),
            (Who::Worker(number), message) => self.worker_hears(number, from, message),
            (Who::Registry, Message::Ask { monitor, life, number, asked, request }) => {
                self.asked(monitor, life, (number, asked), request);
            }
            (Who::Client, Message::Table(published)) if published.table.epoch > self.client.known.table.epoch => {
                self.client.known = published;
            }
            (Who::Client, Message::Refused { write, redirect, is_certain }) => {
                if is_certain {
                    self.ended(&write, Outcome::Refused);
                }
                self.try_again(&write, redirect);
            }
            (Who::Client, Message::Acknowledged { write, epoch, counter }) => self.acknowledged(&write, epoch, counter),
            _ => {}
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
                self.stop_if_left(number);
                self.after(self.config.interval, Event::Timer { who, life });
            }
            Who::Client => {
                self.write();
                self.after(client::PACE, Event::Timer { who, life });
            }
            Who::Registry => {}
        }
    }

    /// Where the same majority of monitors and one worker have been healthy for long enough, clients can write.
    fn look(&mut self) {
        self.after(LOOK_EVERY, Event::Look);
        self.etcd.keep_copy(self.now);
        for monitor in &mut self.monitors {
            if monitor.observer.present(monitor.process.clock(self.now)) == self.config.monitors {
                monitor.complete_at = self.now;
            }
        }
        let bound = self.config.restored_within();
        let Some(since) = self.now.checked_sub(bound) else { return };
        if self.environment.is_controlled(&self.config, since) {
            self.look_at_members(since);
        }
        let able = self.environment.able_workers(&self.config, since);
        for (partition, able) in able.into_iter().enumerate() {
            let Some(able) = able.filter(|_| self.client.acknowledged_at[partition] < since) else { continue };
            let broken = format!(
                "no client could write to partition {partition} for {} s, although w{able} and a majority could act",
                bound / SECOND
            );
            self.checks.broken(self.now, &broken);
        }
    }

    /// The table follows what all monitors could observe since this time.
    fn look_at_members(&mut self, since: Nanos) {
        let bound = self.config.restored_within() / SECOND;
        for number in 0..self.config.workers {
            let worker = &self.workers[number];
            let is_online = self.etcd.state().table.is_online(&worker.id);
            if !is_online && self.environment.is_reachable(&self.config, number, since) {
                self.checks.broken(self.now, &format!("w{number} has been up for {bound} s and is not admitted"));
            }
            let is_dead = worker.process.down > 0 && worker.crashed_at.is_some_and(|at| at < since);
            let has_clone = self.workers[self.config.workers..].iter().any(|clone| clone.id == worker.id);
            if is_online && is_dead && !has_clone {
                self.checks.broken(self.now, &format!("w{number} has been down for {bound} s and is not failed"));
            }
        }
    }

    fn process(&mut self, who: Who) -> Option<&mut Process> {
        match who {
            Who::Monitor(number) => Some(&mut self.monitors[number].process),
            Who::Worker(number) => Some(&mut self.workers[number].process),
            Who::Registry | Who::Client => None,
        }
    }

    fn life(&mut self, who: Who) -> u64 {
        self.process(who).map_or(0, |process| process.life)
    }

    fn is_down(&mut self, who: Who) -> bool {
        let registry_down = self.registry_down > 0;
        self.process(who).map_or(who == Who::Registry && registry_down, |process| process.down > 0)
    }

    fn paused(&mut self, who: Who) -> Option<Nanos> {
        let now = self.now;
        self.process(who).map(|process| process.paused_until).filter(|until| *until > now)
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
