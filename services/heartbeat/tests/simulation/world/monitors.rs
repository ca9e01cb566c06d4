//! The monitors' shell: inputs go to the observer, its effects are executed.

use std::sync::Arc;

use heartbeat::{
    Nanos,
    assign::NodeId,
    detector::Fixed,
    node_state::State,
    observer::{DetectorFactory, Effect, Observer, Settings},
    registry::{Request, Response},
};

use super::{Config, MS, World};
use crate::{
    events::{Event, Message},
    faults::Who,
    process::Process,
};

/// Timeout of a request to the registry.
const REGISTRY_PATIENCE: Nanos = 1_000 * MS;
/// Instead of a request's number, for notifications of the registry.
const UNASKED: u64 = u64::MAX;

pub(super) struct Monitor {
    pub(super) process: Process,
    pub(super) observer: Observer,
    pub(super) timer: Nanos,
    /// Requests to the registry without a response, whether they are commits, and the next number.
    pub(super) open: Vec<(u64, bool)>,
    pub(super) number: u64,
    pub(super) told_epoch: u64,
}

impl World {
    pub(super) fn monitor_hears(&mut self, number: usize, message: Message) {
        let monitor = &mut self.monitors[number];
        let now = monitor.process.clock(self.now);
        match message {
            Message::Beat { worker, incarnation, sequence } => {
                monitor.observer.heard(now, &self.workers[worker].id, incarnation, sequence);
            }
            Message::Answer { worker, incarnation, round, .. } => {
                monitor.observer.answered(now, &self.workers[worker].id, incarnation, round);
            }
            Message::Ballot(ballot) => monitor.observer.ballot(now, ballot),
            Message::Told { life, number: request, asked, response } if life == monitor.process.life => {
                // A response after the timeout is ignored; a notification has no number.
                let before = monitor.open.len();
                monitor.open.retain(|(open, _)| *open != request);
                if monitor.open.len() < before || request == UNASKED {
                    monitor.observer.response(now, asked, response);
                }
            }
            Message::Register(node) => self.ask(number, Request::Register(node)),
            _ => {}
        }
        self.pump(number);
    }

    pub(super) fn request_failed(&mut self, number: usize, life: u64, request: u64) {
        let monitor = &mut self.monitors[number];
        let open = monitor.open.iter().position(|(number, _)| *number == request);
        let Some(at) = open.filter(|_| monitor.process.life == life && monitor.process.down == 0) else { return };
        if monitor.process.paused_until > self.now {
            let resumes = monitor.process.paused_until;
            return self.at(resumes, Event::NoAnswer { monitor: number, life, number: request });
        }
        let (_, to_commit) = monitor.open.swap_remove(at);
        monitor.observer.request_failed(monitor.process.clock(self.now), to_commit);
        self.pump(number);
    }

    /// After every input: tick the observer, execute its effects, and sleep until the next time.
    pub(super) fn pump(&mut self, number: usize) {
        let monitor = &mut self.monitors[number];
        let effects = monitor.observer.tick(monitor.process.clock(self.now));
        for effect in effects {
            match effect {
                Effect::Probe { node, round } => self.probe(number, &node, round),
                Effect::Share(ballot) => {
                    for other in (0..self.monitors.len()).filter(|other| *other != number) {
                        self.send_stream(Who::Monitor(number), Who::Monitor(other), Message::Ballot(ballot.clone()));
                    }
                }
                Effect::Request(request) => self.ask(number, request),
                Effect::StateChanged { transition, .. } => self.record(2, Who::Monitor(number), transition.to as u64),
                Effect::Paused(_) => self.record(3, Who::Monitor(number), 0),
            }
        }
        self.publish(number);
        let monitor = &mut self.monitors[number];
        let wake = monitor.process.real(monitor.observer.next_wake()).max(self.now + 1);
        if monitor.timer <= self.now || wake < monitor.timer {
            monitor.timer = wake;
            let life = monitor.process.life;
            self.at(wake, Event::Timer { who: Who::Monitor(number), life });
        }
    }

    pub(super) fn ask(&mut self, number: usize, request: Request) {
        let monitor = &mut self.monitors[number];
        monitor.number += 1;
        let (life, request_number) = (monitor.process.life, monitor.number);
        let asked = monitor.process.clock(self.now);
        monitor.open.push((request_number, matches!(request, Request::Commit { .. })));
        self.after(REGISTRY_PATIENCE, Event::NoAnswer { monitor: number, life, number: request_number });
        let message = Message::Ask { monitor: number, life, number: request_number, asked, request };
        self.send_stream(Who::Monitor(number), Who::Registry, message);
    }

    pub(super) fn probe(&mut self, number: usize, node: &str, round: u64) {
        let Who::Worker(worker) = self.config.worker(node) else { return };
        let from = Who::Monitor(number);
        let message = |via| Message::Probe { monitor: number, worker, round, via };
        // Over UDP, and over TCP: a new connection, whose first packet may be lost too.
        self.send_datagram(from, Who::Worker(worker), message(None));
        self.send_datagram(from, Who::Worker(worker), message(None));
        for _ in 0..2 {
            let via = self.random.range(0, self.workers.len() as u64) as usize;
            let is_healthy = self.monitors[number].observer.state(&self.workers[via].id) == Some(State::Healthy);
            if via != worker && is_healthy {
                self.send_datagram(from, Who::Worker(via), message(Some(via)));
            }
        }
    }

    /// Long polls are answered when the monitor has a later table.
    pub(super) fn publish(&mut self, number: usize) {
        if !self.config.serve {
            return;
        }
        let monitor = &mut self.monitors[number];
        let table = Arc::clone(&monitor.observer.snapshot().table);
        if table.epoch <= monitor.told_epoch {
            return;
        }
        monitor.told_epoch = table.epoch;
        for worker in 0..self.workers.len() {
            self.send_stream(Who::Monitor(number), Who::Worker(worker), Message::Table(Arc::clone(&table)));
        }
        self.send_stream(Who::Monitor(number), Who::Client, Message::Table(table));
    }

    /// The registry notifies every monitor of a change.
    pub(super) fn notify(&mut self) {
        for number in 0..self.monitors.len() {
            let response = Response::Snapshot(Arc::clone(self.registry.state()));
            let life = self.monitors[number].process.life;
            let told = Message::Told { life, number: UNASKED, asked: 0, response };
            self.send_stream(Who::Registry, Who::Monitor(number), told);
        }
    }
}

pub(super) fn observer(config: &Config, number: usize, process: &Process, now: Nanos) -> Observer {
    let monitors: Vec<NodeId> = (0..config.monitors).map(|number| format!("m{number}").into()).collect();
    let settings = Settings { quorum: config.quorum, ..Settings::for_interval(config.interval, 5 * config.interval) };
    // Suspects after 1.3 intervals of silence: the simplest detector.
    let timeout = config.interval * 13 / 10;
    let make: DetectorFactory = Box::new(move || Box::new(Fixed::new(timeout, 0)));
    let first_round = now / MS + 1;
    Observer::new(monitors[number].clone(), &monitors, settings, make, first_round, process.clock(now))
}
