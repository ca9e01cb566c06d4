//! How beats are lost: each by itself, or in bursts? A run of losses ends a silence as late as its length, and the longest of the
//! day decides how long silence may last.

/// Received beats that are kept in mind: above it all counts are halved. For always, and for lately.
const ALWAYS: f64 = (1 << 21) as f64;
const LATELY: f64 = 1024.0;
const FEW: f64 = 4.0;
/// A sender that was away for longer was no run of losses.
const LONGEST: u64 = 64;

#[derive(Debug, Clone, Default)]
pub(super) struct Losses {
    always: Counts,
    lately: Counts,
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
        let share = self.lost / (self.lost + self.received);
        let continued = self.lost - self.runs;
        // If each is lost by itself, a run goes on as often as any beat is lost.
        let by_chance = share * self.lost;
        let are_bursts = continued > by_chance + 2.0 * by_chance.sqrt() + 1.5;
        let continued = if are_bursts { (continued + 0.5) / (self.lost + 1.0) } else { share };
        Runs { often: self.runs / self.received, continued, are_bursts }
    }
}

/// Runs of at least k beats come `often × continued^(k-1)` times per received beat.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Runs {
    pub(super) often: f64,
    pub(super) continued: f64,
    /// Rather than losses by chance.
    pub(super) are_bursts: bool,
}

impl Losses {
    /// A beat was received after `run` that were not.
    pub(super) fn add(&mut self, run: u64) {
        let run = run.min(LONGEST) as f64;
        self.always.add(run, ALWAYS);
        self.lately.add(run, LATELY);
    }

    /// Things are not what they were: what is called lately begins now.
    pub(super) fn begin_anew(&mut self) {
        self.lately = Counts::default();
    }

    pub(super) fn always(&self) -> Runs {
        self.always.runs()
    }

    pub(super) fn lately(&self) -> Runs {
        // A loss or two are nothing new.
        if self.lately.runs < FEW { Runs::default() } else { self.lately.runs() }
    }
}
