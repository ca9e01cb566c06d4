//! The monitors' shell, after services/monitor: inputs go to the observer, its effects are executed.

use std::{collections::BTreeMap, sync::Arc};

use heartbeat::{
    Nanos,
    assign::NodeId,
    detector::Detector,
    node_state::State,
    observer::{DetectorFactory, Effect, Evidence, Observer, ReceivedBeat, Settings},
    registry::{Monitors, Registration, Request},
    table,
};

use super::World;
use crate::{
    config::{Config, MS, Mutant, SECOND},
    events::{Event, Message, Published},
    faults::Who,
    process::Process,
    random::Random,
};

/// Timeout of a request to the registry.
const REGISTRY_PATIENCE: Nanos = 1_000 * MS;
/// Duration of the leader's lease: the default of the product.
const TERM: Nanos = 5_000 * MS;

pub(super) struct Monitor {
    pub(super) process: Process,
    pub(super) observer: Observer,
    /// Sequence numbers that were received.
    pub(super) seen: table::Table,
    pub(super) timer: Nanos,
    /// Requests to the registry without a response.
    pub(super) open: BTreeMap<u64, Asked>,
    pub(super) number: u64,
    /// Something has changed since the read in flight began.
    read_again: bool,
    pub(super) told: Arc<Published>,
    /// When it last counted the votes of all monitors.
    pub(super) complete_at: Nanos,
}

pub(super) enum Asked {
    Commit,
    /// For this worker.
    Register(usize),
    Read,
    Other,
}

impl Monitor {
    pub(super) fn new(config: &Config, number: usize, process: Process, now: Nanos) -> Self {
        let workers = config.workers + config.spares;
        Self {
            observer: observer(config, number, &process, now),
            process,
            seen: table::Table::new(8 * workers),
            timer: 0,
            open: BTreeMap::new(),
            number: 0,
            read_again: false,
            told: Arc::new(Published { table: Arc::default(), addresses: BTreeMap::new() }),
            complete_at: now,
        }
    }
}

impl World {
    /// `received`: when the monitor's socket received it.
    pub(super) fn monitor_hears(&mut self, number: usize, from: Who, message: Message, received: Nanos) {
        let monitor = &mut self.monitors[number];
        let now = monitor.process.clock(self.now);
        let received = monitor.process.clock(received);
        match message {
            Message::Beat(beat) => {
                let (node_id, incarnation, sequence) = (beat.node_id.as_str(), beat.incarnation, beat.sequence);
                let observation = table::Observation { node_id, at: received, incarnation, sequence, load: 0.0 };
                if monitor.seen.record(&observation).accepted() {
                    let is_ageless = self.config.is(Mutant::AgelessBeats);
                    let (at, sent_ms) = if is_ageless { (now, 0) } else { (received, beat.timestamp) };
                    let report = beat.report.clone();
                    let beat = ReceivedBeat { at, incarnation, sequence, sent_ms, is_authenticated: true, report };
                    monitor.observer.heard(now, node_id, beat);
                }
            }
            Message::Answer { worker, alive, round, .. } => {
                monitor.observer.answered(now, &self.workers[worker].id, alive, round);
            }
            Message::Ballot(ballot) => monitor.observer.ballot(now, ballot),
            Message::Follows { epoch } => {
                let Who::Worker(worker) = from else { return };
                monitor.observer.follows(now, &self.workers[worker].id, epoch);
            }
            Message::Changed => self.read(number),
            // A response after the timeout is ignored.
            Message::Told { life, number: request, asked, response } if life == monitor.process.life => {
                match monitor.open.remove(&request) {
                    Some(Asked::Register(worker)) => {
                        let answer = Message::RegisterAnswer(response);
                        self.send_stream(Who::Monitor(number), Who::Worker(worker), answer);
                    }
                    Some(_) => {
                        monitor.observer.response(now, asked, response);
                        self.read_again(number);
                    }
                    None => {}
                }
            }
            Message::Register(node) => {
                let Who::Worker(worker) = from else { return };
                self.ask(number, Request::Register(node), Asked::Register(worker));
            }
            _ => {}
        }
        self.pump(number);
    }

