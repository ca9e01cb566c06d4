//! A worker's consumers, after services/worker: one for each partition that it serves. Offset → messages → dead letters → what the log has →
//! features → one conditional write, and again. Whenever it does not know what the store did, it begins with the offset.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use heartbeat::{Nanos, ownership::Fence};

use super::World;
use crate::{
    config::{MS, Mutant, SECOND},
    events::{BatchWrite, Command, Event, Reply, Step},
    faults::Who,
    log::{Action, Batch, Duplicates, Features, Payload},
};

/// Timeout of a command to the store or for dead letters. Messages may be long in coming.
const TIMEOUT: Nanos = SECOND;
const RETRY_PAUSE: Nanos = 500 * MS;

#[derive(Default)]
pub(super) struct Consumer {
    /// It runs, in this epoch.
    epoch: Option<u64>,
    /// Number of its last step. Replies to earlier ones are ignored.
    number: u64,
    /// Of the first of its messages.
    offset: u64,
    messages: Vec<Payload>,
    logged: BTreeSet<Action>,
}

impl Consumer {
    fn actions(&self) -> impl Iterator<Item = &Action> {
        self.messages.iter().flatten()
    }

    fn undecodable(&self) -> Vec<u64> {
        let numbered = (self.offset..).zip(&self.messages);
        numbered.filter(|(_, payload)| payload.is_none()).map(|(offset, _)| offset).collect()
    }

    fn look_up(&self) -> Command {
        Command::Logged(self.actions().copied().collect())
    }
}

impl World {
    /// The fence is set. A consumer that runs continues.
    pub(super) fn start_consumer(&mut self, number: usize, fence: Fence) {
        let worker = &mut self.workers[number];
        let is_served = worker.ownership.admit(fence.partition, None) == Ok(fence.epoch);
        let consumer = &mut worker.consumers[fence.partition];
        if self.config.events && is_served && consumer.epoch != Some(fence.epoch) {
            consumer.epoch = Some(fence.epoch);
            self.command(number, fence.partition, Command::Position);
        }
    }

    fn next_step(&mut self, worker: usize, partition: usize) -> Step {
        let life = self.workers[worker].process.life;
        let consumer = &mut self.workers[worker].consumers[partition];
        consumer.number += 1;
        Step { worker, life, partition, number: consumer.number }
    }

    fn command(&mut self, worker: usize, partition: usize, command: Command) {
        let step = self.next_step(worker, partition);
        if !matches!(command, Command::Fetch { .. } | Command::Subscribe { .. }) {
            self.after(TIMEOUT, Event::Reply { step, reply: Reply::Failed });
        }
        self.send_command(step, command);
    }

    /// A reply, or the timeout of it.
    pub(super) fn consume(&mut self, step: Step, reply: Reply) {
        let Step { worker: number, partition, .. } = step;
        let worker = &mut self.workers[number];
        let consumer = &mut worker.consumers[partition];
        if (worker.process.life, consumer.number) != (step.life, step.number) || worker.process.down > 0 {
            return;
        }
        let Some(epoch) = consumer.epoch else { return };
        if worker.ownership.admit(partition, None) != Ok(epoch) {
            // Not served any more, or not yet again.
            consumer.epoch = None;
            return;
        }
        let command = match reply {
            Reply::Position(offset) => {
                consumer.offset = offset;
                Command::Subscribe { offset }
            }
            Reply::Fetched(messages) => {
                consumer.messages = messages;
                let (undecodable, look_up) = (consumer.undecodable(), consumer.look_up());
                if undecodable.is_empty() {
                    look_up
                } else if self.config.is(Mutant::ForgetsDeadLetters) {
                    self.send_command(step, Command::Park(undecodable));
                    look_up
                } else {
                    Command::Park(undecodable)
                }
            }
            Reply::Parked => consumer.look_up(),
            Reply::Logged(logged) => {
                consumer.logged = logged;
                Command::Features(consumer.actions().map(|action| action.user).collect())
            }
            Reply::Features(features) => self.folded(number, partition, epoch, &features),
            Reply::Written => {
                consumer.offset += consumer.messages.len() as u64;
                Command::Fetch { offset: consumer.offset }
            }
            Reply::OtherPosition | Reply::Continue => Command::Position,
            Reply::Overruled { current } => {
                consumer.epoch = None;
                return worker.ownership.overruled(Fence { partition, epoch }, current);
            }
            // Also the outcome of a write is unknown.
            Reply::Failed => {
                let step = self.next_step(number, partition);
                return self.after(RETRY_PAUSE, Event::Reply { step, reply: Reply::Continue });
            }
        };
        self.record(7, Who::Worker(number), partition as u64);
        self.command(number, partition, command);
    }

    fn folded(&mut self, number: usize, partition: usize, epoch: u64, features: &BTreeMap<u64, Features>) -> Command {
        let duplicates = match self.config.mutant {
            Some(Mutant::KeepsLogged) => Duplicates::KeepLogged,
            Some(Mutant::KeepsRepeated) => Duplicates::KeepInBatch,
            _ => Duplicates::Drop,
        };
        let worker = &mut self.workers[number];
        let consumer = &mut worker.consumers[partition];
        let logged = std::mem::take(&mut consumer.logged);
        let batch = Batch::new(consumer.offset, &consumer.messages, logged, features, duplicates);
        let (process_id, incarnation) = (worker.process_id, worker.incarnation);
        Command::Write(Arc::new(BatchWrite { batch, epoch, process_id, incarnation }))
    }
}
