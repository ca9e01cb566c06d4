//! The store's part in consuming: reads of log and features, and the conditional write of a batch. Commands may be late or lost on their way,
//! and so may the answers.

use heartbeat::Nanos;

use super::{World, store::Passage};
use crate::{
    config::{MS, Mutant, SECOND},
    events::{BatchWrite, Command, Event, Reply, Step},
};

/// Share of the commands that are in flight for long.
const LATE: f64 = 0.02;
/// Share of the commands and of the answers that never arrive.
const LOST: f64 = 0.005;

impl World {
    pub(super) fn send_command(&mut self, step: Step, command: Command) {
        let delay = self.log_delay();
        match command {
            // The broker's.
            Command::Subscribe { offset } => {
                let connected = self.log_random.range(0, SECOND);
                return self.command_after(delay + connected, step, Command::Fetch { offset });
            }
            Command::Fetch { .. } => return self.command_after(delay, step, command),
            Command::Park(_) if self.log_random.chance(LOST) => return,
            Command::Park(_) => return self.command_after(delay, step, command),
            _ => {}
        }
        if self.log_random.chance(LOST) {
            return;
        }
        let late = if self.log_random.chance(LATE) { self.log_random.range(0, 4 * SECOND) } else { 0 };
        let troubles = self.troubles(step.worker, step.partition);
        match Passage::new(self.now + delay + late, &troubles, &mut self.log_random) {
            Passage::Arrives(at) => self.at(at, Event::Command { step, command, is_answered: true }),
            Passage::Fails { at, is_executed } => {
                if is_executed {
                    self.at(at, Event::Command { step, command, is_answered: false });
                }
                self.at(at + MS, Event::Reply { step, reply: Reply::Failed });
            }
        }
    }

    pub(super) fn command_after(&mut self, delay: Nanos, step: Step, command: Command) {
        self.after(delay, Event::Command { step, command, is_answered: true });
    }

    pub(super) fn execute(&mut self, step: Step, command: Command, is_answered: bool) {
        let log = &self.logs[step.partition];
        let reply = match command {
            Command::Position => Reply::Position(log.next_offset()),
            Command::Subscribe { offset } | Command::Fetch { offset } => return self.fetch(step, offset),
            Command::Park(offsets) => return self.park(step, offsets),
            Command::Logged(actions) => {
                Reply::Logged(actions.into_iter().filter(|action| log.contains(action)).collect())
            }
            Command::Features(users) => {
                Reply::Features(users.into_iter().map(|user| (user, log.features(user))).collect())
            }
            Command::Write(write) => self.write_batch(step, &write),
        };
        if is_answered && !self.log_random.chance(LOST) {
            self.reply(step, reply);
        }
    }

    /// All or nothing: fence, offset, log and features.
    fn write_batch(&mut self, step: Step, write: &BatchWrite) -> Reply {
        let Step { worker, partition, .. } = step;
        let BatchWrite { batch, epoch, process_id, incarnation } = write;
        let row = &mut self.rows[partition];
        if !row.admits(*epoch, *process_id, &self.config) && !self.config.is(Mutant::UnfencedBatch) {
            self.checks.batches_refused_by_fence += 1;
            return Reply::Overruled { current: row.epoch() };
        }
        if self.logs[partition].write(batch, !self.config.is(Mutant::AnyOffset)).is_err() {
            self.checks.batches_refused_by_offset += 1;
            return Reply::OtherPosition;
        }
        row.set_owner(*epoch, *process_id);
        self.checks.batches += 1;
        let writer = (self.workers[worker].id.clone(), *incarnation, *process_id);
        self.checks.written(self.now, "batch", (partition, *epoch), writer);
        Reply::Written
    }

    pub(super) fn reply(&mut self, step: Step, reply: Reply) {
        let delay = self.log_delay();
        self.after(delay, Event::Reply { step, reply });
    }

    fn log_delay(&mut self) -> Nanos {
        self.log_random.range(MS / 10, 3 * MS)
    }
}
