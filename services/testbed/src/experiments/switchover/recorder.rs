//! Records the writes of all clients, and checks them against the store's rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use contract::{ShardId, http::Counted};
use heartbeat::{
    Nanos,
    assign::{PARTITIONS, Table},
    history::{CounterState, Operation, Outcome, Owners, Violation, check_counter},
};
use serde::Serialize;
use stores::Store;

use super::mutants::{self, Mutant};

/// The writes of a series. Refused writes are only counted.
pub struct Recorder {
    start: Instant,
    clients: AtomicU32,
    refused: AtomicU64,
    operations: [Mutex<Vec<Operation>>; PARTITIONS],
    owners: Mutex<SeenOwners>,
}

#[derive(Default)]
struct SeenOwners {
    by_tables: Owners,
    /// Workers that acknowledged writes, by partition and epoch.
    by_writes: BTreeMap<(usize, u64), BTreeSet<String>>,
    violations: Vec<String>,
}

/// Result of the check. Of all partitions.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CounterCheck {
    pub acknowledged: u64,
    pub refused: u64,
    /// Writes without an answer, and how many of them took effect.
    pub unknown: u64,
    pub explained: u64,
    /// In words.
    pub violations: Vec<String>,
    /// Copies of these histories with one defect each.
    pub mutants: u64,
    /// Defects that the check accepted, in words.
    pub missed_mutants: Vec<String>,
    /// At least one acknowledged write was stale: its epoch was lower than that of a write before it.
    pub found_stale_write: bool,
}

impl CounterCheck {
    fn mutate(&mut self, partition: usize, first: CounterState, mutants: Vec<Mutant>) {
        for Mutant { defect, operations, last } in mutants {
            self.mutants += 1;
            if check_counter(first, &operations, last).is_ok() {
                self.missed_mutants.push(format!("partition {partition}: {defect}"));
            }
        }
    }

    pub fn text(&self) -> String {
        let Self { acknowledged, refused, unknown, explained, violations, .. } = self;
        let violations = if violations.is_empty() { "no violation".into() } else { violations.join("; ") };
        format!(
            "counter check: {acknowledged} writes acknowledged, {refused} refused, {unknown} without an answer ({explained} of them took \
             effect); {violations}"
        )
    }
}

impl Recorder {
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            clients: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            operations: std::array::from_fn(|_| Mutex::default()),
            owners: Mutex::default(),
        }
    }

    /// The number of a new client.
    pub fn client(&self) -> u32 {
        self.clients.fetch_add(1, Relaxed)
    }

    /// Call this before the request is sent.
    pub fn begin(&self, client: u32, partition: usize) -> Write<'_> {
        let begin = self.now();
        let operation = Operation { client, begin, end: Nanos::MAX, outcome: Outcome::Unknown };
        Write { recorder: self, partition, operation }
    }

    /// A monitor published this table.
    pub fn table(&self, table: &Table) {
        let mut owners = lock(&self.owners);
        if let Err(two) = owners.by_tables.record_table(table) {
            owners.violations.push(two.to_string());
        }
    }

    /// `first`: the rows before the first write. `last`: the rows after all clients have stopped.
    pub fn check(&self, first: &[CounterState], last: &[CounterState]) -> CounterCheck {
        let mut check = CounterCheck { refused: self.refused.load(Relaxed), ..CounterCheck::default() };
        for (partition, operations) in self.operations.iter().enumerate() {
            let operations = lock(operations);
            match check_counter(first[partition], &operations, last[partition]) {
                Ok(checked) => {
                    check.mutate(partition, first[partition], mutants::of(&operations, last[partition]));
                    check.acknowledged += checked.acknowledged;
                    check.unknown += checked.unknown;
                    check.explained += checked.explained;
                }
                Err(violation) => {
                    check.found_stale_write |= matches!(violation, Violation::EpochDecreased { .. });
                    check.violations.push(format!("partition {partition}: {violation}"));
                }
            }
        }
        let owners = lock(&self.owners);
        check.violations.extend_from_slice(&owners.violations);
        for ((partition, epoch), workers) in &owners.by_writes {
            let owner = owners.by_tables.get(*partition, *epoch).map(|owner| &*owner.node);
            let others = workers.iter().any(|worker| owner.is_some_and(|owner| owner != worker));
            if workers.len() > 1 || others {
                check.violations.push(format!(
                    "partition {partition} was written in epoch {epoch} by {workers:?}; its owner is {}",
                    owner.unwrap_or("unknown")
                ));
            }
        }
        check
    }

    fn now(&self) -> Nanos {
        self.start.elapsed().as_nanos() as Nanos
    }
}

