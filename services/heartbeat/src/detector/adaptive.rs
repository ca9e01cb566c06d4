use super::{
    Advance, Detector, NewestBeat,
    lateness::LatenessHistogram,
    losses::{Losses, Runs},
    reordering::Reordering,
    to_nanos,
};
use crate::Nanos;

const DAY: f64 = 86_400e9;
/// While nothing is known; until what stands still now and then should have shown; and of caution after a mistake or a warning, and
/// after another one meanwhile. So many beats, and so many seconds.
const WARM_UP: u64 = 440;
const LEARNING: u64 = 600;
const AFTER_ONE: u64 = 100;
const AFTER_MORE: u64 = 200;
/// What stands still (a process, a machine, a network) is back by then, nearly overall.
const STAND_STILL: Nanos = 3_000_000_000;
/// Of the mistakes that are aimed at: for beats that are late, and for losses that come in bursts. Estimates of either are less certain
/// than how often beats are lost by chance.
const FOR_LATE: f64 = 0.15;
const FOR_BURSTS: f64 = 0.1;
/// What changed once will change again: of the mistakes that are aimed at, while things are worse than overall.
const WHILE_WORSE: f64 = 0.1;
/// Times what an exponential tail makes expect.
const MARGIN: f64 = 1.3;
/// Intervals. Whatever was seen, a rare beat may be as late as that.
const LEAST_LATE: f64 = 0.2;
/// Nanoseconds. Where beats are later than that they get lost as well: one may be so in as many as were seen.
const OF_A_LAN: f64 = 5e6;
/// So many times later than any beat before is a warning; but not below so many intervals.
const NOVEL: f64 = 4.0;
const LEAST_NOVEL: f64 = 0.02;
/// Beats between two reckonings.
const STRIDE: u32 = 32;
/// Beats that count as recent.
const RECENT: u32 = 4096;
/// In beats; what is expected to be longer is cut off here.
const LONGEST_RUN: f64 = 1e3;
/// A share that is reckoned with whatever was seen: of beats that are late, and of those behind a late one.
const RARE: f64 = 0.01;

/// Our own. Silence between two beats is a run of losses and the lateness of the beat that ends it. Both are learned apart, and the
/// timeout is what they will come to once in `days`. While little is known, and after a mistake, it is `careful` intervals.
#[derive(Debug, Clone)]
pub struct Adaptive {
    interval: Nanos,
    /// Mistakes per beat that are aimed at.
    mistakes: f64,
    careful: Nanos,
    latest: Option<NewestBeat>,
    /// Sent, as the sequence numbers tell.
    beats: u64,
    /// Number of the beat from which on the timeout may be below `careful`, and below what takes what stands still.
    careful_until: u64,
    guarded_until: u64,
    /// Beats since `learned` was reckoned.
    unreckoned: u32,
    /// As reckoned from what was learned.
    learned: Nanos,
    losses: Losses,
    reordering: Reordering,
    overall: LatenessHistogram,
    recent: LatenessHistogram,
}

/// Beats that are no fewer than `number`, and take no less than as many seconds.
fn both(number: u64, interval: Nanos) -> u64 {
    number.max(number * 1_000_000_000 / interval.max(1))
}

fn stand_still(interval: Nanos) -> Nanos {
    to_nanos(interval, 3.0).max(STAND_STILL)
}

impl Adaptive {
    /// `careful` is in intervals.
    pub fn new(interval: Nanos, days: f64, careful: f64) -> Self {
        let (interval, careful) = (interval.max(1), to_nanos(interval, careful));
        let furthest = stand_still(interval) as f64 / interval as f64;
        Self {
            interval,
            mistakes: interval as f64 / (DAY * days),
            careful,
            latest: None,
            beats: 0,
            careful_until: 0,
            guarded_until: both(LEARNING, interval),
            unreckoned: 0,
            learned: careful,
            losses: Losses::default(),
            reordering: Reordering::default(),
            overall: LatenessHistogram::new(1 << 21, furthest),
            recent: LatenessHistogram::new(RECENT, furthest),
        }
    }

