use super::{
    Advance, Detector, NewestBeat,
    histogram::Histogram,
    losses::{Losses, Runs},
    reordering::Reordering,
    to_nanos,
};
use crate::Nanos;

const DAY: f64 = 86_400e9;
/// Phases, each as a number of heartbeats and at least as many seconds: before anything is known; until rare pauses should have been seen;
/// caution after a mistake, and after another one during that time.
const WARM_UP: (u64, u64) = (440, 110);
const LEARNING: (u64, u64) = (600, 600);
const AFTER_ONE: (u64, u64) = (100, 100);
const AFTER_MORE: (u64, u64) = (200, 200);
/// Many pauses (of a process, a machine, a network) end within this time.
const STAND_STILL: Nanos = 1_000_000_000;
/// Share of the allowed mistakes where a tail is extrapolated, which is less reliable than the rate of independent losses.
const FOR_TAILS: f64 = 0.5;
/// Share of the allowed mistakes while recent conditions are worse than overall: what changed once will change again.
const WHILE_WORSE: f64 = 0.3;
/// Factor on the prediction of an exponential tail.
const MARGIN: f64 = 1.05;
/// Each mistake of the last day, after the first, makes the timeout longer by this share.
const PER_REPEAT: f64 = 0.5;
/// Minimum lateness, in intervals, that a rare heartbeat is assumed to reach.
const LEAST_LATE: f64 = 0.2;
/// Lateness (ns) above which losses are assumed too, although none was seen: one in as many heartbeats as were seen.
const OF_A_LAN: f64 = 5e6;
/// Heartbeats between two updates of the timeout.
const STRIDE: u32 = 32;
/// Number of heartbeats that count as overall, and as recent.
const ALWAYS: u32 = 1 << 21;
const RECENT: u32 = 4096;
/// Maximum run of losses that is considered.
const LONGEST_RUN: f64 = 1e3;
/// Minimum share of late heartbeats, and of heartbeats behind a late one, that is assumed.
const RARE: f64 = 0.01;

/// The project's own detector. The silence between two heartbeats is a run of losses plus the lateness of the heartbeat that ends it. If
/// losses are independent, it learns both separately. If they come in bursts, it learns whole silences. It sets the timeout to what silences
/// will reach once in `days`. At the start, and after a mistake, the timeout is at least `careful` intervals.
#[derive(Debug, Clone)]
pub struct Adaptive {
    interval: Nanos,
    /// Allowed mistakes per heartbeat.
    mistakes: f64,
    careful: Nanos,
    latest: Option<NewestBeat>,
    /// Heartbeats sent, by their sequence numbers.
    beats: u64,
    /// Heartbeat number from which the timeout may be below `careful`.
    careful_until: u64,
    /// Number of mistakes, of which half is forgotten within a day, and the heartbeat number of the last one.
    repeats: f64,
    last_mistake: u64,
    /// Heartbeats since `learned` was updated.
    unreckoned: u32,
    /// Timeout computed from what was learned.
    learned: Nanos,
    losses: Losses,
    reordering: Reordering,
    overall: Delays,
    recent: Delays,
}

/// In intervals.
#[derive(Debug, Clone)]
struct Delays {
    /// Of the heartbeat that ends a silence, after the losses in it.
    lateness: Histogram,
    /// Beyond one interval, with the losses.
    silences: Histogram,
}

impl Delays {
    fn new(most: u32, furthest: f64) -> Self {
        Self { lateness: Histogram::new(most, furthest), silences: Histogram::new(most, furthest) }
    }

    fn reset(&mut self) {
        self.lateness.reset();
        self.silences.reset();
    }
}

