//! Seeds that do not collide, and the small generator behind them. `seed + number` would give the second user of one step the stream of the
//! first user of the next step.

/// Step of SplitMix64 (Steele, Lea, Flood 2014): the golden ratio's fractional part in 2⁻⁶⁴ units, made odd.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// A seed for one use of a run: a hash of `seed` and all `parts`, in their order. Each part goes through SplitMix64's output function, so that
/// neighbouring parts give unrelated seeds.
pub fn mixed(seed: u64, parts: &[u64]) -> u64 {
    scrambled(parts.iter().fold(seed, |state, part| scrambled(state).wrapping_add(*part)))
}

/// Seed of a step: from the run's seed, the repeat (from 1; 0: the calibration) and the step's index. Below 2⁵³, so that every reader of JSON
/// keeps it exact.
///
/// The variant is no part of it: all variants of one repeat get the same users, ids and phases (common random numbers), so that their
/// difference is not one of the draws.
pub fn of_step(run: u64, repeat: u32, step: usize) -> u64 {
    mixed(run, &[u64::from(repeat), step as u64]) >> 11
}

/// The items in an order that the seed decides; each order is equally likely.
pub fn shuffled<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    let mut random = SplitMix64(seed);
    for left in (2..=items.len()).rev() {
        items.swap(left - 1, random.below(left));
    }
    items
}

/// SplitMix64's output function: a bijection.
fn scrambled(state: u64) -> u64 {
    let mut z = state.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A generator whose numbers never change with the version of a crate: a report that is rendered again shows the same figures.
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    pub fn draw(&mut self) -> u64 {
        let number = scrambled(self.0);
        self.0 = self.0.wrapping_add(GAMMA);
        number
    }

    /// 0 to `count` − 1; `count` must not be 0. The bias is below `count` / 2⁶⁴.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.draw()) * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn it_is_split_mix_64() {
        // The first numbers of the reference implementation for the seed 1234567.
        let mut random = SplitMix64(1_234_567);
        let first = [random.draw(), random.draw(), random.draw()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_million_seeds_of_users_and_steps_differ() {
        let steps: Vec<u64> = (1..=2)
            .flat_map(|run| (0..10).flat_map(move |repeat| (0..10).map(move |step| of_step(run, repeat, step))))
            .collect();
        assert!(steps.iter().all(|seed| *seed < 1 << 53));
        let mut all: HashSet<u64> = steps.iter().copied().collect();
        assert_eq!(all.len(), 200);
        // The streams of 5,000 users of each step, and its two own.
        all.extend(steps.iter().flat_map(|&step| (0..5_000).map(move |user| mixed(step, &[2, user]))));
        all.extend(steps.iter().flat_map(|&step| (0..2).map(move |stream| mixed(step, &[stream]))));
        assert_eq!(all.len(), 200 + 1_000_000 + 400);
    }

    #[test]
    fn the_seeds_of_a_million_steps_differ() {
        let all: HashSet<u64> = (0..100)
            .flat_map(|run| (0..100).flat_map(move |repeat| (0..100).map(move |step| of_step(run, repeat, step))))
            .collect();
        assert_eq!(all.len(), 1_000_000);
    }

    #[test]
    fn parts_count_by_their_order_and_number() {
        let different: HashSet<u64> =
            [mixed(1, &[]), mixed(1, &[0]), mixed(1, &[0, 0]), mixed(1, &[0, 1]), mixed(1, &[1, 0]), mixed(2, &[0, 1])]
                .into();
        assert_eq!(different.len(), 6);
    }

    #[test]
    fn each_order_is_as_likely() {
        let mut counts = std::collections::BTreeMap::new();
        (0..6_000).for_each(|seed| *counts.entry(shuffled(vec!['a', 'b', 'c'], seed)).or_insert(0_u32) += 1);
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (900..1_100).contains(count)), "{counts:?}");
        assert_eq!(shuffled(vec![1], 5), [1]);
        assert!(shuffled(Vec::<u8>::new(), 5).is_empty());
    }
}
