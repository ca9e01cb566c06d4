use super::{Detector, Status};
use crate::Nanos;

/// Keeps an observer that was itself stopped or starved from blaming others for it: the time that it slept is no silence. The
/// detector inside incarnations on a clock that stands still meanwhile, so it neither suspects for the pause nor learns from it.
///
/// `awake` is to be called several times per interval, and before anything else after a wait: a longer gap between two calls than
/// `limit` is a pause. What is read just after one may have lain in a buffer: it proves nothing and teaches nothing. Nobody is
/// suspected for `grace` after a pause, so that a beat can arrive.
#[derive(Debug, Clone)]
pub struct Guard<D> {
    detector: D,
    limit: Nanos,
    grace: Nanos,
    awake_at: Nanos,
    /// What is read before is from a buffer.
    caught_up_at: Nanos,
    excused_until: Nanos,
    /// Sum of all pauses: this much does the inner clock lag behind.
    slept: Nanos,
}

impl<D: Detector> Guard<D> {
    pub fn new(detector: D, limit: Nanos, grace: Nanos, now: Nanos) -> Self {
        Self { detector, limit, grace, awake_at: now, caught_up_at: 0, excused_until: 0, slept: 0 }
    }

    /// The observer runs at `now`. Answers the pause that lies before it, if it is one.
    pub fn awake(&mut self, now: Nanos) -> Option<Nanos> {
        let gap = now.saturating_sub(self.awake_at);
        self.awake_at = self.awake_at.max(now);
        if gap <= self.limit {
            return None;
        }
        self.slept += gap;
        self.caught_up_at = now + self.limit / 5;
        self.excused_until = now + self.grace;
        Some(gap)
    }

    fn inside(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.slept)
    }
}

impl<D: Detector> Detector for Guard<D> {
    fn heard(&mut self, now: Nanos, sequence: u64) {
        self.awake(now);
        if now >= self.caught_up_at {
            self.detector.heard(self.inside(now), sequence);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        Some((self.detector.deadline()? + self.slept).max(self.excused_until))
    }

    fn status(&self, now: Nanos) -> Status {
        if now < self.excused_until { Status::Alive } else { self.detector.status(self.inside(now)) }
    }
}
