use super::{
    Detector, Latest, News,
    losses::{Losses, Runs},
    span,
    spread::Spread,
};
use crate::Nanos;

const DAY: f64 = 86_400e9;
/// Until what was learned is trusted; of caution after a mistake; and after another surprise meanwhile. So many beats, and so many
/// seconds.
const WARM_UP: u64 = 440;
const AFTER_ONE: u64 = 100;
const AFTER_MORE: u64 = 200;
/// Of the mistakes that are aimed at: for beats that are late, and for losses that come in bursts. Estimates of either are less certain
/// than how often beats are lost by chance.
const FOR_LATE: f64 = 0.15;
const FOR_BURSTS: f64 = 0.4;
/// What is so only lately does not last all day: so many times the mistakes.
const WHILE_NEW: f64 = 3.0;
/// Times what an exponential tail makes expect.
const MARGIN: f64 = 1.3;
/// Beats between two reckonings.
const STRIDE: u32 = 32;
/// Beats that count as lately.
const LATELY: u32 = 4096;
/// In beats; what is expected to be longer is cut off here.
const LONGEST_RUN: f64 = 1e3;

/// Our own. Silence between two beats is a run of losses and the lateness of the beat that ends it. Both are learned apart, and the
/// timeout is what they will come to once in `days`. While little is known, and after a mistake, it is `careful` intervals.
#[derive(Debug, Clone)]
pub struct Adaptive {
    interval: Nanos,
    /// Mistakes per beat that are aimed at.
    mistakes: f64,
    careful: Nanos,
    latest: Option<Latest>,
    /// Sent, as the sequence numbers tell.
    beats: u64,
    careful_until: u64,
    /// Beats since `learned` was reckoned.
    unreckoned: u32,
    /// As reckoned from what was learned.
    learned: Nanos,
    losses: Losses,
    always: Spread,
    lately: Spread,
}

/// Beats that are no fewer than `number`, and take no less than as many seconds.
fn both(number: u64, interval: Nanos) -> u64 {
    number.max(number * 1_000_000_000 / interval.max(1))
}

impl Adaptive {
    /// `careful` is in intervals.
    pub fn new(interval: Nanos, days: f64, careful: f64) -> Self {
        let careful = span(interval, careful);
        Self {
            interval: interval.max(1),
            mistakes: interval as f64 / (DAY * days),
            careful,
            latest: None,
            beats: 0,
            careful_until: both(WARM_UP, interval),
            unreckoned: 0,
            learned: careful,
            losses: Losses::default(),
            always: Spread::new(1 << 21),
            lately: Spread::new(LATELY),
        }
    }

    fn learn(&mut self, gap: Nanos, run: u64) {
        let interval = self.interval as f64;
        let gaps = gap as f64 / interval;
        // More cannot have been lost in so short a time: numbers were skipped, or this observer slept.
        let run = run.min(gaps as u64);
        let late = gaps - (run + 1) as f64;
        self.beats += 1 + run;
        self.losses.add(run);
        self.always.add(late);
        self.lately.add(late);
        let is_surprise = gap >= self.learned && self.beats > both(WARM_UP, self.interval);
        if is_surprise {
            let is_careful = self.beats < self.careful_until;
            if !is_careful {
                self.losses.begin_anew();
                self.lately = Spread::new(LATELY);
            }
            let caution = if is_careful { AFTER_MORE } else { AFTER_ONE };
            self.careful_until = self.careful_until.max(self.beats + both(caution, self.interval));
        }
        self.unreckoned += 1;
        if is_surprise || self.unreckoned >= STRIDE {
            self.unreckoned = 0;
            let always = self.reckon(self.mistakes, self.losses.always(), &self.always);
            let lately = self.reckon(self.mistakes * WHILE_NEW, self.losses.lately(), &self.lately);
            self.learned = span(self.interval, always.max(lately));
        }
    }

    /// The timeout in intervals that longer runs of losses pass as seldom as is aimed at, and later beats as seldom.
    fn reckon(&self, mistakes: f64, runs: Runs, spread: &Spread) -> f64 {
        let (mut run, mut often, mut timeout) = (0.0, 1.0, 0.0_f64);
        let allowed = if runs.are_bursts { mistakes * FOR_BURSTS } else { mistakes };
        loop {
            let next = often * if run == 0.0 { runs.often } else { runs.continued };
            let is_last = next <= allowed || run > LONGEST_RUN;
            // The beat that ends a run of this length comes so often, and may be late as well. If such a run is as rare as is allowed,
            // it does not matter how late.
            let share = if is_last && run > 0.0 && often <= 2.0 * allowed { 0.5 } else { mistakes * FOR_LATE / often };
            timeout = timeout.max(run + 1.0 + MARGIN * spread.exceeded_by(share.min(0.5)));
            if is_last {
                return timeout;
            }
            (run, often) = (run + 1.0, next);
        }
    }
}

impl Detector for Adaptive {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        if let News::Since(before) = Latest::advance(&mut self.latest, now, sequence) {
            self.learn(now.saturating_sub(before.at), sequence - before.sequence - 1);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        let timeout = if self.beats < self.careful_until { self.learned.max(self.careful) } else { self.learned };
        Some(self.latest?.at + timeout)
    }
}
