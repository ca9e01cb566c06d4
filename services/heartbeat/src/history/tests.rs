use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::*;
use crate::assign::Membership;

const SEEDS: u64 = 1_000;
const EMPTY: CounterState = CounterState { epoch: 0, counter: 0 };

/// A history of a store, and the store's last state.
#[derive(Debug, Clone)]
struct Recorded {
    operations: Vec<Operation>,
    last: CounterState,
}

impl Recorded {
    fn check(&self) -> Result<Checked, Violation> {
        check_counter(EMPTY, &self.operations, self.last)
    }

    /// Positions of acknowledged writes, in the order of their counters.
    fn acknowledged(&self) -> Vec<usize> {
        let mut found: Vec<(u64, usize)> =
            (0..self.operations.len()).filter_map(|n| Some((self.state(n)?.counter, n))).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, n)| n).collect()
    }

    fn state(&self, n: usize) -> Option<CounterState> {
        match self.operations[n].outcome {
            Outcome::Acknowledged(state) => Some(state),
            Outcome::Refused | Outcome::Unknown => None,
        }
    }

    fn set(&mut self, n: usize, change: impl FnOnce(&mut CounterState)) {
        if let Outcome::Acknowledged(state) = &mut self.operations[n].outcome {
            change(state);
        }
    }
}

fn acknowledged(begin: Nanos, end: Nanos, epoch: u64, counter: u64) -> Operation {
    Operation { client: 0, begin, end, outcome: Outcome::Acknowledged(CounterState { epoch, counter }) }
}

fn unknown(begin: Nanos, end: Nanos) -> Operation {
    Operation { client: 0, begin, end, outcome: Outcome::Unknown }
}

/// Defects of a store. Each acts once, in the middle of a history.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Defect {
    None,
    /// A write of an earlier epoch passes.
    NoFence,
    /// A crash forgets the newest acknowledged write.
    ForgetsNewest,
    /// One write is counted twice.
    CountsTwice,
}

enum Arrival {
    Current,
    Stale,
    /// The request or its answer is lost.
    Unanswered,
}

/// Clients write to a simulated store while its owners change. Requests and answers are delayed, and some are never answered.
fn simulate(random: &mut SmallRng, defect: Defect) -> Recorded {
    let (clients, writes) = (random.random_range(2..8), random.random_range(30..60));
    // The instant at which a request arrives at the store, its begin, and its client.
    let mut arrivals: Vec<(Nanos, Nanos, u32)> = Vec::new();
    for client in 0..clients {
        let mut now = random.random_range(0..50);
        for _ in 0..writes {
            let longest = if random.random_bool(0.1) { 200 } else { 20 };
            let delay = random.random_range(0..longest);
            arrivals.push((now + delay, now, client));
            now += random.random_range(1..40);
        }
    }
    arrivals.sort_unstable();
    let (middle, mut row, mut operations) = (arrivals.len() / 2, EMPTY, Vec::new());
    for (n, (at, begin, client)) in arrivals.into_iter().enumerate() {
        let end = at + random.random_range(0..20);
        if n == middle || n != middle + 1 && random.random_bool(0.05) {
            row.epoch += random.random_range(1..3);
        }
        let defect_acts = n == middle + 1 && defect != Defect::None;
        let arrival = match random.random_range(0..10) {
            _ if n == middle => Arrival::Current,
            _ if defect_acts && defect == Defect::NoFence => Arrival::Stale,
            _ if defect_acts => Arrival::Current,
            0 if row.epoch > 0 => Arrival::Stale,
            1 if defect != Defect::CountsTwice => Arrival::Unanswered,
            _ => Arrival::Current,
        };
        let mut epoch = row.epoch;
        match arrival {
            Arrival::Current if defect_acts && defect == Defect::ForgetsNewest => row.counter -= 1,
            Arrival::Current if defect_acts => row.counter += 1,
            Arrival::Current => {}
            Arrival::Stale if defect_acts => epoch -= 1,
            Arrival::Stale => {
                operations.push(Operation { client, begin, end, outcome: Outcome::Refused });
                continue;
            }
            Arrival::Unanswered => {
                row.counter += u64::from(random.random_bool(0.5));
                operations.push(unknown(begin, if random.random_bool(0.5) { Nanos::MAX } else { end }));
                continue;
            }
        }
        row.counter += 1;
        let outcome = Outcome::Acknowledged(CounterState { epoch, counter: row.counter });
        operations.push(Operation { client, begin, end, outcome });
    }
    Recorded { operations, last: row }
}

