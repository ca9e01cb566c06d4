//! Defects written into recorded histories: the counter check must reject each of them. Pure.

use heartbeat::history::{CounterState, Operation, Outcome};

/// A recorded history with one defect.
pub struct Mutant {
    pub defect: &'static str,
    pub operations: Vec<Operation>,
    pub last: CounterState,
}

/// One mutant for each rule that this history can break. A history with fewer than two acknowledged writes has none.
pub fn of(operations: &[Operation], last: CounterState) -> Vec<Mutant> {
    let mut order: Vec<(CounterState, usize)> =
        operations.iter().enumerate().filter_map(|(n, operation)| Some((acknowledged(operation)?, n))).collect();
    order.sort_by_key(|(state, _)| state.counter);
    let (Some(&(oldest, first)), Some(&(newest, end))) = (order.first(), order.last()) else { return Vec::new() };
    if first == end {
        return Vec::new();
    }
    let mutant = |defect, change: &dyn Fn(&mut Vec<Operation>, &mut CounterState)| {
        let (mut operations, mut last) = (operations.to_vec(), last);
        change(&mut operations, &mut last);
        Mutant { defect, operations, last }
    };
    let mut mutants = vec![
        mutant("a counter twice", &|operations, _| {
            operations[end].outcome = Outcome::Acknowledged(CounterState { counter: oldest.counter, ..newest });
        }),
        mutant("the epoch decreases", &|operations, _| {
            operations[first].outcome = Outcome::Acknowledged(CounterState { epoch: newest.epoch + 1, ..oldest });
        }),
        mutant("an acknowledged write is lost", &|_, last| last.counter = newest.counter - 1),
        mutant("a counter without a write", &|operations, last| {
            operations.retain(|operation| operation.outcome != Outcome::Unknown);
            last.counter += 1;
        }),
    ];
    if operations[first].end < operations[end].begin {
        mutants.push(mutant("counters against real time", &|operations, _| {
            let (a, b) = (operations[first].outcome, operations[end].outcome);
            (operations[first].outcome, operations[end].outcome) = (b, a);
        }));
    }
    if oldest.epoch < newest.epoch {
        mutants.push(mutant("a stale write after a later one", &|operations, last| {
            last.counter += 1;
            let outcome = Outcome::Acknowledged(CounterState { epoch: oldest.epoch, counter: last.counter });
            operations.push(Operation { begin: 0, end: u64::MAX, outcome, ..operations[first] });
        }));
    }
    mutants
}

fn acknowledged(operation: &Operation) -> Option<CounterState> {
    match operation.outcome {
        Outcome::Acknowledged(state) => Some(state),
        Outcome::Refused | Outcome::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use heartbeat::history::check_counter;

    use super::*;

    #[test]
    fn every_defect_is_rejected() {
        let first = CounterState { epoch: 0, counter: 0 };
        let write = |begin, outcome| Operation { client: 0, begin, end: begin + 5, outcome };
        let state = |epoch, counter| CounterState { epoch, counter };
        let operations = [
            write(0, Outcome::Acknowledged(state(1, 1))),
            Operation { end: u64::MAX, ..write(10, Outcome::Unknown) },
            write(20, Outcome::Acknowledged(state(2, 3))),
        ];
        assert!(check_counter(first, &operations, state(2, 3)).is_ok());
        let mutants = of(&operations, state(2, 3));
        assert_eq!(mutants.len(), 6);
        for Mutant { defect, operations, last } in mutants {
            assert!(check_counter(first, &operations, last).is_err(), "{defect}");
        }
        assert!(of(&operations[..2], state(1, 1)).is_empty());
    }
}