/// A number of heartbeats, or as many as take this many seconds if that is more.
fn both((number, seconds): (u64, u64), interval: Nanos) -> u64 {
    number.max(seconds * 1_000_000_000 / interval.max(1))
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
            repeats: 0.0,
            last_mistake: 0,
            unreckoned: 0,
            learned: careful,
            losses: Losses::default(),
            reordering: Reordering::default(),
            overall: Delays::new(ALWAYS, furthest),
            recent: Delays::new(RECENT, furthest),
        }
    }

    fn learn(&mut self, gap: Nanos, before: u64, sequence: u64) {
        let gaps = gap as f64 / self.interval as f64;
        // More cannot be lost in so short a time: numbers were skipped, or this observer paused.
        let run = (sequence - before - 1).min(gaps as u64);
        self.beats += 1 + run;
        self.losses.add(run);
        self.reordering.newer(before, sequence);
        for delays in [&mut self.overall, &mut self.recent] {
            delays.lateness.add(gaps - (run + 1) as f64);
            delays.silences.add(gaps - 1.0);
        }
        let is_mistake = self.beats > both(WARM_UP, self.interval) && gap >= self.learned;
        if is_mistake {
            if gap >= self.least() {
                (self.repeats, self.last_mistake) = (self.repeats() + 1.0, self.beats);
            }
            let caution = if self.beats < self.careful_until { AFTER_MORE } else { AFTER_ONE };
            if self.beats >= self.careful_until {
                // Conditions have changed.
                self.losses.reset_recent();
                self.recent.reset();
            }
            self.careful_until = self.careful_until.max(self.beats + both(caution, self.interval));
        }
        self.unreckoned += 1;
        if is_mistake || self.unreckoned >= STRIDE {
            self.unreckoned = 0;
            self.reckon();
        }
    }

    fn repeats(&self) -> f64 {
        let days = (self.beats - self.last_mistake) as f64 * self.interval as f64 / DAY;
        self.repeats * (-days).exp2()
    }

    /// The minimum timeout in the current phase.
    fn least(&self) -> Nanos {
        if self.beats < self.careful_until {
            return self.careful;
        }
        if self.beats >= both(LEARNING, self.interval) {
            return 0;
        }
        let runs = self.losses.overall();
        let is_warm = runs.are_known_independent() || !runs.are_bursts && self.beats >= both(WARM_UP, self.interval);
        if is_warm { stand_still(self.interval).min(self.careful) } else { self.careful }
    }

    fn reckon(&mut self) {
        let (all, few) = (&self.overall, &self.recent);
        let overall = self.timeout(self.mistakes, self.losses.overall(), &all.lateness, &all.silences);
        // Recent statistics count only if they are significantly worse than the overall ones.
        let runs = self.losses.worse_recently();
        let lateness = few.lateness.is_worse_than(&all.lateness).then_some(&few.lateness);
        let silences = few.silences.is_worse_than(&all.silences).then_some(&few.silences);
        let recent = if runs.is_some() || lateness.is_some() || silences.is_some() {
            let runs = runs.unwrap_or_else(|| self.losses.overall());
            let (lateness, silences) = (lateness.unwrap_or(&all.lateness), silences.unwrap_or(&all.silences));
            self.timeout(self.mistakes * WHILE_WORSE, runs, lateness, silences)
        } else {
            0.0
        };
        let repeats = 1.0 + PER_REPEAT * (self.repeats() - 1.0).max(0.0);
        self.learned = to_nanos(self.interval, repeats * overall.max(recent));
    }

    /// Timeout in intervals that silences exceed as rarely as allowed.
    fn timeout(&self, mistakes: f64, mut runs: Runs, lateness: &Histogram, silences: &Histogram) -> f64 {
        if runs.are_bursts {
            return 1.0 + MARGIN * silences.exceeded_by(mistakes * FOR_TAILS);
        }
        if runs == Runs::default() && lateness.largest() * self.interval as f64 > OF_A_LAN {
            runs = Runs::one_in(lateness.total().into());
        }
        // The longest run that is frequent enough, and the rate of runs at least as long.
        let (mut run, mut often) = (0.0, 1.0);
        while often * runs.go_on(run) > mistakes && run <= LONGEST_RUN {
            often *= runs.go_on(run);
            run += 1.0;
        }
        let latest = self.late(lateness, mistakes * FOR_TAILS);
        // The heartbeat that ends a run may be late as well. If such a run is rare enough, its lateness does not matter.
        let share = if run > 0.0 && often <= 2.0 * mistakes { 0.5 } else { mistakes * FOR_TAILS / often };
        let mut timeout = run + 1.0 + self.late(lateness, share);
        // Heartbeats that end shorter runs are more frequent, so their latest are later; at most as late as the latest of all.
        while run > 0.0 && run + latest > timeout {
            run -= 1.0;
            often /= runs.go_on(run);
            timeout = timeout.max(run + 1.0 + self.late(lateness, mistakes * FOR_TAILS / often));
        }
        timeout
    }

    /// Lateness, in intervals, that one heartbeat in `1 / share` exceeds.
    fn late(&self, lateness: &Histogram, share: f64) -> f64 {
        if share >= 0.5 {
            return MARGIN * lateness.exceeded_by(0.5);
        }
        let late = MARGIN * lateness.exceeded_by(share);
        let late = if share < RARE { late.max(LEAST_LATE) } else { late };
        let was_overtaken = self.reordering.was_seen() || lateness.is_smooth();
        if late <= 1.0 || lateness.largest() > 1.0 || !was_overtaken {
            return late;
        }
        // The next heartbeat overtakes it unless that one is late too, which is as rare as any late heartbeat.
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