/// A write in flight. If it is dropped, its outcome is unknown.
pub struct Write<'a> {
    recorder: &'a Recorder,
    partition: usize,
    operation: Operation,
}

impl Write<'_> {
    pub fn acknowledged(mut self, counted: &Counted) {
        let Counted { epoch, counter, worker, .. } = counted;
        self.operation.end = self.recorder.now();
        self.operation.outcome = Outcome::Acknowledged(CounterState { epoch: *epoch, counter: *counter });
        let mut owners = lock(&self.recorder.owners);
        let workers = owners.by_writes.entry((self.partition, *epoch)).or_default();
        if !workers.contains(worker) {
            workers.insert(worker.clone());
        }
    }

    /// The write has no effect.
    pub fn refused(mut self) {
        self.operation.outcome = Outcome::Refused;
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        if self.operation.outcome == Outcome::Refused {
            self.recorder.refused.fetch_add(1, Relaxed);
        } else {
            lock(&self.recorder.operations[self.partition]).push(self.operation);
        }
    }
}

/// The store's rows of all partitions.
///
/// # Errors
/// The store does not answer.
pub async fn rows(store: &Store) -> anyhow::Result<Vec<CounterState>> {
    let mut rows = Vec::with_capacity(PARTITIONS);
    for shard in ShardId::all() {
        let row = store.ownership(shard).await?;
        rows.push(CounterState { epoch: row.epoch, counter: row.counter });
    }
    Ok(rows)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(epoch: u64, counter: u64, worker: &str) -> Counted {
        Counted { partition: 3, epoch, counter, worker: worker.into() }
    }

    fn check(recorder: &Recorder, epoch: u64, counter: u64) -> CounterCheck {
        let mut last = vec![CounterState { epoch: 0, counter: 0 }; PARTITIONS];
        let first = last.clone();
        last[3] = CounterState { epoch, counter };
        recorder.check(&first, &last)
    }

    #[test]
    fn a_dropped_write_is_unknown_and_a_stale_one_is_found() {
        let recorder = Recorder::start();
        let client = recorder.client();
        recorder.begin(client, 3).acknowledged(&counted(1, 1, "a"));
        drop(recorder.begin(client, 3));
        recorder.begin(client, 3).refused();
        recorder.begin(recorder.client(), 3).acknowledged(&counted(2, 3, "b"));
        let checked = check(&recorder, 2, 3);
        assert_eq!((checked.acknowledged, checked.unknown, checked.explained, checked.refused), (2, 1, 1, 1));
        assert!(checked.violations.is_empty() && !checked.found_stale_write, "{checked:?}");
        assert!(checked.mutants >= 5 && checked.missed_mutants.is_empty(), "{checked:?}");
        let lost = check(&recorder, 2, 2);
        assert!(lost.violations[0].starts_with("partition 3: an acknowledged write was lost"), "{lost:?}");
        assert!(!lost.found_stale_write);
        recorder.begin(client, 3).acknowledged(&counted(1, 4, "a"));
        assert!(check(&recorder, 2, 4).found_stale_write);
    }

    #[test]
    fn two_writers_in_one_epoch_are_found() {
        let recorder = Recorder::start();
        recorder.begin(0, 3).acknowledged(&counted(1, 1, "a"));
        let mut table = Table { epoch: 1, ..Table::default() };
        (table.partitions[3].epoch, table.partitions[3].primary) = (1, Some("a".into()));
        recorder.table(&table);
        assert!(check(&recorder, 1, 1).violations.is_empty());
        recorder.begin(0, 3).acknowledged(&counted(1, 2, "b"));
        let found = check(&recorder, 1, 2).violations;
        assert_eq!(found, [r#"partition 3 was written in epoch 1 by {"a", "b"}; its owner is a"#]);
    }
}
