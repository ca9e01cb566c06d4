//! The client: writes to the partitions in turn, and goes to another worker if one does not serve it.

use std::{collections::BTreeMap, sync::Arc};

use heartbeat::{Nanos, assign::PARTITIONS};

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

pub(super) struct Client {
    pub(super) known: Arc<Published>,
    number: u64,
    /// Writes without an acknowledgement: when they began, and the last attempt.
    open: BTreeMap<u64, (Nanos, Write)>,
    pub(super) acknowledged_at: [Nanos; PARTITIONS],
}

impl Default for Client {
    fn default() -> Self {
        Self {
            known: Arc::new(Published { table: Arc::default(), addresses: BTreeMap::new() }),
            number: 0,
            open: BTreeMap::new(),
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
        let write = Write { operation, attempt: 1, partition, epoch, unserved_by: Vec::new() };
        // Some clients have an old address, or go to any worker.
        let to = if self.random.chance(0.05) {
            Some(self.random.range(0, self.workers.len() as u64) as usize)
        } else {
            primary
        };
        if let Some(to) = to {
            self.client.open.insert(operation, (self.now, write.clone()));
            self.attempt(to, write);
        }
    }

    fn attempt(&mut self, to: usize, write: Write) {
        let (operation, attempt) = (write.operation, write.attempt);
        self.after(ATTEMPT_TIMEOUT, Event::AttemptTimeout { operation, attempt });
        self.send_stream(Who::Client, Who::Worker(to), Message::Write(write));
    }

    /// Goes where the worker says, or to another worker.
    pub(super) fn try_again(&mut self, failed: &Write, redirect: Option<usize>) {
        let Some((begun, last)) = self.client.open.get(&failed.operation) else { return };
        if last.attempt != failed.attempt {
            return;
        }
        let (begun, mut write) = (*begun, last.clone());
        write.attempt += 1;
        // The worker knows the epoch.
        write.epoch = None;
        let known = Arc::clone(&self.client.known);
        let primary = known.table.partitions[write.partition].primary.clone();
        let to = redirect.or_else(|| {
            write.unserved_by = primary.iter().cloned().collect();
            let others: Vec<usize> =
                known.addresses.iter().filter(|(id, _)| Some(*id) != primary.as_ref()).map(|(_, at)| *at).collect();
            (!others.is_empty()).then(|| others[self.random.range(0, others.len() as u64) as usize])
        });
        let Some(to) = to.filter(|_| write.attempt <= ATTEMPTS) else {
            self.client.open.remove(&write.operation);
            return;
        };
        self.client.open.insert(write.operation, (begun, write.clone()));
        self.attempt(to, write);
    }

    pub(super) fn attempt_timed_out(&mut self, operation: u64, attempt: u8) {
        let open = self.client.open.get(&operation).map(|(_, write)| write.clone());
        if let Some(write) = open.filter(|write| write.attempt == attempt) {
            self.try_again(&write, None);
        }
    }

    pub(super) fn acknowledged(&mut self, write: &Write, epoch: u64, counter: u64) {
        // Also after the timeout of an attempt: it happened.
        if let Some((begun, _)) = self.client.open.remove(&write.operation) {
            self.client.acknowledged_at[write.partition] = self.now;
            self.checks.acknowledged(begun, self.now, write.partition, (epoch, counter));
        }
    }
}
