//! Which life of the worker this is: a number that grows with every start, and with every time the others failed it while it
//! went on. What it held in a life that was failed is not its own any more.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use heartbeat::{assign::Table, clock::wall_ms};

/// Clones share one life.
#[derive(Debug, Clone)]
pub struct Life(Arc<AtomicU64>);

impl Life {
    pub fn begin() -> Self {
        Self(Arc::new(AtomicU64::new(wall_ms().max(1))))
    }

    pub fn incarnation(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Begins the next life if the table has failed this one. True: it did.
    pub fn learn(&self, me: &str, table: &Table) -> bool {
        let (now, standing) = (self.incarnation(), table.nodes.get(me));
        let Some(standing) = standing.filter(|_| table.is_failed(me, now)) else { return false };
        // Later than any that is known, also on a machine whose clock was set back.
        self.0.store(wall_ms().max(standing.incarnation.saturating_add(1)), Relaxed);
        true
    }

    /// Whether the table has this life as online. A later one of this name is another process.
    pub fn is_admitted(&self, me: &str, table: &Table) -> bool {
        table.is_admitted(me, self.incarnation())
    }
}

#[cfg(test)]
mod tests {
    use heartbeat::assign::Standing;

    use super::*;

    #[test]
    fn a_failed_life_is_followed_by_a_later_one() {
        let life = Life::begin();
        let first = life.incarnation();
        let table = |incarnation, online| {
            let nodes = [("w".into(), Standing { incarnation, online })].into();
            Table { nodes, ..Table::default() }
        };
        assert!(!life.learn("w", &Table::default()) && !life.learn("w", &table(first, true)));
        assert!(life.is_admitted("w", &table(first, true)) && !life.is_admitted("w", &table(first - 1, true)));
        assert!(!life.is_admitted("w", &table(first + 1, true)), "another process of this name has begun later");
        assert!(!life.learn("w", &table(first - 1, false)), "an earlier life is not this one");
        // The clock of whoever wrote the table is ahead.
        let ahead = first + 1_000_000;
        assert!(life.learn("w", &table(ahead, false)));
        assert_eq!(life.incarnation(), ahead + 1);
    }
}
