//! Exact checkers of recorded histories: of the counter of one partition, and of the owners that partition tables named. Pure.
//!
//! [`check_counter`] accepts a history if and only if it is linearizable (Herlihy and Wing, 1990): each operation can be given an instant
//! between its begin and its end, so that all results are those of one counter whose epoch never decreases.
//!
//! - An acknowledged write increments the counter by one. Its epoch is at least that of the write before.
//! - A refused write changes nothing.
//! - An unknown write (timeout, broken connection) incremented the counter at some instant, or did not.
//! - Between writes a fence may increase the epoch.
//!
//! **Why exact.** Counters give the order of acknowledged writes. Instants exist for an order if and only if no operation begins after the
//! end of a later one: the latest begin so far is a valid instant. Each missing counter needs an unknown write. It fits if it begins before
//! all later acknowledged writes have ended, and ends after all earlier ones have begun. Both limits only grow with the counter. Hence the
//! write that ends first is the best choice among those that fit, and a choice never has to be revised. Two chosen writes in the wrong order
//! can be exchanged: each fits in the place of the other.
//!
//! ```
//! use heartbeat::history::{CounterState, Operation, Outcome, Violation, check_counter};
//!
//! let empty = CounterState { epoch: 0, counter: 0 };
//! let write = |begin, end, outcome| Operation { client: 1, begin, end, outcome };
//! let acknowledged = |epoch, counter| Outcome::Acknowledged(CounterState { epoch, counter });
//! let mut history = vec![
//!     write(10, 20, acknowledged(1, 1)),
//!     // The client gave up waiting. The write may take effect at any time after its begin.
//!     write(30, u64::MAX, Outcome::Unknown),
//!     write(50, 60, acknowledged(2, 3)),
//! ];
//! let checked = check_counter(empty, &history, CounterState { epoch: 2, counter: 3 })?;
//! assert_eq!((checked.acknowledged, checked.explained), (2, 1));
//!
//! // A primary of an earlier epoch writes: the fence does not work.
//! history.push(write(70, 80, acknowledged(1, 4)));
//! let violation = check_counter(empty, &history, CounterState { epoch: 2, counter: 4 }).unwrap_err();
//! assert!(matches!(violation, Violation::EpochDecreased { .. }));
//! # Ok::<(), Violation>(())
//! ```

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, hash_map::Entry},
    fmt,
};

use crate::{
    Nanos,
    assign::{NodeId, Table},
};

/// The row that a store keeps for a partition. As the result of a write: the row after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterState {
    pub epoch: u64,
    pub counter: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged(CounterState),
    /// The write had no effect, and never will.
    Refused,
    /// Timeout or broken connection: the write may or may not have an effect.
    Unknown,
}

/// One write of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Names the client in errors.
    pub client: u32,
    /// Before the request was sent. All times of a history are of one clock.
    pub begin: Nanos,
    /// After the answer was received. For `Unknown`: the time after which the write can no longer take effect; `Nanos::MAX` without such a
    /// limit.
    pub end: Nanos,
    pub outcome: Outcome,
}

/// Contents of an accepted history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Unknown writes that took effect.
    pub explained: u64,
}

/// A broken rule, with the operations that show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("an operation ends before it begins: {0}")]
    NegativeDuration(Operation),
    #[error("two writes were acknowledged with the same counter: {0} and {1}")]
    DuplicateCounter(Operation, Operation),
    #[error("the epoch decreased: {later} was written after {earlier}")]
    EpochDecreased { earlier: Operation, later: Operation },
    #[error("the counters contradict real time: {later} ended before {earlier} began, but has the higher counter")]
    RealTime { earlier: Operation, later: Operation },
    #[error("{0} was counted before the first state, {1}")]
    BeforeFirst(Operation, CounterState),
    #[error("an acknowledged write was lost: {0}, but the last state is {1}")]
    Lost(Operation, CounterState),
    #[error("the epoch of the last state, {1}, is lower than that of {0}")]
    LastEpoch(Operation, CounterState),
    #[error("the last state, {last}, is lower than the first, {first}")]
    LastBelowFirst { first: CounterState, last: CounterState },
    #[error(
        "no unknown write explains counter {counter}, between {} and {}",
        place(earlier.as_ref(), "the first state"),
        place(later.as_ref(), "the last state")
    )]
    Unexplained {
        counter: u64,
        /// The acknowledged write with the next lower counter.
        earlier: Option<Operation>,
        /// The acknowledged write with the next higher counter.
        later: Option<Operation>,
    },
}