fn for_each_seed(mut check: impl FnMut(&mut SmallRng, u64)) {
    for seed in 0..SEEDS {
        check(&mut SmallRng::seed_from_u64(seed), seed);
    }
}

#[test]
fn histories_of_a_correct_store_are_accepted() {
    let mut total = Checked::default();
    for_each_seed(|random, seed| {
        let checked = simulate(random, Defect::None).check().unwrap_or_else(|violation| panic!("{seed}: {violation}"));
        total.explained += checked.explained;
        total.refused += checked.refused;
        total.unknown += checked.unknown;
    });
    assert!(total.explained > SEEDS && total.refused > SEEDS && total.unknown > 2 * SEEDS, "{total:?}");
}

/// Changes a valid history in one way, and expects that each is rejected.
fn reject(mutate: impl Fn(&mut SmallRng, &mut Recorded), expected: impl Fn(&Violation) -> bool) {
    for_each_seed(|random, seed| {
        let mut recorded = simulate(random, Defect::None);
        mutate(random, &mut recorded);
        let violation = recorded.check().expect_err(&format!("seed {seed}"));
        assert!(expected(&violation), "seed {seed}: {violation}");
    });
}

#[test]
fn a_counter_that_was_acknowledged_twice_is_rejected() {
    let mutate = |random: &mut SmallRng, recorded: &mut Recorded| {
        let order = recorded.acknowledged();
        let at = random.random_range(1..order.len());
        let counter = recorded.state(order[at - 1]).unwrap().counter;
        recorded.set(order[at], |state| state.counter = counter);
    };
    reject(mutate, |violation| matches!(violation, Violation::DuplicateCounter(..)));
}

#[test]
fn an_epoch_that_decreases_is_rejected() {
    let mutate = |random: &mut SmallRng, recorded: &mut Recorded| {
        let order = recorded.acknowledged();
        let at = random.random_range(1..order.len());
        let epoch = recorded.state(order[at]).unwrap().epoch;
        recorded.set(order[at - 1], |state| state.epoch = epoch + 1);
    };
    reject(mutate, |violation| matches!(violation, Violation::EpochDecreased { .. }));
}

#[test]
fn counters_against_real_time_are_rejected() {
    let mutate = |random: &mut SmallRng, recorded: &mut Recorded| {
        let mut order = recorded.acknowledged();
        order.sort_by_key(|n| recorded.operations[*n].end);
        let first = order[0];
        order.retain(|n| recorded.operations[*n].begin > recorded.operations[first].end);
        let second = order[random.random_range(0..order.len())];
        let (a, b) = (recorded.operations[first].outcome, recorded.operations[second].outcome);
        (recorded.operations[first].outcome, recorded.operations[second].outcome) = (b, a);
    };
    reject(mutate, |violation| matches!(violation, Violation::RealTime { .. }));
}

#[test]
fn a_missing_counter_without_an_unknown_write_is_rejected() {
    // One of the writes that took effect is not in the history.
    let mutate = |_: &mut SmallRng, recorded: &mut Recorded| {
        let explained = recorded.check().unwrap().explained;
        let (mut known, keep) = (0, explained.saturating_sub(1));
        recorded.operations.retain(|operation| {
            let is_unknown = operation.outcome == Outcome::Unknown;
            known += u64::from(is_unknown);
            !is_unknown || known <= keep
        });
        if explained == 0 {
            recorded.last.counter += 1;
        }
    };
    reject(mutate, |violation| matches!(violation, Violation::Unexplained { .. }));
}

