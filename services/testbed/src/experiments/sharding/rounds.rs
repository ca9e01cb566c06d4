//! Variants measured in rounds, and the ratio of two of them round by round. Pure.

use std::fmt;

use report::Validity;
use serde::Serialize;
use statistics::{
    Interval, mean, mean_interval,
    seed::{mixed, shuffled},
};

use super::window::{Length, Window};

/// A window of a variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run<V> {
    #[serde(flatten)]
    pub variant: V,
    /// From 1.
    pub round: u32,
    #[serde(flatten)]
    pub window: Window,
}

/// How often and how long each variant is measured.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    pub count: u32,
    pub seed: u64,
    pub length: Length,
}

impl Rounds {
    /// All variants once in each round (from 1). The seed decides the order, round by round: a machine that becomes slower in the course of a
    /// run would otherwise always make the same variant look slower.
    pub fn order<V: Copy>(&self, variants: &[V]) -> Vec<(u32, V)> {
        let of_round = |round: u32| shuffled(variants.to_vec(), mixed(self.seed, &[u64::from(round)]));
        (1..=self.count).flat_map(|round| of_round(round).into_iter().map(move |variant| (round, variant))).collect()
    }
}

pub fn of<'a, V: PartialEq>(runs: &'a [Run<V>], variant: &'a V) -> impl Iterator<Item = &'a Run<V>> {
    runs.iter().filter(move |run| run.variant == *variant)
}

/// Throughput of the servers over that of another variant in the same round.
pub fn gains<V: PartialEq>(runs: &[Run<V>], variant: &V, base: &V) -> Vec<f64> {
    let pairs = of(runs, variant).filter_map(|run| Some((run, of(runs, base).find(|other| other.round == run.round)?)));
    pairs.map(|(run, base)| run.window.per_s() / base.window.per_s()).collect()
}

/// A figure of the windows of a variant, in the order measured.
pub fn figure<V: PartialEq>(runs: &[Run<V>], variant: &V, figure: impl Fn(&Window) -> f64) -> Vec<f64> {
    of(runs, variant).map(|run| figure(&run.window)).collect()
}

/// Of all windows of a variant: the worst figures, and every reason with its round.
pub fn validity<V: PartialEq>(runs: &[Run<V>], variant: &V) -> Validity {
    let mut all = Validity::default();
    for run in of(runs, variant) {
        let one = &run.window.validity;
        all.send_lag_p99_ms = all.send_lag_p99_ms.max(one.send_lag_p99_ms);
        all.cpu_pct = all.cpu_pct.max(one.cpu_pct);
        all.reasons.extend(one.reasons.iter().map(|reason| format!("round {}: {reason}", run.round)));
    }
    all
}

/// A figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    pub mean: f64,
    /// 95 % interval of the mean, by the bootstrap; null with fewer than three rounds.
    pub low: Option<f64>,
    pub high: Option<f64>,
}

impl Estimate {
    /// NaN without values.
    pub fn of(values: &[f64]) -> Self {
        let interval = mean_interval(values);
        let (low, high) = (interval.map(|ends| ends.low), interval.map(|ends| ends.high));
        Self { mean: mean(values).unwrap_or(f64::NAN), low, high }
    }

    /// Whether it lies between two limits; `None`: there is no interval, or it has values that do and values that do not.
    pub fn is_within(&self, least: f64, most: f64) -> Option<bool> {
        let Interval { low, high } = Interval { low: self.low?, high: self.high? };
        if low >= least && high <= most {
            return Some(true);
        }
        (high < least || low > most).then_some(false)
    }

    /// `2.75 (2.71 to 2.80)`, multiplied by `factor` and with this number of decimals.
    pub fn text(&self, factor: f64, digits: usize) -> String {
        let shown = |value: f64| format!("{:.digits$}", factor * value);
        match (self.low, self.high) {
            (Some(low), Some(high)) => format!("{} ({} to {})", shown(self.mean), shown(low), shown(high)),
            _ => shown(self.mean),
        }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(1.0, 2))
    }
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use super::*;

    /// A window of one second.
    pub fn window(by_servers: u64) -> Window {
        let mut by_shard = vec![0; 16];
        by_shard[0] = by_servers;
        Window { seconds: 1.0, by_shard, ..Window::default() }
    }

    pub fn run<V>(variant: V, round: u32, by_servers: u64) -> Run<V> {
        Run { variant, round, window: window(by_servers) }
    }

    #[test]
    fn every_round_has_all_variants_and_the_orders_differ() {
        let length = Length { warm_up: Duration::ZERO, measured: Duration::ZERO };
        let rounds = Rounds { count: 20, seed: 7, length };
        let all = rounds.order(&[1, 2, 4, 8, 16]);
        let of_rounds: Vec<Vec<i32>> =
            all.chunks(5).map(|round| round.iter().map(|(_, variant)| *variant).collect()).collect();
        for (n, round) in of_rounds.iter().enumerate() {
            assert!(all[5 * n..5 * n + 5].iter().all(|(number, _)| *number == n as u32 + 1));
            let mut sorted = round.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [1, 2, 4, 8, 16]);
        }
        assert!(of_rounds.iter().any(|round| *round != of_rounds[0]));
        assert_eq!(rounds.order(&[1, 2, 4, 8, 16]), all, "the seed decides");
    }

    #[test]
    fn gains_go_round_by_round() {
        // The machine was half as fast in the second round: that is no difference of the variants.
        let runs = [run('a', 1, 100), run('b', 1, 250), run('b', 2, 125), run('a', 2, 50), run('b', 3, 90)];
        assert_eq!(gains(&runs, &'b', &'a'), [2.5, 2.5]);
        assert_eq!(figure(&runs, &'b', Window::per_s), [250.0, 125.0, 90.0]);
    }

    #[test]
    fn an_interval_decides_only_as_a_whole() {
        let estimate = |values: &[f64]| Estimate::of(values);
        let three = estimate(&[2.7, 2.8, 2.9]);
        assert_eq!(three.is_within(2.0, 4.0), Some(true));
        assert_eq!(three.is_within(3.5, 4.0), Some(false));
        assert_eq!(three.is_within(2.8, 4.0), None, "it has values on both sides");
        let one = estimate(&[2.8]);
        assert_eq!((one.is_within(2.0, 4.0), one.to_string()), (None, "2.80".to_owned()));
        assert!(three.to_string().starts_with("2.80 (2."), "{three}");
        assert_eq!(estimate(&[0.5; 3]).text(100.0, 1), "50.0 (50.0 to 50.0)");
        assert!(estimate(&[]).mean.is_nan());
    }

    #[test]
    fn one_invalid_round_is_named() {
        let mut runs = [run('a', 1, 100), run('a', 2, 100), run('b', 1, 10)];
        runs[1].window.validity = Validity::of(1.0, 95.0);
        let of_a = validity(&runs, &'a');
        assert_eq!((of_a.cpu_pct, of_a.reasons), (95.0, vec!["round 2: 95 % CPU is above 90 %".to_owned()]));
        assert!(validity(&runs, &'b').is_valid());
    }
}