/// Checks all operations on one partition, in any order. `first` was read before the first operation began, `last` after the effects of all
/// operations.
///
/// Takes O(n log n) time and O(n) memory.
///
/// # Errors
/// The history is not linearizable.
pub fn check_counter(first: CounterState, operations: &[Operation], last: CounterState) -> Result<Checked, Violation> {
    if let Some(operation) = operations.iter().find(|operation| operation.end < operation.begin) {
        return Err(Violation::NegativeDuration(*operation));
    }
    if last.epoch < first.epoch || last.counter < first.counter {
        return Err(Violation::LastBelowFirst { first, last });
    }
    let mut acknowledged: Vec<(CounterState, Operation)> = operations
        .iter()
        .filter_map(|operation| match operation.outcome {
            Outcome::Acknowledged(state) => Some((state, *operation)),
            Outcome::Refused | Outcome::Unknown => None,
        })
        .collect();
    acknowledged.sort_by_key(|(state, operation)| (state.counter, operation.begin));
    check_order(first, &acknowledged, last)?;
    let of = |outcome| operations.iter().filter(move |operation| operation.outcome == outcome);
    let explained = explain(first, &acknowledged, of(Outcome::Unknown).copied().collect(), last)?;
    Ok(Checked {
        acknowledged: acknowledged.len() as u64,
        refused: of(Outcome::Refused).count() as u64,
        unknown: of(Outcome::Unknown).count() as u64,
        explained,
    })
}

/// The acknowledged writes alone, in the order of their counters.
fn check_order(
    first: CounterState,
    acknowledged: &[(CounterState, Operation)],
    last: CounterState,
) -> Result<(), Violation> {
    for pair in acknowledged.windows(2) {
        let [(state, earlier), (next, later)] = [pair[0], pair[1]];
        if state.counter == next.counter {
            return Err(Violation::DuplicateCounter(earlier, later));
        }
        if next.epoch < state.epoch {
            return Err(Violation::EpochDecreased { earlier, later });
        }
    }
    if let Some((state, operation)) = acknowledged.first()
        && (state.counter <= first.counter || state.epoch < first.epoch)
    {
        return Err(Violation::BeforeFirst(*operation, first));
    }
    if let Some((state, operation)) = acknowledged.last() {
        if state.counter > last.counter {
            return Err(Violation::Lost(*operation, last));
        }
        if state.epoch > last.epoch {
            return Err(Violation::LastEpoch(*operation, last));
        }
    }
    let mut began_last: Option<Operation> = None;
    for (_, operation) in acknowledged {
        if let Some(earlier) = began_last.filter(|earlier| operation.end < earlier.begin) {
            return Err(Violation::RealTime { earlier, later: *operation });
        }
        began_last = began_last.filter(|earlier| earlier.begin >= operation.begin).or(Some(*operation));
    }
    Ok(())
}

