//! How often which user is asked for, and how much of it each server gets. Pure.

use contract::ShardId;
use serde::Serialize;

/// Of the requests.
const HOT_SHARE: f64 = 0.2;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Popularity {
    /// The user of rank k is asked for in proportion to 1/k^exponent.
    Zipf(f64),
    /// One user has a fifth of the requests, and all others are alike.
    HotUser,
}

impl Popularity {
    pub const ALL: [Self; 4] = [Self::Zipf(0.0), Self::Zipf(1.0), Self::Zipf(1.2), Self::HotUser];

    pub fn name(self) -> String {
        match self {
            Self::Zipf(exponent) => format!("Zipf {exponent:.1}"),
            Self::HotUser => format!("one user has {:.0} %", 100.0 * HOT_SHARE),
        }
    }

    /// Relative frequency of each user, the most popular one first.
    pub fn weights(self, users: usize) -> Vec<f64> {
        match self {
            Self::Zipf(exponent) => (1..=users).map(|rank| (rank as f64).powf(-exponent)).collect(),
            Self::HotUser => {
                let others = (1.0 - HOT_SHARE) / users.saturating_sub(1).max(1) as f64;
                (0..users).map(|rank| if rank == 0 { HOT_SHARE } else { others }).collect()
            }
        }
    }
}

/// The server that has a shard, as `StoreConfig::spread_over` distributes the shards.
pub fn server_of(shard: ShardId, servers: u16) -> usize {
    shard.index() % usize::from(servers)
}

/// What each server gets of the users' weights. The lists of the first `cached` users are in Redis: their requests reach no server.
/// `shards`: of each user.
pub fn load(weights: &[f64], shards: &[ShardId], servers: u16, cached: usize) -> Vec<f64> {
    let mut load = vec![0.0; usize::from(servers)];
    for (weight, shard) in weights.iter().zip(shards).skip(cached) {
        load[server_of(*shard, servers)] += weight;
    }
    load
}

/// The load of the busiest server over the mean; 1 if all are alike, NaN without load. The gain of N servers is at most N divided by it: the
/// busiest server is full first.
pub fn max_over_mean(load: &[f64]) -> f64 {
    let mean = load.iter().sum::<f64>() / load.len() as f64;
    load.iter().copied().fold(0.0, f64::max) / mean
}

#[cfg(test)]
mod tests {
    use contract::{SHARDS, shard_of};
    use statistics::{median, seed::SplitMix64};
    use stores::StoreConfig;

    use super::*;

    #[test]
    fn servers_have_the_shards_that_the_store_gives_them() {
        for servers in [1, 2, 4, 8, 16] {
            let addresses: Vec<String> = (0..servers).map(|n| format!("127.0.0.1:{}", 20_000 + n)).collect();
            let config = StoreConfig::spread_over(&addresses);
            for shard in ShardId::all() {
                let instance = &config.instances[server_of(shard, servers)];
                assert!(instance.shards.contains(&(shard.index() as u8)), "{servers}: {shard:?}");
            }
        }
    }

    #[test]
    fn loads_by_hand() {
        let shards: Vec<ShardId> = ShardId::all().collect();
        let shards = [shards[0], shards[1], shards[2], shards[3]];
        let weights = Popularity::Zipf(1.0).weights(4);
        assert_eq!(weights, [1.0, 0.5, 1.0 / 3.0, 0.25]);
        assert_eq!(load(&weights, &shards, 2, 0), [1.0 + 1.0 / 3.0, 0.75]);
        assert_eq!(load(&weights, &shards, 2, 1), [1.0 / 3.0, 0.75]);
        assert_eq!(max_over_mean(&[3.0, 1.0]), 1.5);
        assert_eq!(max_over_mean(&[2.0]), 1.0);
        assert!(max_over_mean(&[0.0, 0.0]).is_nan());
        let hot = Popularity::HotUser.weights(5);
        assert_eq!(hot[0], 0.2);
        assert!((hot.iter().sum::<f64>() - 1.0).abs() < 1e-12 && hot[1] == hot[4]);
        assert_eq!(Popularity::ALL.map(Popularity::name), ["Zipf 0.0", "Zipf 1.0", "Zipf 1.2", "one user has 20 %"]);
    }

    /// The figures of the design: medians of 200 simulated placements of 200,000 users. Here are fewer placements.
    #[test]
    fn skew_lowers_the_gain_as_far_as_random_placements_do() {
        let all: Vec<ShardId> = ShardId::all().collect();
        let mut random = SplitMix64(5);
        for (exponent, expected, tolerance) in [(0.0, 1.02, 0.01), (1.0, 2.09, 0.15), (1.2, 3.78, 0.3)] {
            let weights = Popularity::Zipf(exponent).weights(200_000);
            let placed: Vec<f64> = (0..9)
                .map(|_| {
                    let shards: Vec<ShardId> = weights.iter().map(|_| all[random.below(all.len())]).collect();
                    max_over_mean(&load(&weights, &shards, SHARDS.into(), 0))
                })
                .collect();
            let found = median(&placed).unwrap();
            assert!((found - expected).abs() < tolerance, "Zipf {exponent}: {found}");
        }
    }

    #[test]
    fn a_hot_user_fills_one_of_16_servers_until_its_list_is_cached() {
        let shards: Vec<ShardId> = (0..20_000).map(|rank| shard_of(&format!("rank-{rank}"))).collect();
        let weights = Popularity::HotUser.weights(shards.len());
        let before = max_over_mean(&load(&weights, &shards, 16, 0));
        // A fifth, and a sixteenth of the rest.
        assert!((before - 16.0 * 0.25).abs() < 0.1, "{before}");
        assert!(max_over_mean(&load(&weights, &shards, 16, 1)) < 1.1);
    }
}
