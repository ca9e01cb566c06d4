//! Model of a path between two processes: a sender that pauses, a network that delays and loses, an observer that pauses. Times in
//! milliseconds.

use super::random::Random;

/// Losses of a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Loss {
    /// Each heartbeat independently, with this probability.
    Independent(f64),
    /// Gilbert-Elliott: in the bad state everything is lost. `length`: mean number of heartbeats in a bad period.
    Bursts { share: f64, length: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Jitter {
    LogNormal { median: f64, sigma: f64 },
    Pareto { least: f64, exponent: f64 },
}

impl Jitter {
    /// Median of the log-normal distribution, minimum of the Pareto distribution.
    pub(super) fn middle(&self) -> f64 {
        match *self {
            Self::LogNormal { median, .. } => median,
            Self::Pareto { least, .. } => least,
        }
    }
}

/// A network during one period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Link {
    /// Minimum delay.
    pub(super) base: f64,
    pub(super) jitter: Jitter,
    pub(super) loss: Loss,
}

impl Link {
    pub(super) const LAN: Self =
        Self { base: 0.1, jitter: Jitter::LogNormal { median: 0.2, sigma: 0.5 }, loss: Loss::Independent(0.0) };
    pub(super) const WAN: Self =
        Self { base: 40.0, jitter: Jitter::LogNormal { median: 2.0, sigma: 0.8 }, loss: Loss::Independent(0.000_5) };

    /// Delay in milliseconds, or lost. `is_bad`: the link's state between heartbeats.
    pub(super) fn carry(&self, random: &mut Random, is_bad: &mut bool) -> Option<f64> {
        let lost = match self.loss {
            Loss::Independent(share) => random.chance(share),
            Loss::Bursts { share, length } => {
                // The chain is stationary with a share of `share` in the bad state.
                let turns = if *is_bad { 1.0 / length } else { share / (1.0 - share) / length };
                *is_bad ^= random.chance(turns);
                *is_bad
            }
        };
        let jitter = match self.jitter {
            Jitter::LogNormal { median, sigma } => random.log_normal(median, sigma),
            Jitter::Pareto { least, exponent } => random.pareto(least, exponent),
        };
        (!lost).then_some(self.base + jitter)
    }
}

/// Pauses of a process: from, to; ascending and disjoint.
pub(super) struct Pauses(Vec<(f64, f64)>);

impl Pauses {
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Bursts with a mean distance of `apart`, and a mean of `number` pauses within the seconds that follow.
    pub(super) fn bursts(
        random: &mut Random,
        length: f64,
        apart: f64,
        number: f64,
        pause: impl Fn(&mut Random) -> f64,
    ) -> Self {
        let mut all = Vec::new();
        let mut burst = random.exponential(apart);
        while burst < length {
            let mut at = burst;
            loop {
                let end = at + pause(random);
                all.push((at, end));
                at = end + random.exponential(3_000.0);
                if random.chance(1.0 / number) {
                    break;
                }
            }
            burst = at + random.exponential(apart);
        }
        Self(all)
    }

    pub(super) fn later_by(mut self, by: f64) -> Self {
        self.0.iter_mut().for_each(|pause| *pause = (pause.0 + by, pause.1 + by));
        self
    }

    /// The end of the pause that contains `at`, or `at`. Call in ascending order; `cursor` starts at 0.
    pub(super) fn until(&self, at: f64, cursor: &mut usize) -> f64 {
        while self.0.get(*cursor).is_some_and(|pause| pause.1 <= at) {
            *cursor += 1;
        }
        self.0.get(*cursor).filter(|pause| pause.0 <= at).map_or(at, |pause| pause.1)
    }

    /// The same, in any order.
    pub(super) fn after(&self, at: f64) -> f64 {
        let next = self.0.partition_point(|pause| pause.1 <= at);
        self.0.get(next).filter(|pause| pause.0 <= at).map_or(at, |pause| pause.1)
    }
}