#[test]
fn a_last_state_below_the_writes_is_rejected() {
    let newest = |recorded: &Recorded| recorded.state(*recorded.acknowledged().last().unwrap()).unwrap();
    let counter = |_: &mut SmallRng, recorded: &mut Recorded| recorded.last.counter = newest(recorded).counter - 1;
    reject(counter, |violation| matches!(violation, Violation::Lost(..)));
    let epoch = |_: &mut SmallRng, recorded: &mut Recorded| {
        let order = recorded.acknowledged();
        recorded.last.epoch += 1;
        let epoch = recorded.last.epoch;
        recorded.set(*order.last().unwrap(), |state| state.epoch = epoch);
        recorded.last.epoch -= 1;
    };
    reject(epoch, |violation| matches!(violation, Violation::LastEpoch(..)));
}

#[test]
fn histories_of_defective_stores_are_rejected() {
    for_each_seed(|random, seed| {
        let [stale, lost, twice] = [Defect::NoFence, Defect::ForgetsNewest, Defect::CountsTwice]
            .map(|defect| simulate(random, defect).check().unwrap_err());
        assert!(matches!(stale, Violation::EpochDecreased { .. }), "seed {seed}: {stale}");
        assert!(matches!(lost, Violation::DuplicateCounter(..)), "seed {seed}: {lost}");
        assert!(matches!(twice, Violation::Unexplained { .. }), "seed {seed}: {twice}");
    });
}

/// Whether an order of the operations gives their results: tries all of them.
fn is_linearizable(state: CounterState, remaining: &[Operation], last: CounterState) -> bool {
    let is_acknowledged = |operation: &Operation| matches!(operation.outcome, Outcome::Acknowledged(_));
    if !remaining.iter().any(is_acknowledged) && state.counter == last.counter {
        return state.epoch <= last.epoch;
    }
    (0..remaining.len()).any(|n| {
        let operation = remaining[n];
        let after = match operation.outcome {
            Outcome::Acknowledged(after) if after.counter == state.counter + 1 && after.epoch >= state.epoch => after,
            Outcome::Unknown => CounterState { counter: state.counter + 1, ..state },
            _ => return false,
        };
        let ended_before = |other: &&Operation| other.end < operation.begin;
        let others = remaining.iter().enumerate().filter(|(other, _)| *other != n).map(|(_, other)| other);
        // An acknowledged operation may not come later. An unknown one then has no effect.
        if others.clone().filter(ended_before).any(is_acknowledged) {
            return false;
        }
        let rest: Vec<Operation> = others.filter(|other| !ended_before(other)).copied().collect();
        is_linearizable(after, &rest, last)
    })
}

#[test]
fn verdicts_are_those_of_a_search_through_all_orders() {
    let (mut accepted, mut rejected) = (0, 0);
    for seed in 0..200_000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let number = random.random_range(1..7);
        let operations: Vec<Operation> = (1..=number)
            .map(|n| {
                // Mostly in the order of the counters, so that about a fifth of the histories are valid.
                let begin = random.random_range(0..6) + n;
                let end = begin + random.random_range(0..6);
                let counter = if random.random_bool(0.9) { n } else { random.random_range(1..=number) };
                match random.random_range(0..5) {
                    0 | 1 => unknown(begin, end),
                    _ => acknowledged(begin, end, random.random_range(0..2) + n / 3, counter),
                }
            })
            .collect();
        let last = CounterState { epoch: random.random_range(2..5), counter: random.random_range(number / 2..=number) };
        let checked = check_counter(EMPTY, &operations, last);
        let expected = is_linearizable(EMPTY, &operations, last);
        assert_eq!(checked.is_ok(), expected, "seed {seed}: {checked:?} for {operations:?}, {last}");
        *(if expected { &mut accepted } else { &mut rejected }) += 1;
    }
    assert!(accepted > 10_000 && rejected > 10_000, "{accepted} accepted, {rejected} rejected");
}

