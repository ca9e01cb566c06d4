//! The article's store, whose response time grows with the commands in flight, and the throughput that this law predicts for several
//! instances. Pure.

use anyhow::{bail, ensure};
use faultproxy::Law;
use loadtest::scenario::{self, Scenario};
use serde::Serialize;

/// A store with a law for each instance: an instance feels its own commands in flight only.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ModelledStore {
    /// To all instances together.
    pub connections: u32,
    pub base_ms: f64,
    pub slope_ms: f64,
    /// Sigma of the log-normal factor, whose mean is 1.
    pub spread: f64,
}

impl ModelledStore {
    /// The store of the scenario `article` on a scale of 1:`scale`: fewer connections, each of which adds more to the response time. Response
    /// times and ratios are those of the article, and the machine has less to do.
    ///
    /// # Errors
    /// The scenario has no law, or its connections on this scale cannot be divided by 16.
    pub fn article(scale: u32) -> anyhow::Result<Self> {
        let Scenario { law, store, replicas, .. } = Scenario::load("article")?;
        let scenario::Law::Modelled { base_ms, slope_ms, spread, .. } = law else {
            bail!("the scenario article has no law");
        };
        let all = store.pool_size * replicas;
        ensure!(all.is_multiple_of(16 * scale), "{all} connections cannot be divided by 16 on a scale of 1:{scale}");
        Ok(Self { connections: all / scale, base_ms, slope_ms: slope_ms * f64::from(scale), spread })
    }

    pub fn law(&self) -> Law {
        Law::Linear { base_ms: self.base_ms, slope_ms: self.slope_ms, crosstalk_ms: 0.0, spread: self.spread }
    }

    /// Commands per second of one instance with this number of connections, all of which are busy: each command finds the others in flight.
    pub fn per_instance(&self, connections: f64) -> f64 {
        1000.0 * connections / (self.base_ms + self.slope_ms * connections)
    }

    /// Commands per second of all instances, if the connections are divided among them and all are busy.
    pub fn per_s(&self, instances: u16) -> f64 {
        let instances = f64::from(instances);
        instances * self.per_instance(f64::from(self.connections) / instances)
    }

    /// The gain that no number of instances exceeds: their commands wait for no others.
    pub fn most_gain(&self) -> f64 {
        (self.base_ms + self.slope_ms * f64::from(self.connections)) / self.base_ms
    }

    /// Throughput of several instances over that of one.
    pub fn gain(&self, instances: u16) -> f64 {
        self.per_s(instances) / self.per_s(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prediction_of_the_article_on_any_scale() {
        for scale in [1, 2, 10] {
            let store = ModelledStore::article(scale).unwrap();
            assert_eq!(store.connections, 800 / scale);
            // (74 + 0.2 × 800) / (74 + 0.2 × 50)
            assert!((store.gain(16) - 234.0 / 84.0).abs() < 1e-12, "{scale}: {}", store.gain(16));
            assert!((store.gain(2) - 234.0 / 154.0).abs() < 1e-12);
            assert_eq!(store.gain(1), 1.0);
            assert!((store.per_s(1) - 800.0 / f64::from(scale) / 0.234).abs() < 1e-9);
        }
        assert!(ModelledStore::article(3).unwrap_err().to_string().contains("1:3"));
    }

    #[test]
    fn without_a_slope_instances_give_nothing_at_equal_connections() {
        let store = ModelledStore { slope_ms: 0.0, ..ModelledStore::article(1).unwrap() };
        assert!((store.gain(16) - 1.0).abs() < 1e-12);
        let store = ModelledStore::article(1).unwrap();
        assert!((store.most_gain() - 3.16).abs() < 0.01, "{}", store.most_gain());
        assert!((store.most_gain() - store.gain(u16::MAX)).abs() < 1e-3);
    }
}
