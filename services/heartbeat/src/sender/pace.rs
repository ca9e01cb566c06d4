//! When a beat is due. Pure.

use crate::Nanos;

/// Fractional part of the golden ratio times 2^64: its multiples spread evenly for any number of senders.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Times `start + n × interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    start: Nanos,
    interval: Nanos,
}

impl Pace {
    /// An interval of 0 counts as 1 ns.
    pub fn new(start: Nanos, interval: Nanos) -> Self {
        Self { start, interval: interval.max(1) }
    }

    pub fn planned(&self, number: u64) -> Nanos {
        self.start.saturating_add(number.saturating_mul(self.interval))
    }

    /// The next number after `number`, at `now`. If several are due, the latest of them: a sender that was stopped for a minute sends one
    /// heartbeat, not sixty.
    pub fn next(&self, number: u64, now: Nanos) -> u64 {
        let due = now.saturating_sub(self.start) / self.interval;
        due.max(number + 1)
    }
}

/// Phase of sender `n` within the interval.
pub fn phase(n: u64, interval: Nanos) -> Nanos {
    ((u128::from(n.wrapping_mul(GOLDEN)) * u128::from(interval)) >> 64) as Nanos
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn late_beats_do_not_move_the_later_ones() {
        let pace = Pace::new(100, 10);
        assert_eq!(pace.planned(3), 130);
        // Sent 9 late: the next is on time. 19 late: one is skipped. A long pause is one heartbeat.
        assert_eq!((pace.next(3, 139), pace.next(3, 149), pace.next(3, 150), pace.next(3, 10_000)), (4, 4, 5, 990));
    }

    #[test]
    fn phases_are_even() {
        let mut phases: Vec<_> = (0..1_000).map(|n| phase(n, 1_000_000)).collect();
        phases.sort_unstable();
        let widest = phases.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(widest < 3_000, "{widest}");
    }

    proptest! {
        #[test]
        fn numbers_grow_and_are_never_of_the_future_by_more_than_one(start: u32, interval in 1..1_000_u64, number in 0..1_000_u64, late: u16) {
            let pace = Pace::new(u64::from(start), interval);
            let now = pace.planned(number) + u64::from(late);
            let next = pace.next(number, now);
            prop_assert!(next > number);
            prop_assert!(next == number + 1 || pace.planned(next) <= now);
            prop_assert!(pace.planned(next) + interval > now);
        }
    }
}
