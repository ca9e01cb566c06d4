//! A retry budget as Finagle's: a token bucket whose tokens expire.
//!
//! Source: twitter/finagle, `com.twitter.finagle.service.RetryBudget`: each first try deposits tokens that live for the TTL of 10 s, a retry
//! withdraws the tokens of one retry, and a reserve permits a minimum per second. Deposits and withdrawals are in one window of ten
//! slices, so that a withdrawal is forgotten after the TTL too.

use super::window::Window;

const SLICES: usize = 10;
const SLICE_US: u64 = 1_000_000;
/// Tokens of one retry: fine enough for a thousandth of a percent.
const RETRY_TOKENS: i64 = 100_000;

#[derive(Debug, Clone)]
pub(super) struct TokenBucket {
    window: Window<SLICES>,
    deposit: i64,
    reserve: i64,
}

impl TokenBucket {
    /// `pct`: retries per 100 first tries. `min_per_s`: retries per second in addition.
    pub(super) fn new(pct: f64, min_per_s: f64) -> Self {
        let ttl_s = SLICES as f64 * SLICE_US as f64 / 1e6;
        Self {
            window: Window::new(SLICE_US),
            deposit: (RETRY_TOKENS as f64 * pct / 100.0).round() as i64,
            reserve: (RETRY_TOKENS as f64 * min_per_s * ttl_s).round() as i64,
        }
    }

    /// A first try was sent.
    pub(super) fn deposit(&mut self, now_us: u64) {
        self.window.add(now_us, self.deposit);
    }

    /// Whether a retry is permitted. It is paid for then.
    pub(super) fn withdraw(&mut self, now_us: u64) -> bool {
        let is_permitted = self.window.sum(now_us) + self.reserve >= RETRY_TOKENS;
        if is_permitted {
            self.window.add(now_us, -RETRY_TOKENS);
        }
        is_permitted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Retries of a client that sends 100 first tries per second, of which each asks for a retry until the bucket refuses.
    fn retries_per_s(pct: f64, min_per_s: f64, seconds: u64) -> Vec<u64> {
        let mut bucket = TokenBucket::new(pct, min_per_s);
        let second = |second: u64| {
            let tries = (0..100).map(|n| second * 1_000_000 + n * 10_000);
            tries
                .map(|now_us| {
                    bucket.deposit(now_us);
                    (0..10).take_while(|_| bucket.withdraw(now_us)).count() as u64
                })
                .sum()
        };
        (0..seconds).map(second).collect()
    }

    #[test]
    fn retries_are_a_share_of_the_first_tries_and_the_reserve() {
        let plain = retries_per_s(20.0, 0.0, 60);
        assert!(plain.iter().all(|retries| *retries == 20), "{plain:?}");
        let with_reserve: u64 = retries_per_s(20.0, 10.0, 60).iter().sum();
        assert_eq!(with_reserve, 60 * 30, "the reserve is 10/s over the ten seconds of a token's life");
    }

    #[test]
    fn tokens_expire() {
        let mut bucket = TokenBucket::new(100.0, 0.0);
        bucket.deposit(0);
        bucket.deposit(500_000);
        assert!(bucket.withdraw(9_999_999));
        assert!(!bucket.withdraw(10_000_000), "the deposits of the first second are gone");
    }

    proptest! {
        /// At each permitted retry the retries of the last ten slices are within the budget of the same slices.
        #[test]
        fn never_more_than_the_budget(
            mut times in prop::collection::vec((0..30_000_000_u64, any::<bool>()), 1..300),
            pct in 0.0..300.0_f64,
            min_per_s in 0.0..3.0_f64,
        ) {
            times.sort_unstable();
            let mut bucket = TokenBucket::new(pct, min_per_s);
            let (mut first, mut permitted) = (Vec::new(), Vec::new());
            for (now_us, is_first) in times {
                if is_first {
                    bucket.deposit(now_us);
                    first.push(now_us);
                } else if bucket.withdraw(now_us) {
                    permitted.push(now_us);
                    let recent = |all: &[u64]| all.iter().filter(|at| **at / SLICE_US + 10 > now_us / SLICE_US).count() as f64;
                    let budget = recent(&first) * pct / 100.0 + 10.0 * min_per_s;
                    prop_assert!(recent(&permitted) <= budget + 0.01, "{} of {}", recent(&permitted), budget);
                }
            }
        }
    }
}
