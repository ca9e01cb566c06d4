//! Monitors, workers, a client, the registry's twin and the store's fence on one virtual clock. One queue of events, one
//! source of randomness: a seed is a world, bit for bit. Everything here that decides is the product's own code.

use std::{cmp::Ordering, collections::BinaryHeap, sync::Arc};

use heartbeat::{
    Nanos,
    assign::{NodeId, PARTITIONS, Table},
    detector::Detector,
    observer::{Effect, Observer, Settings},
    registry::{Registration, Request, Response, Twin},
    soft::State,
    tenure::{Fence, Refusal, Tenure},
    vote::{self, Ballot},
};

use crate::{
    checks::Checks,
    faults::{Fault, Kind, Who},
    random::Random,
};

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MS;
/// After so long without an answer the registry is taken for away.
const REGISTRY_PATIENCE: Nanos = SECOND;

#[derive(Clone)]
pub struct Config {
    pub seed: u64,
    pub monitors: usize,
    pub workers: usize,
    pub interval: Nanos,
    /// Datagrams lost, besides what faults add.
    pub loss: f64,
    pub length: Nanos,
    pub faults: Vec<Fault>,
    /// Workers follow the table and a client writes.
    pub serve: bool,
    /// A mutant breaks this rule on purpose.
    pub quorum: fn(usize) -> usize,
    /// A mutant's registry takes every commit.
    pub gullible: bool,
}

impl Config {
    pub fn new(seed: u64, monitors: usize, workers: usize, length: Nanos) -> Self {
        let (interval, quorum) = (SECOND, vote::majority as fn(usize) -> usize);
        let faults = Vec::new();
        Self { seed, monitors, workers, interval, loss: 0.0, length, faults, serve: true, quorum, gullible: false }
    }

    pub fn worker(&self, id: &str) -> Who {
        Who::Worker(id[1..].parse().expect("a worker's name is w and its number"))
    }
}

/// Suspects after 1.3 intervals of silence: the least a detector can do.
struct Fixed {
    timeout: Nanos,
    last: Option<Nanos>,
}

impl Detector for Fixed {
    fn heard(&mut self, now: Nanos, _: u64) {
        self.last = Some(now);
    }
    fn deadline(&self) -> Option<Nanos> {
        Some(self.last? + self.timeout)
    }
}

enum Message {
    Beat {
        worker: usize,
        incarnation: u64,
        sequence: u64,
    },
    /// `via` a worker that passes it on.
    Probe {
        monitor: usize,
        worker: usize,
        round: u64,
        via: Option<usize>,
    },
    Answer {
        monitor: usize,
        worker: usize,
        incarnation: u64,
        round: u64,
    },
    Ballot(Ballot),
    Register(Registration),
    Ask {
        monitor: usize,
        life: u64,
        number: u64,
        asked: Nanos,
        request: Request,
    },
    Told {
        life: u64,
        number: u64,
        asked: Nanos,
        response: Response,
    },
    Table(Arc<Table>),
    Write {
        partition: usize,
        epoch: u64,
        hops: u8,
    },
    Refused {
        partition: usize,
        refusal: Refusal,
        hops: u8,
    },
    Acknowledged {
        partition: usize,
    },
}

enum Event {
    Deliver {
        from: Who,
        to: Who,
        message: Message,
    },
    /// A timer of this life.
    Timer {
        who: Who,
        life: u64,
    },
    NoAnswer {
        monitor: usize,
        life: u64,
        number: u64,
    },
    /// What the store is asked arrives there, whatever became of who asked.
    StoreWrite {
        worker: usize,
        partition: usize,
        epoch: u64,
    },
    StoreFence {
        worker: usize,
        life: u64,
        fence: Fence,
    },
    Begin(usize),
    End(usize),
}

struct Queued {
    at: Nanos,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[derive(Default)]
struct Process {
    down: u32,
    paused_until: Nanos,
    /// Rises with every start; what was meant for an earlier life is lost.
    life: u64,
    /// Its clock: parts per million fast, and an offset.
    skew_ppm: i64,
    offset: Nanos,
}

impl Process {
    fn clock(&self, now: Nanos) -> Nanos {
        let drift = i128::from(now) * i128::from(self.skew_ppm) / 1_000_000;
        self.offset + Nanos::try_from(i128::from(now) + drift).expect("time goes forward")
    }

