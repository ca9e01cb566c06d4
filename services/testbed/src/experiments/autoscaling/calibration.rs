//! The demand: the smallest number of replicas that answers in time at each load. Measured, because a demand that the autoscaler's own formula
//! names would find every autoscaler right.

use serde::Serialize;

use super::servers::{MANY, SLO_MS, Servers};
use crate::instruments::generator;

/// Where the search for the first load begins: replicas at this share of what their quota holds.
const FIRST_GUESS_PER_S: f64 = 40.0;
const WARM_UP_MS: u64 = 3_000;
const MEASURE_MS: u64 = 5_000;
const QUICK_MEASURE_MS: u64 = 3_000;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Calibration {
    /// In order of the load.
    pub levels: Vec<Level>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Level {
    pub requests_per_s: u32,
    /// The smallest number with p99 ≤ SLO and no failed request. The most that there may be if that is not enough.
    pub replicas: u32,
    /// Whether `replicas` is enough.
    pub is_enough: bool,
    pub tried: Vec<Tried>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tried {
    pub replicas: u32,
    pub p99_ms: f64,
    /// Failed, or planned and not sent because the user still waited.
    pub unanswered: u64,
}

impl Tried {
    fn is_enough(&self) -> bool {
        self.p99_ms <= SLO_MS as f64 && self.unanswered == 0
    }
}

impl Calibration {
    /// Replicas that a load needs. Between two measured loads: by the straight line, rounded up.
    pub fn demand(&self, requests_per_s: u32) -> u32 {
        let above = self.levels.iter().position(|level| level.requests_per_s >= requests_per_s);
        let Some((first, last)) = self.levels.first().zip(self.levels.last()) else { return 0 };
        let (low, high) = match above {
            Some(0) => return (f64::from(first.replicas) * share(requests_per_s, first.requests_per_s)).ceil() as u32,
            Some(above) => (&self.levels[above - 1], &self.levels[above]),
            None => return (f64::from(last.replicas) * share(requests_per_s, last.requests_per_s)).ceil() as u32,
        };
        let part = share(requests_per_s - low.requests_per_s, high.requests_per_s - low.requests_per_s);
        (f64::from(low.replicas) + part * (f64::from(high.replicas) - f64::from(low.replicas))).ceil() as u32
    }
}

fn share(part: u32, whole: u32) -> f64 {
    f64::from(part) / f64::from(whole.max(1))
}

/// # Errors
/// A replica or the load generator fails.
pub async fn run(servers: &mut Servers, loads: &[u32], quick: bool) -> anyhow::Result<Calibration> {
    let measure_ms = if quick { QUICK_MEASURE_MS } else { MEASURE_MS };
    let mut levels: Vec<Level> = Vec::new();
    for &requests_per_s in loads {
        // As many requests per replica as the load before needed.
        let per_replica = levels.last().map_or(FIRST_GUESS_PER_S, |level| share(level.requests_per_s, level.replicas));
        let mut search = Search::new((f64::from(requests_per_s) / per_replica).ceil() as u32);
        while let Some(replicas) = search.next() {
            let tried = measure(servers, requests_per_s, replicas, measure_ms).await?;
            eprintln!("{requests_per_s} requests/s on {replicas} replicas: p99 {:.0} ms", tried.p99_ms);
            search.tried.push(tried);
        }
        levels.push(search.level(requests_per_s));
    }
    Ok(Calibration { levels })
}

async fn measure(servers: &mut Servers, users: u32, replicas: u32, measure_ms: u64) -> anyhow::Result<Tried> {
    servers.scale_to(replicas).await?;
    let plan = servers.plan(users, WARM_UP_MS, measure_ms);
    let window = generator::drive(&mut servers.service, &servers.target, &plan, async |_, _| Ok(None)).await?;
    let failed: u64 = window.outcome.errors.values().sum();
    Ok(Tried { replicas, p99_ms: window.outcome.latency.p99_ms, unanswered: failed + window.outcome.skipped })
}

/// From a guess downwards while it is enough, or upwards until it is.
struct Search {
    guess: u32,
    tried: Vec<Tried>,
}

impl Search {
    fn new(guess: u32) -> Self {
        Self { guess: guess.clamp(1, MANY), tried: Vec::new() }
    }

    /// The next number to try; `None`: the smallest one is known, or the most is too few.
    fn next(&self) -> Option<u32> {
        let Some(last) = self.tried.last() else { return Some(self.guess) };
        let began_enough = self.tried.first().is_some_and(Tried::is_enough);
        match (began_enough, last.is_enough()) {
            (true, true) => last.replicas.checked_sub(1).filter(|replicas| *replicas > 0),
            (false, false) => Some(last.replicas + 1).filter(|replicas| *replicas <= MANY),
            _ => None,
        }
    }

    fn level(self, requests_per_s: u32) -> Level {
        let smallest = self.tried.iter().filter(|tried| tried.is_enough()).map(|tried| tried.replicas).min();
        Level { requests_per_s, replicas: smallest.unwrap_or(MANY), is_enough: smallest.is_some(), tried: self.tried }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// 6 for 200/s, 10 for 400/s, 13 for 520/s.
    pub fn calibration() -> Calibration {
        let level = |requests_per_s, replicas| Level {
            requests_per_s,
            replicas,
            is_enough: true,
            tried: vec![Tried { replicas, p99_ms: 100.0, unanswered: 0 }],
        };
        Calibration { levels: vec![level(200, 6), level(400, 10), level(520, 13)] }
    }

    #[test]
    fn between_two_loads_the_demand_is_on_the_line_and_rounded_up() {
        let calibration = calibration();
        let found = [0, 1, 100, 200, 201, 300, 400, 401, 520, 600].map(|load| calibration.demand(load));
        assert_eq!(found, [0, 1, 3, 6, 7, 8, 10, 11, 13, 15]);
        assert_eq!(Calibration::default().demand(100), 0);
    }

    fn search(guess: u32, needed: u32) -> (Vec<u32>, Level) {
        let mut search = Search::new(guess);
        while let Some(replicas) = search.next() {
            let p99_ms = if replicas >= needed { 100.0 } else { 1000.0 };
            search.tried.push(Tried { replicas, p99_ms, unanswered: 0 });
        }
        (search.tried.iter().map(|tried| tried.replicas).collect(), search.level(400))
    }

    #[test]
    fn the_search_finds_the_smallest_number_from_both_sides() {
        for (guess, needed, tried) in [
            (10, 10, vec![10, 9]),
            (12, 10, vec![12, 11, 10, 9]),
            (8, 10, vec![8, 9, 10]),
            (1, 1, vec![1]),
            (99, 20, vec![20, 19]),
        ] {
            let (found, level) = search(guess, needed);
            assert_eq!((found, level.replicas, level.is_enough), (tried, needed, true));
        }
        let (found, level) = search(19, 21);
        assert_eq!((found, level.replicas, level.is_enough), (vec![19, 20], 20, false));
    }

    #[test]
    fn a_request_that_was_not_answered_is_not_in_time() {
        assert!(!Tried { replicas: 8, p99_ms: 10.0, unanswered: 1 }.is_enough());
    }
}
