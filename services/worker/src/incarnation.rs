//! Incarnation of the worker: a number that grows with every start, and each time the monitors fail this worker although it still runs. It
//! loses the partitions of a failed incarnation.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use heartbeat::{assign::Table, clock::wall_ms};

/// Clones share one number.
#[derive(Debug, Clone)]
pub struct Incarnation {
    number: Arc<AtomicU64>,
    process: u64,
}

impl Incarnation {
    pub fn begin() -> Self {
        // Zero means unknown.
        let process = rand::random::<u64>().max(1);
        Self { number: Arc::new(AtomicU64::new(wall_ms().max(1))), process }
    }

    /// A random number of this process: see `Registration::process`.
    pub fn process(&self) -> u64 {
        self.process
    }

    pub fn current(&self) -> u64 {
        self.number.load(Relaxed)
    }

    /// Begins the next incarnation if the table has failed this one. Returns whether it did.
    pub fn replace_if_failed(&self, me: &str, table: &Table) -> bool {
        let (now, membership) = (self.current(), table.nodes.get(me));
        let Some(membership) = membership.filter(|_| table.is_failed(me, now)) else { return false };
        // Later than any known incarnation, also on a machine whose clock was set back.
        self.number.store(wall_ms().max(membership.incarnation.saturating_add(1)), Relaxed);
        true
    }

    /// Whether the table lists this incarnation as online. A later incarnation with this name is another process.
    pub fn is_admitted(&self, me: &str, table: &Table) -> bool {
        table.is_admitted(me, self.current(), self.process)
    }
}

#[cfg(test)]
mod tests {
    use heartbeat::assign::Membership;

    use super::*;

    #[test]
    fn a_failed_life_is_followed_by_a_later_one() {
        let incarnation = Incarnation::begin();
        let (first, process) = (incarnation.current(), incarnation.process());
        let table = |incarnation, online| {
            let nodes = [("w".into(), Membership { incarnation, process, online })].into();
            Table { nodes, ..Table::default() }
        };
        assert!(
            !incarnation.replace_if_failed("w", &Table::default())
                && !incarnation.replace_if_failed("w", &table(first, true))
        );
        assert!(
            incarnation.is_admitted("w", &table(first, true)) && !incarnation.is_admitted("w", &table(first - 1, true))
        );
        assert!(!incarnation.is_admitted("w", &table(first + 1, true)), "another process of this name has begun later");
        assert!(
            !incarnation.replace_if_failed("w", &table(first - 1, false)),
            "an earlier incarnation is not this one"
        );
        // The clock of the monitor that wrote the table is ahead.
        let ahead = first + 1_000_000;
        assert!(incarnation.replace_if_failed("w", &table(ahead, false)));
        assert_eq!(incarnation.current(), ahead + 1);
    }
}
