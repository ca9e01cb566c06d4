//! How beats are lost: each by itself, or in bursts? A run of losses ends a silence as late as its length, and the longest of the
//! day decides how long silence may last.

/// Received beats that are kept in mind: above it all counts are halved. For overall, and for recent.
const ALWAYS: f64 = (1 << 21) as f64;
const RECENT: f64 = 1024.0;
/// Standard deviations beyond what chance makes of it.
const BURSTY: f64 = 3.0;
/// Runs by which bursts are told from chance.
const KNOWN: f64 = 6.0;
/// Beats. What few bursts tell is not spun further.
const FAR: f64 = 30.0;
/// More than chance makes of what is expected: so many standard deviations, and so many, more.
const SURE: f64 = 4.0;
const FEW: f64 = 3.0;
/// A sender that was away for longer was no run of losses.
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
        let continued = self.lost - self.runs;
        // If each is lost by itself, a run goes on as often as any beat is lost.
        let by_chance = share * self.lost;
        let are_bursts = continued > by_chance + BURSTY * by_chance.sqrt() + 1.5;
        let (continued, of) = if are_bursts {
            (continued + 0.5, self.lost + 1.0)
        } else {
            // Of shares that chance would make seen as this one, a low one: while little was seen it would be raised for little.
            (share - (share * (1.0 - share) / all).sqrt(), f64::INFINITY)
        };
        Runs { often: self.runs / self.received, continued, of, are_bursts, seen: self.runs }
    }
}

/// How often runs of lost beats come, and how often they go on.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Runs {
    /// Per received beat.
    pub(super) often: f64,
    /// Times that a run of bursts went on, of as many; by chance, the share of beats that are lost.
    continued: f64,
    of: f64,
    /// Rather than losses by chance.
    pub(super) are_bursts: bool,
    seen: f64,
}

impl Runs {
    /// One of these may come per so many beats, though none was seen.
    pub(super) fn one_in(beats: f64) -> Self {
        Self { often: 1.0 / beats.max(1.0), of: f64::INFINITY, ..Self::default() }
    }

    /// How often a run of that length, or no run yet, goes on. Whoever has seen few bursts and is in a long one learns from it, too
    /// (Pólya's urn), but for the very long ones.
    pub(super) fn go_on(&self, run: f64) -> f64 {
        match run {
            0.0 => self.often,
            _ if self.of.is_infinite() => self.continued,
            _ if run > FAR => self.continued / self.of,
            _ => (self.continued + run - 1.0) / (self.of + run - 1.0),
        }
    }

    /// Losses were seen often enough to tell that they are by chance.
    pub(super) fn are_known_independent(&self) -> bool {
        self.seen >= KNOWN && !self.are_bursts
    }
}

impl Losses {
    /// A beat was received after `run` that were not.
    pub(super) fn add(&mut self, run: u64) {
        let run = run.min(LONGEST) as f64;
        self.overall.add(run, ALWAYS);
        self.recent.add(run, RECENT);
    }

    /// Things are not what they were: what is called lately begins now.
    pub(super) fn reset_recent(&mut self) {
        self.recent = Counts::default();
    }

    pub(super) fn overall(&self) -> Runs {
        self.overall.runs()
    }

    /// What is so recent, if it is more than chance makes of what is so overall.
    pub(super) fn worse_recently(&self) -> Option<Runs> {
        let (all, few) = (self.overall, self.recent);
        let part = few.received / all.received.max(1.0);
        let is_more = |few: f64, all: f64| few > all * part + SURE * (all * part).sqrt() + FEW;
        // Whether bursts became more frequent, or longer.
        let is_worse = is_more(few.runs, all.runs) || is_more(few.lost, all.lost);
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
