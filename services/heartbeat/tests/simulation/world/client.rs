//! The client: writes to the partitions in turn, and goes to another worker if one does not serve it.

use std::{collections::BTreeMap, sync::Arc};

use heartbeat::{
    Nanos,
    assign::PARTITIONS,
    history::{CounterState, Operation, Outcome},
};

use super::World;
use crate::{
    config::{MS, SECOND},
    events::{Event, Message, Published, Write},
    faults::Who,
};

/// Interval of writes.
pub(super) const PACE: Nanos = 20 * MS;
const ATTEMPT_TIMEOUT: Nanos = SECOND;
const ATTEMPTS: u8 = 4;
/// Longer gaps between acknowledged writes to a partition are noted.
const INTERRUPTION: Nanos = 2 * SECOND;

pub(super) struct Client {
    pub(super) known: Arc<Published>,
    number: u64,
    /// The last attempt of each write without an acknowledgement.
    open: BTreeMap<u64, Write>,
    /// When attempts without an answer began.
    begun: BTreeMap<(u64, u8), (Nanos, usize)>,
    pub(super) acknowledged_at: [Nanos; PARTITIONS],
}

impl Default for Client {
    fn default() -> Self {
        Self {
            known: Arc::new(Published { table: Arc::default(), addresses: BTreeMap::new() }),
            number: 0,
            open: BTreeMap::new(),
            begun: BTreeMap::new(),
            acknowledged_at: [0; PARTITIONS],
        }
    }
}

impl World {
    pub(super) fn write(&mut self) {
        self.client.number += 1;
        let client = &self.client;
        let (operation, partition) = (client.number, client.number as usize % PARTITIONS);
        let assignment = &client.known.table.partitions[partition];
        let primary = assignment.primary.as_ref().and_then(|primary| client.known.addresses.get(primary).copied());
        let epoch = Some(assignment.epoch).filter(|_| self.random.chance(0.5));
        let write = Write { operation, attempt: 1, partition, epoch, to: 0, unserved_by: Vec::new() };
        // Some clients have an old address, or go to any worker.
        let to = if self.random.chance(0.05) {
            Some(self.random.range(0, self.workers.len() as u64) as usize)
        } else {
            primary
        };
        if let Some(to) = to {
            self.client.open.insert(operation, write.clone());
            self.attempt(to, write);
        }
    }

    fn attempt(&mut self, to: usize, mut write: Write) {
        write.to = to;
        if let Some(open) = self.client.open.get_mut(&write.operation) {
            open.to = to;
        }
        let (operation, attempt) = (write.operation, write.attempt);
        self.client.begun.insert((operation, attempt), (self.now, write.partition));
        self.after(ATTEMPT_TIMEOUT, Event::AttemptTimeout { operation, attempt });
        self.send_stream(Who::Client, Who::Worker(to), Message::Write(write));
    }

    /// Goes where the worker says, or to another worker.
    pub(super) fn try_again(&mut self, failed: &Write, redirect: Option<usize>) {
        let Some(last) = self.client.open.get(&failed.operation).cloned() else { return };
        if last.attempt != failed.attempt {
            return;
        }
        let mut write = last.clone();
        write.attempt += 1;
        // The worker knows the epoch.
        write.epoch = None;
        let known = Arc::clone(&self.client.known);
        let to = redirect.or_else(|| {
            write.unserved_by = vec![self.workers[last.to].id.clone()];
            let others: Vec<usize> = known.addresses.values().copied().filter(|at| *at != last.to).collect();
            (!others.is_empty()).then(|| others[self.random.range(0, others.len() as u64) as usize])
        });
        let Some(to) = to.filter(|_| write.attempt <= ATTEMPTS) else {
            self.client.open.remove(&write.operation);
            return;
        };
        self.client.open.insert(write.operation, write.clone());
        self.attempt(to, write);
    }

    pub(super) fn attempt_timed_out(&mut self, operation: u64, attempt: u8) {
        let open = self.client.open.get(&operation).cloned();
        if let Some(write) = open.filter(|write| write.attempt == attempt) {
            self.try_again(&write, None);
        }
    }

    pub(super) fn acknowledged(&mut self, write: &Write, epoch: u64, counter: u64) {
        // Also after the timeout of an attempt: it happened.
        self.ended(write, Outcome::Acknowledged(CounterState { epoch, counter }));
        if self.client.open.remove(&write.operation).is_some() {
            let before = std::mem::replace(&mut self.client.acknowledged_at[write.partition], self.now);
            if self.now - before >= INTERRUPTION {
                self.checks.interruptions.push((before, self.now - before));
            }
        }
    }

    /// The client has an answer to this attempt.
    pub(super) fn ended(&mut self, write: &Write, outcome: Outcome) {
        if let Some((begin, partition)) = self.client.begun.remove(&(write.operation, write.attempt)) {
            self.checks.attempted(partition, Operation { client: 1, begin, end: self.now, outcome });
        }
    }

    /// Attempts without an answer may have an effect.
    pub(super) fn abandon_attempts(&mut self) {
        for (_, (begin, partition)) in std::mem::take(&mut self.client.begun) {
            let unknown = Operation { client: 1, begin, end: Nanos::MAX, outcome: Outcome::Unknown };
            self.checks.attempted(partition, unknown);
        }
    }
}
