//! Users of unequal popularity on 16 instances of the modelled store, without and behind Redis. Every instance brings connections of its own,
//! so that its capacity does not depend on the number of instances.

use std::sync::Arc;

use anyhow::Context as _;
use contract::keys;
use rand::{SeedableRng as _, distr::weighted::WeightedIndex, rngs::SmallRng};
use serde::Serialize;
use statistics::seed::mixed;

use super::{
    clients::{PopularityClient, Ranked},
    modelled::ModelledStore,
    popularity::{Popularity, load, max_over_mean},
    rounds::{Rounds, Run},
    servers::Servers,
    window::measure,
};
use crate::stack::service::redis_for_tools;

const USERS: usize = 200_000;
/// The most popular users, whose lists warm-up leaves in Redis. A miss writes none, so that the share of misses does not change while it is
/// measured.
pub const CACHED: usize = USERS / 1000;
/// Of a list in Redis.
const LIST_BYTES: usize = 2_000;
/// Clients beyond the connections, per instance: they wait at the busiest instance, and keep the others busy as far as it permits. With twice as
/// many they need longer than the warm-up to gather there, and the others do more meanwhile; with half as many the others are less busy.
const WAITING: u32 = if cfg!(debug_assertions) { 10 } else { 15 };

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Variant {
    pub popularity: Popularity,
    pub behind_redis: bool,
    pub servers: u16,
}

/// What is predicted before anything is measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    pub variant: Variant,
    /// Load of the busiest server over the mean, by the popularity of the users and the hash of their ids.
    pub max_over_mean: f64,
    /// Throughput of the servers over that of one.
    pub gain: f64,
    /// Share of the requests that the lists in Redis answer, in percent.
    pub from_redis_pct: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Skew {
    /// Of each instance.
    pub connections: u32,
    /// Reads per second at most of one instance.
    pub predicted_per_s: f64,
    pub cases: Vec<Case>,
    pub runs: Vec<Run<Variant>>,
}

/// One server, and users that are alike.
pub const ONE: Variant = Variant { popularity: Popularity::Zipf(0.0), behind_redis: false, servers: 1 };

impl Skew {
    /// The predictions, without runs. Each instance has as many connections as one of 16 has of the whole store.
    ///
    /// # Errors
    /// Never: the ids are valid.
    pub fn predicted(store: &ModelledStore, servers: u16) -> anyhow::Result<Self> {
        let users = Ranked::new(USERS)?;
        let case = |behind_redis: bool, popularity: Popularity| {
            let (weights, cached) = (popularity.weights(USERS), if behind_redis { CACHED } else { 0 });
            let skew = max_over_mean(&load(&weights, &users.shards, servers, cached));
            Case {
                variant: Variant { popularity, behind_redis, servers },
                max_over_mean: skew,
                gain: f64::from(servers) / skew,
                from_redis_pct: 100.0 * weights[..cached].iter().sum::<f64>() / weights.iter().sum::<f64>(),
            }
        };
        let cases = [false, true]
            .into_iter()
            .flat_map(|behind_redis| Popularity::ALL.map(|popularity| case(behind_redis, popularity)));
        let connections = store.connections / 16;
        let predicted_per_s = store.per_instance(f64::from(connections));
        Ok(Self { connections, predicted_per_s, cases: cases.collect(), runs: Vec::new() })
    }

    /// # Errors
    /// A layout cannot be opened or closed, or Redis does not answer.
    pub async fn run(&mut self, servers: &Servers, store: &ModelledStore, rounds: Rounds) -> anyhow::Result<()> {
        let users = Arc::new(Ranked::new(USERS)?);
        let redis = redis_for_tools(&servers.redis.url)?;
        cache_lists(redis.clone(), &users).await.context("cannot fill Redis")?;
        let variants: Vec<Variant> = [ONE].into_iter().chain(self.cases.iter().map(|case| case.variant)).collect();
        for (round, variant) in rounds.order(&variants) {
            let count = u32::from(variant.servers);
            let layout = servers.open(variant.servers, self.connections * count, Some(store.law())).await?;
            let popularity = Arc::new(WeightedIndex::new(variant.popularity.weights(USERS))?);
            let client = |number: u32| PopularityClient {
                store: layout.store.clone(),
                redis: variant.behind_redis.then(|| redis.clone()),
                users: Arc::clone(&users),
                popularity: Arc::clone(&popularity),
                random: SmallRng::seed_from_u64(mixed(rounds.seed, &[u64::from(round), u64::from(number)])),
            };
            let clients = (0..count * (self.connections + WAITING)).map(client).collect();
            let window = measure(clients, &layout.pids, rounds.length).await?;
            eprintln!("round {round}, {}: {:.0}/s {}", variant.name(), window.per_s(), window.validity.note());
            layout.close().await.with_context(|| variant.name())?;
            self.runs.push(Run { variant, round, window });
        }
        Ok(())
    }
}

impl Variant {
    pub fn name(&self) -> String {
        let place = if self.behind_redis { "behind Redis" } else { "without Redis" };
        match self.servers {
            1 => "one server".into(),
            servers => format!("{}, {place}, {servers} servers", self.popularity.name()),
        }
    }
}

/// As warm-up leaves them.
async fn cache_lists(mut redis: redis::aio::ConnectionManager, users: &Ranked) -> anyhow::Result<()> {
    let list = vec![b'x'; LIST_BYTES];
    let mut pipeline = redis::pipe();
    for user in &users.ids[..CACHED] {
        pipeline.cmd("SET").arg(keys::recommendations(user.as_str())).arg(list.as_slice()).ignore();
    }
    Ok(pipeline.query_async::<()>(&mut redis).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_predictions_are_near_those_of_random_placements_and_redis_evens_the_load() {
        let skew = Skew::predicted(&ModelledStore::article(1).unwrap(), 16).unwrap();
        assert_eq!((skew.connections, skew.cases.len()), (50, 8));
        // 50 / 84 ms
        assert!((skew.predicted_per_s - 595.2).abs() < 0.1, "{}", skew.predicted_per_s);
        let found = |n: usize| (skew.cases[n].max_over_mean, skew.cases[n].gain, skew.cases[n].from_redis_pct);
        // Wider than the medians of simulated placements: this is one placement.
        for (n, least, most) in [(0, 1.01, 1.05), (1, 1.7, 3.0), (2, 3.2, 5.5), (3, 3.9, 4.1)] {
            let (skew, gain, from_redis) = found(n);
            assert!((least..most).contains(&skew) && from_redis == 0.0, "case {n}: {skew}");
            assert!((gain * skew - 16.0).abs() < 1e-9);
        }
        for n in 4..8 {
            assert!(found(n).0 < 1.2, "case {n}: {:?}", found(n));
        }
        let hits: Vec<f64> = (4..8).map(|n| found(n).2).collect();
        let expected = [0.1, 46.0, 74.8, 20.1];
        assert!(hits.iter().zip(expected).all(|(hits, expected)| (hits - expected).abs() < 0.5), "{hits:?}");
    }
}
