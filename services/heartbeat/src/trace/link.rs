//! What a beat meets between two processes: a sender that stands still at times, a network that delays and loses, an observer that stands
//! still, too. Times are milliseconds here.

use super::random::Random;

/// Losses of a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Loss {
    /// Each beat by itself, with this probability.
    Independent(f64),
    /// Gilbert and Elliott's: while the link is bad everything is lost. `length` is the mean number of beats that a bad time takes.
    Bursts { share: f64, length: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Jitter {
    LogNormal { median: f64, sigma: f64 },
    Pareto { least: f64, exponent: f64 },
}

/// A network for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Link {
    /// Least delay.
    pub(super) base: f64,
    pub(super) jitter: Jitter,
    pub(super) loss: Loss,
}

impl Link {
    pub(super) const LAN: Self =
        Self { base: 0.1, jitter: Jitter::LogNormal { median: 0.2, sigma: 0.5 }, loss: Loss::Independent(0.0) };
    pub(super) const WAN: Self =
        Self { base: 40.0, jitter: Jitter::LogNormal { median: 2.0, sigma: 0.8 }, loss: Loss::Independent(0.000_5) };

    /// Milliseconds on the way, or lost. `is_bad` is the state of the link, kept between beats.
    pub(super) fn carry(&self, random: &mut Random, is_bad: &mut bool) -> Option<f64> {
        let lost = match self.loss {
            Loss::Independent(share) => random.chance(share),
            Loss::Bursts { share, length } => {
                // The chain is stationary with `share` of beats in the bad state.
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

/// Times at which a process stands still: from, to, in ascending order, apart from each other.
pub(super) struct Pauses(Vec<(f64, f64)>);

impl Pauses {
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Bursts `apart` from each other on average, of `number` pauses on average within the seconds that follow.
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

    /// The end of the pause that `at` falls into, or `at`. To be asked in ascending order; `cursor` starts at 0.
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
