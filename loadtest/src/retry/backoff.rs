//! The pause before a retry.

use rand::{Rng, RngExt};

use super::{Backoff, MAX_BACKOFF_MS};

impl Backoff {
    /// Pause before the n-th retry, from 1, in µs. Takes a random number only with jitter.
    pub(super) fn pause_us(&self, retry: u32, random: &mut impl Rng) -> u64 {
        let (full_ms, jitter) = match *self {
            Self::None => return 0,
            Self::Fixed { backoff_ms, jitter } => (backoff_ms, jitter),
            Self::Exponential { backoff_ms, jitter } => {
                let factor = 1_u64.checked_shl(retry.saturating_sub(1)).unwrap_or(u64::MAX);
                (backoff_ms.saturating_mul(factor), jitter)
            }
        };
        let full_us = full_ms.min(MAX_BACKOFF_MS) * 1000;
        if jitter == 0.0 {
            return full_us;
        }
        (full_us as f64 * (1.0 - jitter * random.random::<f64>())) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    fn pauses(backoff: Backoff, seed: u64) -> Vec<u64> {
        let mut random = SmallRng::seed_from_u64(seed);
        (1..=9).map(|retry| backoff.pause_us(retry, &mut random)).collect()
    }

    #[test]
    fn pauses_without_jitter_are_exact() {
        assert_eq!(pauses(Backoff::None, 1), [0; 9]);
        assert_eq!(pauses(Backoff::Fixed { backoff_ms: 50, jitter: 0.0 }, 1), [50_000; 9]);
        let doubled = pauses(Backoff::Exponential { backoff_ms: 1000, jitter: 0.0 }, 1);
        assert_eq!(doubled, [1, 2, 4, 8, 16, 32, 60, 60, 60].map(|s| s * 1_000_000));
        let long = Backoff::Exponential { backoff_ms: u64::MAX, jitter: 0.0 };
        assert_eq!(long.pause_us(u32::MAX, &mut SmallRng::seed_from_u64(1)), 60_000_000);
    }

    proptest! {
        #[test]
        fn jitter_takes_its_share_of_a_pause_away(backoff_ms in 1..=MAX_BACKOFF_MS, jitter in 0.0..=1.0_f64, seed in any::<u64>(), exponential in any::<bool>()) {
            let of = |jitter| if exponential { Backoff::Exponential { backoff_ms, jitter } } else { Backoff::Fixed { backoff_ms, jitter } };
            let (full, jittered) = (pauses(of(0.0), seed), pauses(of(jitter), seed));
            for (full, pause) in full.iter().zip(&jittered) {
                prop_assert!(*pause <= *full && *pause as f64 >= (1.0 - jitter) * *full as f64 - 1.0, "{} of {}", pause, full);
            }
            prop_assert_eq!(pauses(of(jitter), seed), jittered);
        }
    }

    #[test]
    fn full_jitter_is_even() {
        let (backoff, mut random) = (Backoff::Fixed { backoff_ms: 100, jitter: 1.0 }, SmallRng::seed_from_u64(3));
        let pauses: Vec<u64> = (0..20_000).map(|_| backoff.pause_us(1, &mut random)).collect();
        let mean = pauses.iter().sum::<u64>() as f64 / 20_000.0;
        // The deviation of the mean is 100 ms / √12 / √20,000 = 0.2 ms.
        assert!((mean - 50_000.0).abs() < 1_000.0, "{mean}");
        assert!(pauses.iter().any(|us| *us < 1_000) && pauses.iter().any(|us| *us > 99_000));
    }
}
