//! The store: one row for each partition, and the paths to it.

use heartbeat::{Nanos, history::CounterState};

use super::World;
use crate::{
    config::{MS, Mutant, SECOND},
    events::{Event, StoreAnswer, StoreRequest},
    faults::{Kind, Trouble},
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
}

impl World {
    /// Sends a worker's request to the store.
    pub(super) fn send_to_store(&mut self, request: StoreRequest) {
        // A write may be in flight for long.
        let is_late = request.write.is_some() && self.random.chance(0.003);
        let late = if is_late { self.random.range(0, 3 * SECOND) } else { 0 };
        let mut arrives = self.now + self.delay() + late;
        for (trouble, end) in self.troubles(request.worker, request.partition) {
            match trouble {
                Trouble::Slow(by) => arrives += by,
                Trouble::Hang => arrives = arrives.max(end),
                Trouble::Fail(rate) if self.random.chance(rate) => {
                    // Some have been executed nevertheless.
                    if self.random.chance(0.2) {
                        let unanswered = StoreRequest { number: u64::MAX, ..request.clone() };
                        self.at(arrives, Event::Store(unanswered));
                    }
                    let answer = StoreAnswer::Error;
                    return self.at(arrives + MS, Event::StoreAnswered { request, answer });
                }
                Trouble::Fail(_) => {}
            }
        }
        self.at(arrives, Event::Store(request));
    }

    /// Whether one query of this worker would be answered promptly.
    pub(super) fn is_prompt(&mut self, worker: usize, partition: usize) -> bool {
        self.troubles(worker, partition).into_iter().all(|(trouble, _)| match trouble {
            Trouble::Slow(by) => by <= PROMPT,
            Trouble::Hang => false,
            Trouble::Fail(rate) => !self.random.chance(rate),
        })
    }

    fn troubles(&self, worker: usize, partition: usize) -> Vec<(Trouble, Nanos)> {
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
        let (any_epoch, any_process) = (self.config.is(Mutant::AnyFence), self.config.is(Mutant::AnyProcess));
        let is_same = request.epoch == row.epoch && (any_process || row.owner == 0 || row.owner == request.process_id);
        let answer = if request.epoch > row.epoch || is_same || any_epoch {
            (row.epoch, row.owner) = (request.epoch, request.process_id);
            row.counter += u64::from(request.write.is_some());
            let counter = row.counter;
            if request.write.is_some() {
                let name = self.workers[request.worker].id.clone();
                self.checks.written(self.now, &name, &request);
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