/// Finds a different unknown write for each missing counter. Returns their number.
fn explain(
    first: CounterState,
    acknowledged: &[(CounterState, Operation)],
    mut unknown: Vec<Operation>,
    last: CounterState,
) -> Result<u64, Violation> {
    unknown.sort_by_key(|operation| Reverse(operation.begin));
    // The earliest end of the acknowledged writes from here on.
    let mut limits: Vec<Nanos> = acknowledged
        .iter()
        .rev()
        .scan(Nanos::MAX, |limit, (_, operation)| {
            *limit = operation.end.min(*limit);
            Some(*limit)
        })
        .collect();
    limits.reverse();
    limits.push(Nanos::MAX);

    // Unknown writes that began in time for the counter, by their end.
    let mut fitting = BinaryHeap::new();
    let (mut counter, mut latest_begin, mut explained) = (first.counter, 0, 0);
    for (place, limit) in limits.into_iter().enumerate() {
        while let Some(began) = unknown.pop_if(|operation| operation.begin <= limit) {
            fitting.push(Reverse(began.end));
        }
        let next = acknowledged.get(place);
        let highest = next.map_or(last.counter, |(state, _)| state.counter - 1);
        // At most as many rounds as there are unknown writes.
        while counter < highest {
            counter += 1;
            let chosen = std::iter::from_fn(|| fitting.pop()).find(|Reverse(end)| *end >= latest_begin);
            if chosen.is_none() {
                let earlier = place.checked_sub(1).map(|before| acknowledged[before].1);
                return Err(Violation::Unexplained { counter, earlier, later: next.map(|(_, operation)| *operation) });
            }
            explained += 1;
        }
        if let Some((state, operation)) = next {
            (counter, latest_begin) = (state.counter, operation.begin.max(latest_begin));
        }
    }
    Ok(explained)
}

impl fmt::Display for CounterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "counter {} in epoch {}", self.counter, self.epoch)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::Acknowledged(state) => write!(f, "{state}")?,
            Outcome::Refused => f.write_str("a refused write")?,
            Outcome::Unknown => f.write_str("a write without an answer")?,
        }
        let Self { client, begin, end, .. } = self;
        write!(f, " (client {client}, from {:.6} to {:.6} s)", seconds(*begin), seconds(*end))
    }
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

fn place(operation: Option<&Operation>, or: &str) -> String {
    operation.map_or_else(|| or.to_owned(), Operation::to_string)
}

/// A process that owns a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub node: NodeId,
    pub incarnation: u64,
    /// The random id of the process; 0 in all records of a history that has no such ids.
    pub process: u64,
}

/// Two owners of one partition in one epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition} has two owners in epoch {epoch}: {first} and {second}")]
pub struct TwoOwners {
    pub partition: usize,
    pub epoch: u64,
    pub first: Owner,
    pub second: Owner,
}

/// All owners that were seen, in tables or as writers. A partition has one owner per epoch.
#[derive(Debug, Default)]
pub struct Owners(HashMap<(usize, u64), Owner>);

impl Owners {
    /// # Errors
    /// Another owner was seen for this partition and epoch.
    pub fn record(&mut self, partition: usize, epoch: u64, owner: Owner) -> Result<(), Box<TwoOwners>> {
        match self.0.entry((partition, epoch)) {
            Entry::Vacant(vacant) => {
                vacant.insert(owner);
                Ok(())
            }
            Entry::Occupied(known) if *known.get() == owner => Ok(()),
            Entry::Occupied(known) => {
                Err(Box::new(TwoOwners { partition, epoch, first: known.get().clone(), second: owner }))
            }
        }
    }

    /// Records the owners of all partitions.
    ///
    /// # Errors
    /// As `record`.
    pub fn record_table(&mut self, table: &Table) -> Result<(), Box<TwoOwners>> {
        for (partition, assignment) in table.partitions.iter().enumerate() {
            if let Some((node, incarnation, process)) = table.owner(assignment) {
                let owner = Owner { node: node.clone(), incarnation, process };
                self.record(partition, assignment.epoch, owner)?;
            }
        }
        Ok(())
    }

    pub fn get(&self, partition: usize, epoch: u64) -> Option<&Owner> {
        self.0.get(&(partition, epoch))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, incarnation, process } = self;
        write!(f, "{node} (incarnation {incarnation}, process {process:x})")
    }
}

#[cfg(test)]
mod tests;
