//! How heartbeats are lost: independently, or in bursts. Independent losses have a known longest run; how long bursts last is learned from
//! silences.

/// Number of received heartbeats above which all counts are halved: for the overall and for the recent statistics.
const ALWAYS: f64 = (1 << 21) as f64;
const RECENT: f64 = 1024.0;
/// Standard deviations above independent losses that make a burst.
const BURSTY: f64 = 3.0;
/// Runs needed to tell bursts from independent losses.
const KNOWN: f64 = 6.0;
/// Significantly worse: this many standard deviations, plus this many, above the expectation.
const SURE: f64 = 4.0;
const FEW: f64 = 3.0;
/// A longer absence of a sender is not a run of losses.
const LONGEST: u64 = 64;

#[derive(Debug, Clone, Default)]
pub(super) struct Losses {
    overall: Counts,
    recent: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    received: f64,
    runs: f64,
    lost: f64,
}

impl Counts {
    fn add(&mut self, run: f64, most: f64) {
        self.received += 1.0;
        if run > 0.0 {
            self.runs += 1.0;
            self.lost += run;
        }
        if self.received > most {
            self.received /= 2.0;
            self.runs /= 2.0;
            self.lost /= 2.0;
        }
    }

    fn runs(&self) -> Runs {
        if self.runs == 0.0 {
            return Runs::default();
        }
        let all = self.lost + self.received;
        let share = self.lost / all;
        // With independent losses, a run continues as often as any heartbeat is lost.
        let by_chance = share * self.lost;
        let are_bursts = self.lost - self.runs > by_chance + BURSTY * by_chance.sqrt() + 0.5;
        // The lower confidence bound: with little data the rate would otherwise be too high.
        let continued = share - (share * (1.0 - share) / all).sqrt();
        Runs { often: self.runs / self.received, continued, are_bursts, seen: self.runs }
    }
}

/// Rate of runs of losses, and how often they continue.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Runs {
    /// Runs per received heartbeat.
    often: f64,
    /// Probability that a run continues, if losses are independent.
    continued: f64,
    /// Losses come in bursts.
    pub(super) are_bursts: bool,
    seen: f64,
}

impl Runs {
    /// Assumes one loss per this many heartbeats, although none was seen.
    pub(super) fn one_in(beats: f64) -> Self {
        Self { often: 1.0 / beats.max(1.0), ..Self::default() }
    }

    /// Probability that a run of this length continues; for length 0, that a run begins.
    pub(super) fn go_on(&self, run: f64) -> f64 {
        if run == 0.0 { self.often } else { self.continued }
    }

    /// Enough losses were seen to know that they are independent.
    pub(super) fn are_known_independent(&self) -> bool {
        self.seen >= KNOWN && !self.are_bursts
    }
}

impl Losses {
    /// A heartbeat was received after `run` lost ones.
    pub(super) fn add(&mut self, run: u64) {
        let run = run.min(LONGEST) as f64;
        self.overall.add(run, ALWAYS);
        self.recent.add(run, RECENT);
    }

    /// Conditions have changed: recent statistics start again.
    pub(super) fn reset_recent(&mut self) {
        self.recent = Counts::default();
    }

    pub(super) fn overall(&self) -> Runs {
        self.overall.runs()
    }

    /// The recent statistics, if more is lost than overall, significantly.
    pub(super) fn worse_recently(&self) -> Option<Runs> {
        let (all, few) = (self.overall, self.recent);
        let expected = all.runs * few.received / all.received.max(1.0);
        let is_worse = few.runs > expected + SURE * expected.sqrt() + FEW;
        is_worse.then(|| few.runs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_chance_explains_is_nothing_new() {
        let mut losses = Losses::default();
        // One in twenty, evenly.
        let beats = |losses: &mut Losses, number: u64, one_in: u64| {
            (0..number).for_each(|n| losses.add(u64::from(n % one_in == 0)));
        };
        beats(&mut losses, 20_000, 20);
        assert_eq!(losses.worse_recently(), None);
        losses.reset_recent();
        beats(&mut losses, 1_000, 18);
        assert_eq!(losses.worse_recently(), None);
        beats(&mut losses, 1_000, 8);
        let recent = losses.worse_recently().expect("an eighth");
        assert!((0.08..0.12).contains(&recent.often) && !recent.are_bursts, "{recent:?}");
        assert!(losses.overall().often < 0.06);
    }
}
