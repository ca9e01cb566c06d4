//! Adaptive throttling at the client.
//!
//! Source: Site Reliability Engineering (2016), chapter 21, "Client-side throttling": a client rejects a request itself with the probability
//! max(0, (requests − K × accepts) / (requests + 1)), both counted over the last two minutes. Requests include the rejected ones.

use rand::{Rng, RngExt};

use super::window::Window;

/// Seconds of memory.
const SLICES: usize = 120;
const SLICE_US: u64 = 1_000_000;

#[derive(Debug, Clone)]
pub(super) struct AdaptiveThrottle {
    k: f64,
    tries: Window<SLICES>,
    successes: Window<SLICES>,
}

impl AdaptiveThrottle {
    pub(super) fn new(k: f64) -> Self {
        Self { k, tries: Window::new(SLICE_US), successes: Window::new(SLICE_US) }
    }

    /// Whether a try is sent. It counts in both cases. Takes a random number only if the answer depends on one.
    pub(super) fn permits(&mut self, now_us: u64, random: &mut impl Rng) -> bool {
        let rejected = self.rejected_share(now_us);
        self.tries.add(now_us, 1);
        rejected == 0.0 || random.random::<f64>() >= rejected
    }

    pub(super) fn succeeded(&mut self, now_us: u64) {
        self.successes.add(now_us, 1);
    }

    /// Probability that the next try is not sent.
    fn rejected_share(&mut self, now_us: u64) -> f64 {
        let (tries, successes) = (self.tries.sum(now_us) as f64, self.successes.sum(now_us) as f64);
        ((tries - self.k * successes) / (tries + 1.0)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    /// Tries that are sent per second of 1000 that are wanted, by a server that answers at most `capacity` of them.
    fn sent_per_s(k: f64, capacity: u32, seconds: u64) -> Vec<u32> {
        let (mut throttle, mut random) = (AdaptiveThrottle::new(k), SmallRng::seed_from_u64(5));
        let mut second = |second: u64| {
            let mut sent = 0;
            for n in 0..1000 {
                let now_us = second * 1_000_000 + n * 1000;
                if throttle.permits(now_us, &mut random) {
                    sent += 1;
                    if sent <= capacity {
                        throttle.succeeded(now_us);
                    }
                }
            }
            sent
        };
        (0..seconds).map(&mut second).collect()
    }

    #[test]
    fn a_server_gets_k_times_what_it_answers() {
        for (k, capacity) in [(2.0, 100), (1.1, 400), (3.0, 50)] {
            let sent = sent_per_s(k, capacity, 300);
            let settled = f64::from(sent[200..].iter().sum::<u32>()) / 100.0;
            let expected = k * f64::from(capacity);
            assert!((settled / expected - 1.0).abs() < 0.05, "{settled}/s, not {expected}/s");
        }
        assert!(sent_per_s(2.0, 500, 60).iter().all(|sent| *sent == 1000), "half of the tries may fail");
    }

    #[test]
    fn a_failed_server_is_still_tried_and_the_past_is_forgotten() {
        let sent = sent_per_s(2.0, 0, 300);
        assert!(sent[..5].iter().sum::<u32>() < 20 && sent.iter().sum::<u32>() > 0, "{sent:?}");
        let (mut throttle, mut random) = (AdaptiveThrottle::new(2.0), SmallRng::seed_from_u64(1));
        (0..1000).for_each(|_| {
            throttle.permits(0, &mut random);
        });
        assert!(throttle.rejected_share(119_999_999) > 0.9);
        assert_eq!(throttle.rejected_share(120_000_000), 0.0);
    }

    proptest! {
        #[test]
        fn the_probability_is_the_books_and_below_one(tries in 0..2000_i64, successes in 0..2000_i64, k in 1.0..10.0_f64) {
            let successes = successes.min(tries);
            let mut throttle = AdaptiveThrottle::new(k);
            throttle.tries.add(0, tries);
            throttle.successes.add(0, successes);
            let share = throttle.rejected_share(0);
            prop_assert!((0.0..1.0).contains(&share));
            let expected = (tries as f64 - k * successes as f64) / (tries as f64 + 1.0);
            prop_assert!((share - expected.max(0.0)).abs() < 1e-12);
        }
    }
}