    /// The inverse of `clock`.
    fn real(&self, local: Nanos) -> Nanos {
        let ahead = i128::from(local.saturating_sub(self.offset)) * 1_000_000;
        Nanos::try_from(ahead / i128::from(1_000_000 + self.skew_ppm)).expect("time goes forward") + 1
    }
}

struct Monitor {
    process: Process,
    observer: Observer,
    timer: Nanos,
    /// Requests to the registry that are not answered yet, and the next one's number.
    open: Vec<u64>,
    number: u64,
    told_epoch: u64,
}

struct Worker {
    id: NodeId,
    process: Process,
    incarnation: u64,
    sequence: u64,
    tenure: Tenure,
    crashed_at: Option<Nanos>,
}

pub struct World {
    pub config: Config,
    now: Nanos,
    order: u64,
    queue: BinaryHeap<Queued>,
    random: Random,
    monitors: Vec<Monitor>,
    workers: Vec<Worker>,
    registry: Twin,
    registry_down: u32,
    fences: [u64; PARTITIONS],
    client: Arc<Table>,
    pub acknowledged: u64,
    pub acknowledged_at: [Nanos; PARTITIONS],
    pub checks: Checks,
    /// A running hash over everything that happened.
    pub trace: u64,
    /// From a crash to the commit that failed the worker.
    pub detected: Vec<Nanos>,
    /// Workers that were failed while they were up: not wrong if they stood still or were cut off.
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
            let tenure = Tenure::new(id.clone());
            Worker { id, process, incarnation: 1, sequence: 0, tenure, crashed_at: None }
        };
        let workers = processes.enumerate().map(worker).collect();
        let mut registry = Twin::default();
        registry.gullible = config.gullible;
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            random,
            monitors,
            workers,
            registry,
            registry_down: 0,
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
            // Beats of different workers are not in step.
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

    /// To the end, or to the first breach.
    pub fn run(mut self) -> Self {
        while let Some(Queued { at, event, .. }) = self.queue.pop() {
            if at > self.config.length || self.checks.breach.is_some() {
                break;
            }
            self.now = at;
            self.handle(event);
        }
        self
    }

