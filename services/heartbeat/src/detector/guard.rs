use super::{Detector, Status};
use crate::Nanos;

/// Excludes pauses of the observer itself: the time it was stopped does not count as silence. The inner detector's clock stops during a
/// pause, so it neither suspects nor learns from it.
///
/// Call `awake` several times per interval, and first after every wait: a gap longer than `limit` is a pause. Heartbeats read just after a
/// pause may have been buffered: they are ignored. No node is suspected for `grace` after a pause, so that a heartbeat can arrive.
#[derive(Debug, Clone)]
pub struct Guard<D> {
    detector: D,
    limit: Nanos,
    grace: Nanos,
    awake_at: Nanos,
    /// Heartbeats read before this time may be from a buffer.
    caught_up_at: Nanos,
    excused_until: Nanos,
    /// Sum of all pauses: the lag of the inner clock.
    slept: Nanos,
}

impl<D: Detector> Guard<D> {
    pub fn new(detector: D, limit: Nanos, grace: Nanos, now: Nanos) -> Self {
        Self { detector, limit, grace, awake_at: now, caught_up_at: 0, excused_until: 0, slept: 0 }
    }

    /// Call when the observer runs. Returns the pause before `now`, if there was one.
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
