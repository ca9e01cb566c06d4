//! Model of a path between two processes: a sender that pauses, a network that delays and loses, an observer that pauses. Times in
//! milliseconds.

use std::f64::consts::TAU;

use super::{
    SentBeat, Trace,
    link::{Link, Pauses},
    random::Random,
};
use crate::Nanos;

pub(super) const MS: f64 = 1e6;
pub(super) const SECOND: f64 = 1e3;
pub(super) const MINUTE: f64 = 60.0 * SECOND;
pub(super) const HOUR: f64 = 60.0 * MINUTE;
pub(super) const DAY: f64 = 24.0 * HOUR;

/// Relative speed error of the sender's clock: `mean`, and `swing` around it within six hours.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    pub(super) mean: f64,
    pub(super) swing: f64,
}

impl Clock {
    fn fast(self, at: f64) -> f64 {
        self.mean + self.swing * (TAU * at / (6.0 * HOUR)).sin()
    }
}

pub(super) struct Path {
    pub(super) sender: Pauses,
    /// After a pause the sender does not send the heartbeats that it missed.
    pub(super) skips_missed: bool,
    pub(super) observer: Pauses,
    /// Times during which the network loses everything.
    pub(super) outages: Pauses,
    pub(super) clock: Clock,
    /// The network at a time.
    pub(super) link: Box<dyn Fn(f64) -> Link>,
}

impl Path {
    pub(super) fn new(link: impl Fn(f64) -> Link + 'static) -> Self {
        Self {
            sender: Pauses::none(),
            skips_missed: false,
            observer: Pauses::none(),
            outages: Pauses::none(),
            clock: Clock::default(),
            link: Box::new(link),
        }
    }

    /// The first heartbeat is sent one interval after 0.
    pub(super) fn trace(&self, interval: Nanos, length: Nanos, random: &mut Random) -> Trace {
        let interval_ms = interval as f64 / MS;
        let number = length / interval.max(1);
        let mut beats = Vec::with_capacity(number as usize);
        let (mut is_bad, mut cursor, mut sequence) = (false, 0, 0);
        // On the true clock, which is the observer's.
        let mut due = 0.0;
        // Send and arrival time of the newest heartbeat that arrived.
        let mut last = (0.0, 0.0);
        // When the sender, which was paused, resumes.
        let mut resumed = 0.0;
        for _ in 0..number {
            due += interval_ms * (1.0 - self.clock.fast(due));
            let sent = self.sender.until(due, &mut cursor);
            if self.skips_missed && sent > due && sent == resumed {
                continue;
            }
            resumed = sent;
            sequence += 1;
            let arrived = (self.link)(sent).carry(random, &mut is_bad).filter(|_| self.outages.after(sent) == sent);
            // Heartbeats sent at the same time keep their order.
            let arrived = arrived.map(|delay| if sent == last.0 { (sent + delay).max(last.1) } else { sent + delay });
            if let Some(at) = arrived {
                last = (sent, at);
            }
            let received = arrived.map(|at| self.observer.after(at));
            let nanos = |ms: f64| (ms * MS) as Nanos;
            beats.push(SentBeat { sequence, sent: nanos(sent), received: received.map(nanos) });
        }
        Trace { interval, beats }
    }
}
