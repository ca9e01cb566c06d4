//! Which of the requests that admission refuses get a span and a log line. A refusal has to cost much less than an answer, and thousands of them per
//! second say the same.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use prometheus::IntCounter;

/// Of refused requests, in a second.
const MAX_RECORDED: u64 = 10;

pub struct Refusals {
    began: Instant,
    /// The second, from `began`, and the refusals recorded in it: `second * 2^16 + recorded`.
    recorded: AtomicU64,
    unrecorded: IntCounter,
}

impl Refusals {
    pub fn new(now: Instant, unrecorded: IntCounter) -> Self {
        Self { began: now, recorded: AtomicU64::new(0), unrecorded }
    }

    /// Whether this one is recorded; otherwise it is only counted.
    pub fn is_recorded(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.began).as_secs() << 16;
        let next = |last: u64| {
            // The first one of its second, or one of the next.
            let next = if last < second { second + 1 } else { last + 1 };
            (next - second <= MAX_RECORDED).then_some(next)
        };
        let is_recorded = self.recorded.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok();
        if !is_recorded {
            self.unrecorded.inc();
        }
        is_recorded
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn some_of_each_second_are_recorded_and_the_others_counted() {
        let (began, unrecorded) = (Instant::now(), IntCounter::new("n", "n").unwrap());
        let refusals = Refusals::new(began, unrecorded.clone());
        for second in [0, 1, 7] {
            let at = |n: u64| began + Duration::from_millis(second * 1_000 + n);
            assert_eq!((0..900).filter(|n| refusals.is_recorded(at(*n))).count() as u64, MAX_RECORDED);
        }
        assert_eq!(unrecorded.get(), 3 * (900 - MAX_RECORDED));
    }
}
