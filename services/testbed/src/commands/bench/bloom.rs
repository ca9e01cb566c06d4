//! `bench bloom`: the filter in use beside fastbloom, on one thread: cost of a check, and how often it is wrong.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use probabilistic_collections::{SipHasherBuilder, bloom::BloomFilter};
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

use super::conditions;
use crate::{
    cli::BenchArgs,
    instruments::comparison::{self, Comparison, Figures, Side},
};

const REPEATS: u8 = 7;
/// `guards.bloom_fpr` by default.
const FPR: f64 = 0.001;
/// Any two; the api has its own pair. Fixed, so that both sides and every run make the same mistakes.
const SEEDS: [(u64, u64); 2] = [(0x7465_7374, 0x6265_6431), (0x626c_6f6f, 0x6d32_3032)];
/// Checked once per run and kind; at 0.1 % some 1000 of them are wrongly present.
const ABSENT: usize = 1_000_000;
/// A pass over fewer present keys than this would be over too soon for the clock.
const HITS: usize = 1_000_000;

struct Size {
    keys: usize,
    hit_ns: &'static str,
    miss_ns: &'static str,
    fpr_pct: &'static str,
    mib: &'static str,
}

const SIZES: [Size; 2] = [
    Size { keys: 200_000, hit_ns: "200k_hit_ns", miss_ns: "200k_miss_ns", fpr_pct: "200k_fpr_pct", mib: "200k_mib" },
    Size { keys: 1_000_000, hit_ns: "1m_hit_ns", miss_ns: "1m_miss_ns", fpr_pct: "1m_fpr_pct", mib: "1m_mib" },
];

trait Filter {
    fn contains(&self, key: &str) -> bool;
    fn bits(&self) -> usize;
}

/// As `services/api/src/recommend/guard.rs` builds it.
struct InUse(BloomFilter<String>);

impl InUse {
    fn of(keys: &[String]) -> Self {
        let hashers = SEEDS.map(|(k0, k1)| SipHasherBuilder::from_seed(k0, k1));
        let mut filter = BloomFilter::<String>::with_hashers(keys.len(), FPR, hashers);
        for key in keys {
            filter.insert::<str>(key);
        }
        Self(filter)
    }
}

impl Filter for InUse {
    fn contains(&self, key: &str) -> bool {
        self.0.contains::<str>(key)
    }
    fn bits(&self) -> usize {
        self.0.len()
    }
}

struct Fast(fastbloom::BloomFilter);

impl Fast {
    fn of(keys: &[String]) -> Self {
        let seed = (u128::from(SEEDS[0].0) << 64) | u128::from(SEEDS[0].1);
        let mut filter = fastbloom::BloomFilter::with_false_pos(FPR).seed(&seed).expected_items(keys.len());
        for key in keys {
            filter.insert(key.as_str());
        }
        Self(filter)
    }
}

impl Filter for Fast {
    fn contains(&self, key: &str) -> bool {
        self.0.contains(key)
    }
    fn bits(&self) -> usize {
        self.0.num_bits()
    }
}

/// Keys in the filter and keys that are not, both in no order a filter or cache could profit from.
struct Keys {
    present: Vec<String>,
    absent: Vec<String>,
}

impl Keys {
    fn new(present: usize, absent: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(1);
        let mut keys = Self {
            // Of the forms that the generator and the load generator make.
            present: (0..present).map(|n| format!("u{n:06}")).collect(),
            absent: (0..absent).map(|n| format!("x-1-{n}")).collect(),
        };
        keys.present.shuffle(&mut random);
        keys.absent.shuffle(&mut random);
        keys
    }
}

pub async fn run(args: BenchArgs) -> anyhow::Result<Comparison> {
    let repeats = usize::from(args.repeat.unwrap_or(REPEATS));
    let mut runs: [Vec<Figures>; 2] = [vec![Figures::new(); repeats], vec![Figures::new(); repeats]];
    for size in &SIZES {
        let keys = Keys::new(size.keys, ABSENT);
        let (in_use, fast) = (InUse::of(&keys.present), Fast::of(&keys.present));
        let measured = comparison::in_turns(2, repeats, async |side| match side {
            0 => checks(&in_use, &keys, size),
            _ => checks(&fast, &keys, size),
        });
        for (all, of_size) in runs.iter_mut().zip(measured.await?) {
            for (all, of_size) in all.iter_mut().zip(of_size) {
                all.extend(of_size);
            }
        }
        // Ctrl-C is heard here at the latest.
        tokio::task::yield_now().await;
    }
    let (in_use, fast) = (Side::new("probabilistic-collections", &runs[0]), Side::new("fastbloom", &runs[1]));
    // Under an attack nearly every check is a miss: that ratio comes first.
    let figures = SIZES.iter().rev().flat_map(|size| [size.miss_ns, size.hit_ns, size.fpr_pct]);
    let ratios = figures.map(|figure| in_use.over(&fast, figure)).collect();
    let what = format!("checks of 200,000 and 1,000,000 keys at {} % on one thread; below 1 is better", 100.0 * FPR);
    Comparison::new("bloom", what, vec![in_use, fast], ratios, conditions(&[], Vec::new()))
}

/// Generic, not `dyn`: a call through a table would be part of the cost.
fn checks<F: Filter>(filter: &F, keys: &Keys, size: &Size) -> anyhow::Result<Figures> {
    let mut hits = 0;
    let passes = HITS.div_ceil(keys.present.len());
    let start = Instant::now();
    for _ in 0..passes {
        hits += present(filter, &keys.present);
    }
    let hit_ns = per_check(start.elapsed(), passes * keys.present.len());
    anyhow::ensure!(hits == passes * keys.present.len(), "a filter has forgotten a key");
    let start = Instant::now();
    let wrong = present(filter, &keys.absent);
    let miss_ns = per_check(start.elapsed(), keys.absent.len());
    Ok(Figures::from([
        (size.hit_ns, hit_ns),
        (size.miss_ns, miss_ns),
        (size.fpr_pct, 100.0 * wrong as f64 / keys.absent.len() as f64),
        (size.mib, filter.bits() as f64 / 8.0 / f64::from(1 << 20)),
    ]))
}

fn present<F: Filter>(filter: &F, keys: &[String]) -> usize {
    keys.iter().filter(|key| filter.contains(black_box(key.as_str()))).count()
}

fn per_check(time: Duration, checks: usize) -> f64 {
    time.as_secs_f64() * 1e9 / checks as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_filters_keep_their_keys_and_about_their_rate() {
        let keys = Keys::new(2_000, 20_000);
        let size = Size { keys: 2_000, ..SIZES[0] };
        for figures in [checks(&InUse::of(&keys.present), &keys, &size), checks(&Fast::of(&keys.present), &keys, &size)]
        {
            let figures = figures.unwrap();
            // 20 of 20,000 expected; 60 is nine standard deviations off.
            assert!(figures["200k_fpr_pct"] <= 0.3, "{figures:?}");
            assert!(figures["200k_hit_ns"] > 0.0 && figures["200k_mib"] > 0.0, "{figures:?}");
        }
    }
}