#[test]
fn a_missing_counter_needs_an_unknown_write_at_the_right_time() {
    let last = |counter| CounterState { epoch: 1, counter };
    let around = [acknowledged(10, 20, 1, 1), acknowledged(50, 60, 1, 3)];
    let with = |unknown: &[Operation]| check_counter(EMPTY, &[&around, unknown].concat(), last(3));
    assert_eq!(with(&[unknown(30, 40)]).unwrap().explained, 1);
    assert_eq!(with(&[unknown(0, 10)]).unwrap().explained, 1, "it may come after a write that began at the same time");
    let missing = Violation::Unexplained { counter: 2, earlier: Some(around[0]), later: Some(around[1]) };
    assert_eq!(
        with(&[unknown(0, 9), unknown(61, Nanos::MAX)]),
        Err(missing),
        "one ends too early, one begins too late"
    );
    // The write that fits both gaps must be left for the second.
    let two_gaps = [&around[..], &[unknown(0, Nanos::MAX), unknown(5, 45)]].concat();
    assert_eq!(check_counter(EMPTY, &two_gaps, last(4)).unwrap().explained, 2);
    let huge = check_counter(EMPTY, &two_gaps, last(u64::MAX)).unwrap_err();
    assert!(matches!(huge, Violation::Unexplained { counter: 5, earlier: Some(_), later: None }), "{huge}");
}

#[test]
fn errors_name_the_operations_and_the_rule() {
    let [first, second] =
        [acknowledged(1_000_000_000, 2_000_000_000, 2, 1), acknowledged(3_000_000_000, 4_000_000_000, 1, 2)];
    let violation = check_counter(EMPTY, &[first, second], CounterState { epoch: 2, counter: 2 }).unwrap_err();
    assert_eq!(
        violation.to_string(),
        "the epoch decreased: counter 2 in epoch 1 (client 0, from 3.000000 to 4.000000 s) was written after counter 1 in epoch 2 \
         (client 0, from 1.000000 to 2.000000 s)"
    );
    let negative = check_counter(EMPTY, &[unknown(2, 1)], EMPTY);
    assert_eq!(negative, Err(Violation::NegativeDuration(unknown(2, 1))));
    let before = check_counter(CounterState { epoch: 0, counter: 1 }, &[first], CounterState { epoch: 2, counter: 1 });
    assert!(matches!(before, Err(Violation::BeforeFirst(..))), "{before:?}");
    let reset = check_counter(CounterState { epoch: 5, counter: 1 }, &[], EMPTY);
    assert!(matches!(reset, Err(Violation::LastBelowFirst { .. })), "{reset:?}");
}

#[test]
fn a_partition_has_one_owner_per_epoch() {
    let owner = |node: &str, incarnation, process| Owner { node: node.into(), incarnation, process };
    let mut owners = Owners::default();
    assert_eq!(owners.record(3, 1, owner("a", 1, 7)), Ok(()));
    assert_eq!(owners.record(3, 1, owner("a", 1, 7)), Ok(()), "seen again");
    assert_eq!(owners.record(3, 2, owner("b", 1, 8)), Ok(()));
    for other in [owner("b", 1, 7), owner("a", 2, 7), owner("a", 1, 8)] {
        let two = owners.record(3, 1, other.clone()).unwrap_err();
        assert_eq!((two.partition, two.epoch, &two.first, &two.second), (3, 1, &owner("a", 1, 7), &other));
    }
    let mut table = Table { epoch: 1, ..Table::default() };
    table.nodes.insert("a".into(), Membership { incarnation: 1, process: 0, online: true });
    table.partitions[5].primary = Some("a".into());
    table.partitions[5].epoch = 1;
    assert_eq!(owners.record_table(&table), Ok(()));
    table.nodes.insert("a".into(), Membership { incarnation: 2, process: 0, online: true });
    let two = owners.record_table(&table).unwrap_err();
    assert_eq!(
        two.to_string(),
        "partition 5 has two owners in epoch 1: a (incarnation 1, process 0) and a (incarnation 2, process 0)"
    );
    assert_eq!(owners.get(5, 1), Some(&owner("a", 1, 0)));
}
