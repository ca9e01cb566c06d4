//! The bloom filter of all users, without I/O.

use std::sync::Arc;

use probabilistic_collections::{SipHasherBuilder, bloom::BloomFilter};

pub struct Filter {
    bits: BloomFilter<String>,
    pub users: usize,
    /// The generation of newcomers that was claimed before the first user was read. `None`: Redis did not answer, so this filter cannot
    /// prove that a user is absent.
    pub generation: Option<Arc<str>>,
}

/// Seeds of the two hash functions. Fixed, so that all replicas have the same false positives and tests are reproducible.
const SEEDS: [(u64, u64); 2] = [(0x7465_7374, 0x6265_6431), (0x626c_6f6f, 0x6d32_3032)];
/// A smaller filter would be full after a few sign-ups.
const MIN_CAPACITY: usize = 1_000;
/// Unknown ids by which the false-positive rate is measured.
const PROBES: u32 = 100_000;

impl Filter {
    /// Builds the filter from the user ids of each shard. Takes a second of CPU per million users: do not run it on an async thread.
    pub fn build(shards: &[Vec<String>], fpr: f64, generation: Option<Arc<str>>) -> Self {
        let hashers = SEEDS.map(|(k0, k1)| SipHasherBuilder::from_seed(k0, k1));
        let users = shards.iter().map(Vec::len).sum();
        let mut bits = BloomFilter::<String>::with_hashers(MIN_CAPACITY.max(users), fpr, hashers);
        for id in shards.iter().flatten() {
            bits.insert::<str>(id);
        }
        Self { bits, users, generation }
    }

    pub fn contains(&self, id: &str) -> bool {
        self.bits.contains::<str>(id)
    }

    pub fn bytes(&self) -> usize {
        self.bits.len() / 8
    }

    /// Share of unknown ids that the filter reports as present.
    pub fn measured_fpr(&self) -> f64 {
        let wrong = (0..PROBES).filter(|n| self.contains(&format!("\u{1}probe-{n}"))).count();
        wrong as f64 / f64::from(PROBES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of false positives among a million distinct unknown ids is below the 99 % quantile of a binomial distribution with the
    /// configured rate.
    #[test]
    fn the_false_positive_rate_is_as_configured() {
        const UNKNOWN: u32 = 1_000_000;
        for fpr in [0.01, 0.001] {
            let ids: Vec<String> = (0..20_000).map(|n| format!("u{n:06}")).collect();
            let ids = [ids];
            let filter = Filter::build(&ids, fpr, None);
            assert!(ids.iter().flatten().all(|id| filter.contains(id)), "a user is reported as absent");
            let passed = (0..UNKNOWN).filter(|n| filter.contains(&format!("x-{n}"))).count();
            let mean = f64::from(UNKNOWN) * fpr;
            // One-sided 99 % quantile; with a mean of 1,000 and more the normal approximation is exact enough.
            let bound = mean + 2.326 * (mean * (1.0 - fpr)).sqrt();
            assert!((passed as f64) <= bound, "{passed} of {UNKNOWN} passed, at most {bound:.0} may ({fpr})");
        }
    }
}