    /// What must be so again once everything has healed for a while.
    pub fn check_recovered(&mut self) {
        let table = Arc::clone(&self.registry.state().table);
        for worker in self.workers.iter().filter(|worker| worker.process.down == 0) {
            if !table.is_online(&worker.id) {
                self.checks.broken(self.now, &format!("{} is up and was not admitted again", worker.id));
            }
        }
        for partition in 0..PARTITIONS {
            if self.acknowledged_at[partition] + 5 * SECOND < self.now {
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
                    self.record(1, to, message_kind(&message));
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
            Event::NoAnswer { monitor, life, number } => self.no_answer(monitor, life, number),
            Event::StoreWrite { worker, partition, epoch } => self.store_write(worker, partition, epoch),
            Event::StoreFence { worker, life, fence } => self.store_fence(worker, life, fence),
            Event::Begin(number) => self.fault(number, true),
            Event::End(number) => self.fault(number, false),
        }
    }

    fn timer(&mut self, who: Who, life: u64) {
        match who {
            Who::Monitor(number) => {
                self.monitors[number].timer = 0;
                self.pump(number);
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

    /// The registry tells every monitor of a change.
    fn notify(&mut self) {
        for number in 0..self.monitors.len() {
            let response = Response::Snapshot(Arc::clone(self.registry.state()));
            let life = self.monitors[number].process.life;
            let told = Message::Told { life, number: u64::MAX, asked: 0, response };
            self.send_stream(Who::Registry, Who::Monitor(number), told);
        }
    }

    fn monitor_hears(&mut self, number: usize, message: Message) {
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
                monitor.open.retain(|open| *open != request);
                monitor.observer.answer(now, asked, response);
            }
            Message::Register(node) => self.ask(number, Request::Register(node)),
            _ => {}
        }
        self.pump(number);
    }

    fn no_answer(&mut self, number: usize, life: u64, request: u64) {
        let monitor = &mut self.monitors[number];
        if monitor.process.life != life || monitor.process.down > 0 || !monitor.open.contains(&request) {
            return;
        }
        if monitor.process.paused_until > self.now {
            let resumes = monitor.process.paused_until;
            return self.at(resumes, Event::NoAnswer { monitor: number, life, number: request });
        }
        monitor.open.retain(|open| *open != request);
        monitor.observer.no_answer(monitor.process.clock(self.now));
        self.pump(number);
    }

    /// What the monitor's shell does after every input: ask what is to be done, do it, and sleep until the next time.
    fn pump(&mut self, number: usize) {
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
                Effect::Ask(request) => self.ask(number, request),
                Effect::Changed { transition, .. } => self.record(2, Who::Monitor(number), transition.to as u64),
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

    fn ask(&mut self, number: usize, request: Request) {
        let monitor = &mut self.monitors[number];
        monitor.number += 1;
        let (life, request_number) = (monitor.process.life, monitor.number);
        let asked = monitor.process.clock(self.now);
        monitor.open.push(request_number);
        self.after(REGISTRY_PATIENCE, Event::NoAnswer { monitor: number, life, number: request_number });
        let message = Message::Ask { monitor: number, life, number: request_number, asked, request };
        self.send_stream(Who::Monitor(number), Who::Registry, message);
    }

    fn probe(&mut self, number: usize, node: &str, round: u64) {
        let Who::Worker(worker) = self.config.worker(node) else { return };
        let from = Who::Monitor(number);
        let message = |via| Message::Probe { monitor: number, worker, round, via };
        // Over UDP, and over TCP: a connection of its own, whose first packet may be lost too.
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
    fn publish(&mut self, number: usize) {
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

    /// A worker's heartbeat: to every monitor; registers while it is not admitted, and asks for the table.
    fn beat(&mut self, number: usize) {
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
        let table = worker.tenure.table();
        if table.is_failed(&worker.id, worker.incarnation) {
            // What was said of this life is settled; the next one begins, with nothing in hand.
            worker.incarnation += 1;
        }
        let is_admitted = table.nodes.get(&worker.id).is_some_and(|s| s.online && s.incarnation >= worker.incarnation);
        if !is_admitted && (self.config.serve || sequence <= 5) {
            let (id, incarnation) = (worker.id.clone(), worker.incarnation);
            let (http, udp) = (String::new(), String::new());
            let node = Registration { id, incarnation, http, udp, leaving: false };
            self.send_stream(Who::Worker(number), Who::Monitor(asked), Message::Register(node));
        }
    }

    /// A monitor answers a worker's poll at once with what it has; the way there is left out.
    fn answer_poll(&mut self, monitor: usize, worker: usize) {
        if self.is_cut(Who::Worker(worker), Who::Monitor(monitor)) || self.monitors[monitor].process.down > 0 {
            return;
        }
        let table = Arc::clone(&self.monitors[monitor].observer.snapshot().table);
        if table.epoch > self.workers[worker].tenure.table().epoch {
            self.send_stream(Who::Monitor(monitor), Who::Worker(worker), Message::Table(table));
        }
    }

    fn worker_hears(&mut self, number: usize, from: Who, message: Message) {
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
            // On its way back.
            Message::Answer { monitor, .. } => self.send_datagram(me, Who::Monitor(monitor), message),
            Message::Table(table) => {
                let life = self.workers[number].process.life;
                for fence in self.workers[number].tenure.learn(table) {
                    let delay = self.delay();
                    self.after(delay, Event::StoreFence { worker: number, life, fence });
                }
            }
            Message::Write { partition, epoch, hops } => {
                match self.workers[number].tenure.admit(partition, Some(epoch)) {
                    Ok(epoch) => {
                        // A write may be long under way.
                        let late = if self.random.chance(0.02) { self.random.range(0, 3 * SECOND) } else { 0 };
                        let delay = self.delay() + late;
                        self.after(delay, Event::StoreWrite { worker: number, partition, epoch });
                    }
                    Err(refusal) => self.send_stream(me, Who::Client, Message::Refused { partition, refusal, hops }),
                }
            }
            _ => {}
        }
    }

    fn store_write(&mut self, worker: usize, partition: usize, epoch: u64) {
        if self.fences[partition] != epoch {
            self.checks.refused_by_fence += 1;
            self.workers[worker].tenure.overruled(partition, epoch);
            return;
        }
        let writer = self.workers[worker].id.clone();
        self.checks.written(self.now, partition, epoch, &writer);
        self.send_stream(Who::Worker(worker), Who::Client, Message::Acknowledged { partition });
    }

    fn store_fence(&mut self, worker: usize, life: u64, fence: Fence) {
        if self.workers[worker].process.life != life {
            return;
        }
        if self.fences[fence.partition] > fence.epoch {
            return self.workers[worker].tenure.overruled(fence.partition, fence.epoch);
        }
        self.fences[fence.partition] = fence.epoch;
        self.workers[worker].tenure.fenced(fence);
    }

    fn client_write(&mut self, partition: usize, hops: u8) {
        let assignment = &self.client.partitions[partition];
        let Some(primary) = assignment.primary.clone() else { return };
        let (epoch, to) = (assignment.epoch, self.config.worker(&primary));
        self.send_stream(Who::Client, to, Message::Write { partition, epoch, hops });
    }

    fn redirected(&mut self, partition: usize, refusal: Refusal, hops: u8) {
        let Refusal::NotMine { primary: Some(primary), epoch } = refusal else { return };
        if hops < 2 && epoch > self.client.partitions[partition].epoch {
            let to = self.config.worker(&primary);
            self.send_stream(Who::Client, to, Message::Write { partition, epoch, hops: hops + 1 });
        }
    }

    fn committed(&mut self, before: &Table, after: &Table) {
        self.record(4, Who::Registry, after.epoch);
        self.checks.committed(self.now, &self.config, before, after);
        for (id, standing) in after.nodes.iter().filter(|(id, s)| !s.online && before.is_online(id)) {
            let Who::Worker(number) = self.config.worker(id) else { continue };
            let worker = &self.workers[number];
            match worker.crashed_at {
                Some(at) => self.detected.push(self.now - at),
                None if worker.incarnation == standing.incarnation => self.failed_alive.push((self.now, id.clone())),
                None => {}
            }
        }
    }

    fn fault(&mut self, number: usize, begins: bool) {
        let Fault { at, lasts, kind } = self.config.faults[number];
        self.record(5, Who::Client, number as u64);
        match kind {
            Kind::Pause(who) if begins => {
                if let Some(process) = self.process(who) {
                    process.paused_until = process.paused_until.max(at + lasts);
                }
            }
            Kind::Crash(who) if begins => self.crash(who),
            Kind::Crash(who) => self.restart(who),
            // Asked for as messages are sent.
            Kind::Pause(_) | Kind::Cut { .. } | Kind::Loss(_) => {}
        }
    }

    fn crash(&mut self, who: Who) {
        let now = self.now;
        if let Who::Worker(number) = who {
            self.workers[number].crashed_at.get_or_insert(now);
        }
        match self.process(who) {
            Some(process) => process.down += 1,
            None => self.registry_down += 1,
        }
    }

    fn restart(&mut self, who: Who) {
        let Some(process) = self.process(who) else {
            self.registry_down -= 1;
            return;
        };
        process.down -= 1;
        if process.down > 0 {
            return;
        }
        process.life += 1;
        process.paused_until = 0;
        let life = process.life;
        match who {
            Who::Monitor(number) => {
                let observer = observer(&self.config, number, &self.monitors[number].process, self.now);
                let monitor = &mut self.monitors[number];
                (monitor.observer, monitor.timer, monitor.told_epoch) = (observer, 0, 0);
                monitor.open.clear();
            }
            Who::Worker(number) => {
                let worker = &mut self.workers[number];
                worker.crashed_at = None;
                (worker.incarnation, worker.sequence) = (worker.incarnation + 1_000, 0);
                worker.tenure = Tenure::new(worker.id.clone());
            }
            Who::Registry | Who::Client => {}
        }
        self.after(1, Event::Timer { who, life });
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

    fn active(&self) -> impl Iterator<Item = Kind> {
        let now = self.now;
        let faults = self.config.faults.iter().filter(move |fault| fault.at <= now && now < fault.at + fault.lasts);
        faults.map(|fault| fault.kind)
    }

    fn is_cut(&self, from: Who, to: Who) -> bool {
        !self.config.faults.is_empty() && self.active().any(|kind| kind == Kind::Cut { from, to })
    }

    fn send_datagram(&mut self, from: Who, to: Who, message: Message) {
        let more = self.active().map(|kind| if let Kind::Loss(rate) = kind { rate } else { 0.0 }).fold(0.0, f64::max);
        let loss = self.config.loss.max(more);
        if self.is_cut(from, to) || self.random.chance(loss) {
            return;
        }
        let delay = self.delay();
        self.after(delay, Event::Deliver { from, to, message });
    }

    /// Over a connection: a loss is a retransmission, 200 ms later.
    fn send_stream(&mut self, from: Who, to: Who, message: Message) {
        if self.is_cut(from, to) {
            return;
        }
        let again = if self.random.chance(self.config.loss) { 200 * MS } else { 0 };
        let delay = self.delay() + again;
        self.after(delay, Event::Deliver { from, to, message });
    }

    fn delay(&mut self) -> Nanos {
        self.random.range(MS / 10, 3 * MS)
    }

    fn after(&mut self, delay: Nanos, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Nanos, event: Event) {
        self.order += 1;
        self.queue.push(Queued { at, order: self.order, event });
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

fn observer(config: &Config, number: usize, process: &Process, now: Nanos) -> Observer {
    let monitors: Vec<NodeId> = (0..config.monitors).map(|number| format!("m{number}").into()).collect();
    let settings = Settings { quorum: config.quorum, ..Settings::for_interval(config.interval, 5 * config.interval) };
    let timeout = config.interval * 13 / 10;
    let make: Box<dyn Fn() -> Box<dyn Detector> + Send> = Box::new(move || Box::new(Fixed { timeout, last: None }));
    let first_round = now / MS + 1;
    Observer::new(monitors[number].clone(), &monitors, settings, make, first_round, process.clock(now))
}

fn message_kind(message: &Message) -> u64 {
    match message {
        Message::Beat { .. } => 0,
        Message::Probe { .. } => 1,
        Message::Answer { .. } => 2,
        Message::Ballot(_) => 3,
        Message::Register(_) => 4,
        Message::Ask { .. } => 5,
        Message::Told { .. } => 6,
        Message::Table(_) => 7,
        Message::Write { .. } => 8,
        Message::Refused { .. } => 9,
        Message::Acknowledged { .. } => 10,
    }
}
