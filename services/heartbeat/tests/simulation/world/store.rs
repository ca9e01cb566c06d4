//! The store: one row for each partition, and the paths to it.

use heartbeat::{Nanos, history::CounterState};

use super::World;
use crate::{
    config::{Config, MS, Mutant, SECOND},
    events::{Event, StoreAnswer, StoreRequest},
    faults::{Kind, Trouble},
    random::Random,
};

const PROMPT: Nanos = 100 * MS;

/// The row that the fence protects.
#[derive(Clone, Copy, Default)]
pub(super) struct Row {
    epoch: u64,
    /// The process that wrote last; 0: none.
    owner: u64,
    counter: u64,
}

impl Row {
    pub(super) fn state(&self) -> CounterState {
        CounterState { epoch: self.epoch, counter: self.counter }
    }

    pub(super) fn owner(&self) -> u64 {
        self.owner
    }

    pub(super) fn counter(&self) -> u64 {
        self.counter
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The fence: a later epoch, or the process that has set this one.
    pub(super) fn admits(&self, epoch: u64, process_id: u64, config: &Config) -> bool {
        let is_owner = config.is(Mutant::AnyProcess) || self.owner == 0 || self.owner == process_id;
        epoch > self.epoch || epoch == self.epoch && is_owner || config.is(Mutant::AnyFence)
    }

    pub(super) fn set_owner(&mut self, epoch: u64, process_id: u64) {
        (self.epoch, self.owner) = (epoch, process_id);
    }
}

/// What becomes of a request on its way to the store.
pub(super) enum Passage {
    Arrives(Nanos),
    /// It is answered with an error then. Some have been executed nevertheless.
    Fails {
        at: Nanos,
        is_executed: bool,
    },
}

impl Passage {
    pub(super) fn new(mut arrives: Nanos, troubles: &[(Trouble, Nanos)], random: &mut Random) -> Self {
        for (trouble, end) in troubles {
            match *trouble {
                Trouble::Slow(by) => arrives += by,
                Trouble::Hang => arrives = arrives.max(*end),
                Trouble::Fail(rate) if random.chance(rate) => {
                    return Self::Fails { at: arrives, is_executed: random.chance(0.2) };
                }
                Trouble::Fail(_) => {}
            }
        }
        Self::Arrives(arrives)
    }
}

impl World {
    /// Sends a worker's request to the store.
    pub(super) fn send_to_store(&mut self, request: StoreRequest) {
        // A write may be in flight for long.
        let is_late = request.write.is_some() && self.random.chance(0.003);
        let late = if is_late { self.random.range(0, 3 * SECOND) } else { 0 };
        let arrives = self.now + self.delay() + late;
        let troubles = self.troubles(request.worker, request.partition);
        match Passage::new(arrives, &troubles, &mut self.random) {
            Passage::Arrives(at) => self.at(at, Event::Store(request)),
            Passage::Fails { at, is_executed } => {
                if is_executed {
                    let unanswered = StoreRequest { number: u64::MAX, ..request.clone() };
                    self.at(at, Event::Store(unanswered));
                }
                self.at(at + MS, Event::StoreAnswered { request, answer: StoreAnswer::Error });
            }
        }
    }

    /// Whether one query of this worker would be answered promptly.
    pub(super) fn is_prompt(&mut self, worker: usize, partition: usize) -> bool {
        self.troubles(worker, partition).into_iter().all(|(trouble, _)| match trouble {
            Trouble::Slow(by) => by <= PROMPT,
            Trouble::Hang => false,
            Trouble::Fail(rate) => !self.random.chance(rate),
        })
    }

    pub(super) fn troubles(&self, worker: usize, partition: usize) -> Vec<(Trouble, Nanos)> {
        let concerns = |kind: &Kind| match *kind {
            Kind::Store { worker: only, partitions, trouble } => {
                (only.is_none_or(|only| only == worker) && partitions & (1 << partition) != 0).then_some(trouble)
            }
            _ => None,
        };
        self.in_force.iter().filter_map(|(kind, end)| Some((concerns(kind)?, *end))).collect()
    }

    pub(super) fn store(&mut self, request: StoreRequest) {
        let row = &mut self.rows[request.partition];
        let answer = if row.admits(request.epoch, request.process_id, &self.config) {
            row.set_owner(request.epoch, request.process_id);
            row.counter += u64::from(request.write.is_some());
            let counter = row.counter;
            if request.write.is_some() {
                self.checks.writes += 1;
                let writer = (self.workers[request.worker].id.clone(), request.incarnation, request.process_id);
                self.checks.written(self.now, "write", (request.partition, request.epoch), writer);
            }
            StoreAnswer::Done { counter }
        } else {
            self.checks.refused_by_fence += u64::from(request.write.is_some());
            StoreAnswer::Stale { current: row.epoch }
        };
        let delay = self.delay();
        self.after(delay, Event::StoreAnswered { request, answer });
    }
}
