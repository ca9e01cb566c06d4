//! Incarnation of the worker: a number that grows with every start, and each time the monitors fail this worker although it still runs. It
//! loses the partitions of a failed incarnation.
//!
//! Two processes may run under one name, because a machine was cloned or a configuration copied. A process that was never admitted takes
//! the name: its predecessor may have died unnoticed. A process that was admitted gives way as soon as the table lists another one, and
//! takes the name again when the monitors have failed that one. So exactly one of the two serves.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use heartbeat::{
    assign::Table,
    clock::{latest_incarnation, wall_ms},
};

/// Clones share one state.
#[derive(Debug, Clone)]
pub struct Incarnation(Arc<State>);

#[derive(Debug)]
struct State {
    number: AtomicU64,
    process: u64,
    was_admitted: AtomicBool,
}

/// What the worker does about its registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The table lists this process as online.
    Stay,
    Register,
    /// The table lists another process of this name as online, and this process was admitted before it.
    GiveWay {
        to_process: u64,
        to_incarnation: u64,
    },
}

impl Incarnation {
    pub fn begin() -> Self {
        // Zero means unknown.
        let process = rand::random::<u64>().max(1);
        let (number, was_admitted) = (AtomicU64::new(wall_ms().max(1)), AtomicBool::new(false));
        Self(Arc::new(State { number, process, was_admitted }))
    }

    /// A random number of this process: see `Registration::process`.
    pub fn process(&self) -> u64 {
        self.0.process
    }

    pub fn current(&self) -> u64 {
        self.0.number.load(Relaxed)
    }

    /// The step that follows from this table. Begins the next incarnation if the table has failed this one.
    pub fn next_step(&self, me: &str, table: &Table) -> Step {
        if self.is_admitted(me, table) {
            return Step::Stay;
        }
        let Some(known) = table.nodes.get(me).filter(|known| known.incarnation >= self.current()) else {
            return Step::Register;
        };
        if !known.online {
            let was_this = known.process == self.process();
            if self.rise_above(known.incarnation) {
                tracing::warn!(
                    incarnation = self.current(),
                    was_this,
                    "the monitors failed this worker, or another process of its name, although this process runs: it registers as a new incarnation"
                );
            }
            return Step::Register;
        }
        match known.process != self.process() && self.0.was_admitted.load(Relaxed) {
            true => Step::GiveWay { to_process: known.process, to_incarnation: known.incarnation },
            false => Step::Register,
        }
    }

    /// Begins an incarnation above this one, which another process has or had, unless this process is above it already. Returns whether it
    /// did: no incarnation is more than a day ahead of the clock.
    pub fn rise_above(&self, incarnation: u64) -> bool {
        // Later than any known incarnation, also on a machine whose clock was set back.
        let next = wall_ms().max(incarnation.saturating_add(1));
        let rises = self.current() <= incarnation && next <= latest_incarnation();
        if rises {
            self.0.number.store(next, Relaxed);
        }
        rises
    }

    /// Whether the table lists this process and incarnation as online. Remembers that it did: call it with every table.
    pub fn is_admitted(&self, me: &str, table: &Table) -> bool {
        let is_admitted = table.is_admitted(me, self.current(), self.process());
        self.0.was_admitted.fetch_or(is_admitted, Relaxed);
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use heartbeat::assign::Membership;

    use super::*;

    const OTHER: u64 = 0;

    fn table(incarnation: u64, process: u64, online: bool) -> Table {
        Table { nodes: [("w".into(), Membership { incarnation, process, online })].into(), ..Table::default() }
    }

    #[test]
    fn a_failed_incarnation_is_followed_by_a_later_one() {
        let incarnation = Incarnation::begin();
        let (first, process) = (incarnation.current(), incarnation.process());
        let step = |table| incarnation.next_step("w", &table);
        assert_eq!((step(Table::default()), incarnation.current()), (Step::Register, first));
        assert_eq!(step(table(first - 1, process, true)), Step::Register);
        assert_eq!(step(table(first, process, true)), Step::Stay);
        assert_eq!(step(table(first - 1, process, false)), Step::Register, "an earlier incarnation is not this one");
        assert_eq!(incarnation.current(), first);
        // The clock of the monitor that wrote the table is ahead.
        let ahead = first + 1_000_000;
        assert_eq!((step(table(ahead, process, false)), incarnation.current()), (Step::Register, ahead + 1));
    }

    #[test]
    fn an_admitted_process_gives_way_to_another_one_until_that_has_failed() {
        let incarnation = Incarnation::begin();
        let (first, process) = (incarnation.current(), incarnation.process());
        let step = |table| incarnation.next_step("w", &table);
        assert_eq!(step(table(first, OTHER, true)), Step::Register, "its predecessor may be dead");
        assert_eq!(step(table(first, process, true)), Step::Stay);
        let later = first + 5;
        let gives_way = Step::GiveWay { to_process: OTHER, to_incarnation: later };
        assert_eq!((step(table(later, OTHER, true)), incarnation.current()), (gives_way, first));
        assert_eq!(step(table(later, OTHER, false)), Step::Register);
        assert!(incarnation.current() > later);
        assert_eq!(step(table(later, OTHER, true)), Step::Register, "this table is older than the new incarnation");
    }

    #[test]
    fn an_incarnation_rises_only_above_a_plausible_one() {
        let incarnation = Incarnation::begin();
        let first = incarnation.current();
        assert!(!incarnation.rise_above(first - 1) && !incarnation.rise_above(u64::MAX));
        assert_eq!(incarnation.current(), first);
        assert!(incarnation.rise_above(first + 1_000));
        assert_eq!(incarnation.current(), first + 1_001);
    }
}