    pub(super) fn request_failed(&mut self, number: usize, life: u64, request: u64) {
        let monitor = &mut self.monitors[number];
        if monitor.process.life != life || monitor.process.down > 0 || !monitor.open.contains_key(&request) {
            return;
        }
        if monitor.process.paused_until > self.now {
            let resumes = monitor.process.paused_until;
            return self.at(resumes, Event::NoAnswer { monitor: number, life, number: request });
        }
        let asked = monitor.open.remove(&request);
        let to_commit = matches!(asked, Some(Asked::Commit));
        monitor.observer.request_failed(monitor.process.clock(self.now), to_commit);
        self.read_again(number);
        self.pump(number);
    }

    /// After every input: tick the observer, execute its effects, and sleep until the next time.
    pub(super) fn pump(&mut self, number: usize) {
        let monitor = &mut self.monitors[number];
        let now = monitor.process.clock(self.now);
        let effects = monitor.observer.tick(now);
        for effect in effects {
            match effect {
                Effect::Probe { node, round } => self.probe(number, &node, round),
                Effect::Share(ballot) => {
                    for other in (0..self.monitors.len()).filter(|other| *other != number) {
                        self.send_stream(Who::Monitor(number), Who::Monitor(other), Message::Ballot(ballot.clone()));
                    }
                }
                Effect::Request(Request::Read) => self.read(number),
                Effect::Request(Request::Resign { monitor }) if self.config.is(Mutant::LeaderWithoutQuorum) => {
                    self.ask(number, Request::Campaign { monitor, ttl: TERM }, Asked::Other);
                }
                Effect::Request(request) => {
                    let asked = if matches!(request, Request::Commit { .. }) { Asked::Commit } else { Asked::Other };
                    self.ask(number, request, asked);
                }
                Effect::StateChanged { transition, .. } => self.record(2, Who::Monitor(number), transition.to as u64),
                Effect::Paused(_) => self.record(3, Who::Monitor(number), 0),
                Effect::Unserved { node, partitions, source } if self.config.verbose => {
                    println!("m{number}: {node} does not serve {partitions:?}, by {source:?}");
                }
                Effect::MonitorsChanged(_)
                | Effect::Unserved { .. }
                | Effect::TablesLost { .. }
                | Effect::Forgotten(_) => {}
            }
        }
        if self.config.is(Mutant::ForgetsEarly) && self.monitors[number].observer.is_leading(now) {
            self.forget_early(number);
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

    /// One read at a time: a change during a read causes one more read.
    fn read(&mut self, number: usize) {
        let monitor = &mut self.monitors[number];
        let is_reading = monitor.open.values().any(|asked| matches!(asked, Asked::Read));
        monitor.read_again = is_reading;
        if !is_reading {
            self.ask(number, Request::Read, Asked::Read);
        }
    }

    fn read_again(&mut self, number: usize) {
        if std::mem::take(&mut self.monitors[number].read_again) {
            self.read(number);
        }
    }

    /// A mutant: a name is removed while its worker is silent, although it may still write.
    fn forget_early(&mut self, number: usize) {
        let snapshot = Arc::clone(self.monitors[number].observer.snapshot());
        for node in snapshot.nodes.values() {
            if self.monitors[number].observer.state(&node.id) == Some(State::Warning) {
                self.ask(number, Request::Forget(node.clone()), Asked::Other);
            }
        }
    }

    fn ask(&mut self, number: usize, request: Request, asked_for: Asked) {
        let monitor = &mut self.monitors[number];
        monitor.number += 1;
        let (life, request_number) = (monitor.process.life, monitor.number);
        let asked = monitor.process.clock(self.now);
        monitor.open.insert(request_number, asked_for);
        self.after(REGISTRY_PATIENCE, Event::NoAnswer { monitor: number, life, number: request_number });
        let message = Message::Ask { monitor: number, life, number: request_number, asked, request };
        self.send_stream(Who::Monitor(number), Who::Registry, message);
    }

    /// A request arrives at the registry.
    pub(super) fn asked(&mut self, monitor: usize, life: u64, (number, asked): (u64, Nanos), request: Request) {
        let before = Arc::clone(self.etcd.state());
        let forgotten = if let Request::Forget(node) = &request { Some(node.clone()) } else { None };
        let response = self.etcd.apply(self.now, life, request);
        let after = Arc::clone(self.etcd.state());
        if !Arc::ptr_eq(&before.table, &after.table) {
            self.committed(&before.table, &after.table);
        }
        if let Some(node) =
            forgotten.filter(|node| before.nodes.contains_key(&node.id) && !after.nodes.contains_key(&node.id))
        {
            self.forgotten(&node);
        }
        let told = Message::Told { life, number, asked, response };
        let slow = self.registry_delay();
        if slow == 0 {
            self.send_stream(Who::Registry, Who::Monitor(monitor), told);
        } else if !self.network.is_cut(Who::Registry, Who::Monitor(monitor)) {
            let (from, to) = (Who::Registry, Who::Monitor(monitor));
            self.after(slow, Event::Deliver { from, to, message: told, received: None });
        }
        if after.revision != before.revision {
            self.notify();
        }
    }

    fn probe(&mut self, number: usize, node: &str, round: u64) {
        let snapshot = Arc::clone(self.monitors[number].observer.snapshot());
        let address = |id: &str| snapshot.nodes.get(id).and_then(|node| node.udp.parse::<usize>().ok());
        let Some(worker) = address(node) else { return };
        let from = Who::Monitor(number);
        let message = |via| Message::Probe { monitor: number, worker, round, via };
        // Over UDP, and over TCP: a new connection, whose first packet may be lost too.
        self.send_datagram(from, Who::Worker(worker), message(None));
        self.send_datagram(from, Who::Worker(worker), message(None));
        let via = self.random.range(0, self.config.workers as u64) as usize;
        let is_healthy = self.monitors[number].observer.state(&self.workers[via].id) == Some(State::Healthy);
        if via != worker && is_healthy {
            self.send_datagram(from, Who::Worker(via), message(Some(via)));
        }
    }

    /// Long polls are answered when the monitor has a later table.
    fn publish(&mut self, number: usize) {
        let monitor = &mut self.monitors[number];
        let table = monitor.observer.snapshot().table.epoch;
        if !self.config.serve || table <= monitor.told.table.epoch {
            return;
        }
        let published = publish(&monitor.observer);
        monitor.told = Arc::clone(&published);
        for worker in 0..self.workers.len() {
            let message = Message::Table(Arc::clone(&published));
            self.send_stream(Who::Monitor(number), Who::Worker(worker), message);
        }
        self.send_stream(Who::Monitor(number), Who::Client, Message::Table(published));
    }

    pub(super) fn published(&self, number: usize) -> Arc<Published> {
        if self.config.serve {
            Arc::clone(&self.monitors[number].told)
        } else {
            publish(&self.monitors[number].observer)
        }
    }

    /// A name is removed only if its process cannot write any more.
    fn forgotten(&mut self, node: &Registration) {
        if let Some(partition) = self.rows.iter().position(|row| row.owner() == node.process) {
            let broken = format!("{} was removed, and can still write to partition {partition}", node.id);
            self.checks.broken(self.now, &broken);
        }
    }

    /// The registry notifies every monitor of a change.
    pub(super) fn notify(&mut self) {
        for number in 0..self.monitors.len() {
            self.send_stream(Who::Registry, Who::Monitor(number), Message::Changed);
        }
    }
}

fn publish(observer: &Observer) -> Arc<Published> {
    let snapshot = observer.snapshot();
    let address = |node: &Registration| Some((node.id.clone(), node.http.parse().ok()?));
    let addresses = snapshot.nodes.values().filter_map(address).collect();
    Arc::new(Published { table: Arc::clone(&snapshot.table), addresses })
}

fn ballot_name(number: usize) -> NodeId {
    format!("m{number}").into()
}

fn observer(config: &Config, number: usize, process: &Process, now: Nanos) -> Observer {
    let member = |number| (ballot_name(number), String::new());
    let monitors = Monitors { version: 1, members: (0..config.monitors).map(member).collect() };
    let mut settings = Settings { quorum: config.quorum(), ..Settings::for_interval(config.interval, TERM) };
    settings.forget_after = settings.forget_after.min(config.forget_after);
    match config.mutant {
        Some(Mutant::NoDamping) => settings.rebalance_after = 0,
        Some(Mutant::AgelessVotes) => settings.vote_lifetime = 3_600 * SECOND,
        Some(Mutant::HeartbeatsAlone) => settings.evidence = Evidence::Heartbeats,
        _ => {}
    }
    let template = config.detector.clone();
    let make: DetectorFactory = Box::new(move || Box::new(template.clone()) as Box<dyn Detector>);
    // Another one for every process.
    let session = Random::new(config.seed ^ now ^ ((number as u64) << 48)).next();
    Observer::new(ballot_name(number), monitors, settings, make, session, process.clock(now))
}