    fn learn(&mut self, gap: Nanos, before: u64, sequence: u64) {
        let interval = self.interval as f64;
        let gaps = gap as f64 / interval;
        // More cannot have been lost in so short a time: numbers were skipped, or this observer slept.
        let run = (sequence - before - 1).min(gaps as u64);
        let late = gaps - (run + 1) as f64;
        let is_novel = late > LEAST_NOVEL && late > NOVEL * self.overall.latest();
        self.beats += 1 + run;
        self.losses.add(run);
        self.reordering.newer(before, sequence, late);
        self.overall.add(late);
        self.recent.add(late);
        let is_known = self.beats > both(WARM_UP, self.interval);
        let is_beyond = is_known && gap >= self.learned;
        if is_beyond {
            let caution = if self.beats < self.careful_until { AFTER_MORE } else { AFTER_ONE };
            if self.beats >= self.careful_until {
                self.reset_recent();
            }
            self.careful_until = self.careful_until.max(self.beats + both(caution, self.interval));
        } else if is_known && is_novel {
            self.reset_recent();
            self.guarded_until = self.guarded_until.max(self.beats + both(AFTER_ONE, self.interval));
        }
        self.unreckoned += 1;
        if is_beyond || is_novel || self.unreckoned >= STRIDE {
            self.unreckoned = 0;
            self.reckon();
        }
    }

    /// The least timeout, whatever was learned.
    fn least(&self) -> Nanos {
        if self.beats < self.careful_until {
            return self.careful;
        }
        if self.beats >= self.guarded_until {
            return 0;
        }
        let runs = self.losses.overall();
        let is_warm = runs.are_known_independent() || !runs.are_bursts && self.beats >= both(WARM_UP, self.interval);
        if is_warm { stand_still(self.interval).min(self.careful) } else { self.careful }
    }

    /// Things are not what they were: what is called lately begins now.
    fn reset_recent(&mut self) {
        self.losses.reset_recent();
        self.recent.reset_recent();
    }

    fn reckon(&mut self) {
        let overall = self.timeout(self.mistakes, self.losses.overall(), &self.overall);
        // What is so lately counts if chance does not make it of what is so overall.
        let runs = self.losses.worse_recently();
        let lateness = self.recent.is_later_than(&self.overall).then_some(&self.recent);
        let recent = if runs.is_some() || lateness.is_some() {
            let runs = runs.unwrap_or_else(|| self.losses.overall());
            self.timeout(self.mistakes * WHILE_WORSE, runs, lateness.unwrap_or(&self.overall))
        } else {
            0.0
        };
        self.learned = to_nanos(self.interval, overall.max(recent));
    }

    /// In intervals: longer runs of losses pass it as seldom as is aimed at, and later beats as seldom.
    fn timeout(&self, mistakes: f64, mut runs: Runs, lateness: &LatenessHistogram) -> f64 {
        if runs == Runs::default() && lateness.latest() * self.interval as f64 > OF_A_LAN {
            runs = Runs::one_in(lateness.total().into());
        }
        let allowed = if runs.are_bursts { mistakes * FOR_BURSTS } else { mistakes };
        // The longest run that is not too rare, and how often one no shorter comes.
        let (mut run, mut often) = (0.0, 1.0);
        while often * runs.go_on(run) > allowed && run <= LONGEST_RUN {
            often *= runs.go_on(run);
            run += 1.0;
        }
        let latest = self.late(lateness, mistakes * FOR_LATE);
        // The beat that ends a run comes as often as the run, and may be late as well. If such a run is as rare as is allowed, it
        // does not matter how late.
        let share = if run > 0.0 && often <= 2.0 * allowed { 0.5 } else { mistakes * FOR_LATE / often };
        let mut timeout = run + 1.0 + self.late(lateness, share);
        // Beats that end shorter runs come more often, and the latest of them are later; but no later than the latest of all.
        while run > 0.0 && run + latest > timeout {
            run -= 1.0;
            often /= runs.go_on(run);
            timeout = timeout.max(run + 1.0 + self.late(lateness, mistakes * FOR_LATE / often));
        }
        timeout
    }

    /// What the lateness of one beat in `1 / share` will exceed, in intervals.
    fn late(&self, lateness: &LatenessHistogram, share: f64) -> f64 {
        if share >= 0.5 {
            return MARGIN * lateness.exceeded_by(0.5);
        }
        let late = MARGIN * lateness.exceeded_by(share);
        let late = if share < RARE { late.max(LEAST_LATE) } else { late };
        if late <= 1.0 || !self.reordering.is_independent().unwrap_or_else(|| lateness.is_smooth()) {
            return late;
        }
        // The next beat overtakes it, unless that is late as well: as seldom as all beats seen, whose latest was none of these.
        let share = (share * f64::from(lateness.total())).clamp(share.min(RARE), RARE);
        1.0 + (MARGIN * lateness.exceeded_by(share)).min(1.0)
    }
}

impl Detector for Adaptive {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        match NewestBeat::advance(&mut self.latest, now, sequence) {
            Advance::Since(before) => self.learn(now.saturating_sub(before.at), before.sequence, sequence),
            Advance::Old => self.reordering.older(sequence),
            Advance::First => {}
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        Some(self.latest?.at + self.learned.max(self.least()))
    }
}
