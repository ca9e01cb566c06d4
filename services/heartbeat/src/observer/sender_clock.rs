use crate::Nanos;

const MS: Nanos = 1_000_000;
/// The offset estimate may be wrong by this share of the time since it was made: more than clocks drift.
const DRIFT_PPM: i64 = 1_000;

/// Whether a heartbeat is news, and how old it is, for one incarnation of a sender. A network may hold heartbeats back and deliver them one
/// by one after the sender has died: they would keep it alive for as long as the backlog lasts.
#[derive(Debug, Clone, Default)]
pub(super) struct SenderClock {
    newest: u64,
    /// Smallest difference between the time of receipt and the sender's time stamp in ms, since its last answer to a probe, and when it was
    /// updated.
    offset: Option<(i64, Nanos)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    News,
    /// Sent before a heartbeat that was received already.
    Late,
    /// Newer than all before, but it was on its way for longer than `oldest`.
    Stale,
}

impl SenderClock {
    /// A heartbeat was received at `at`; `sent_ms` is its time stamp, 0 for unknown. Clocks need not agree: only differences count.
    pub(super) fn received(&mut self, at: Nanos, sequence: u64, sent_ms: u64, oldest: Nanos) -> Freshness {
        if sequence <= self.newest {
            return Freshness::Late;
        }
        self.newest = sequence;
        if sent_ms == 0 {
            return Freshness::News;
        }
        let offset = offset(at, sent_ms);
        let expected = self.offset.map_or(offset, |(known, since)| {
            known + millis(at.saturating_sub(since)).saturating_mul(DRIFT_PPM) / 1_000_000
        });
        self.offset = Some((expected.min(offset), at));
        if offset - expected <= millis(oldest) { Freshness::News } else { Freshness::Stale }
    }

    /// The sender answered a question of a moment ago, at `sent_ms` by its clock, which may have been set since its last heartbeat. Its offset
    /// is known before the first heartbeat: those that are held back until now do not seem fresh.
    pub(super) fn answered(&mut self, at: Nanos, sent_ms: u64) {
        if sent_ms != 0 {
            self.offset = Some((offset(at, sent_ms), at));
        }
    }
}

fn offset(at: Nanos, sent_ms: u64) -> i64 {
    millis(at) - i64::try_from(sent_ms).unwrap_or(i64::MAX)
}

fn millis(at: Nanos) -> i64 {
    i64::try_from(at / MS).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000 * MS;
    /// The sender's clock is years ahead of the observer's, which starts at 0.
    const AHEAD: u64 = 1_700_000_000_000;

    fn clock_after(beats: u64) -> SenderClock {
        let mut clock = SenderClock::default();
        for n in 1..=beats {
            assert_eq!(clock.received(n * SECOND, n, AHEAD + n * 1_000, 3 * SECOND), Freshness::News);
        }
        clock
    }

    #[test]
    fn a_backlog_is_stale_and_a_sender_that_stood_still_is_not() {
        let mut held_back = clock_after(10);
        for n in 11..70 {
            // Each was on its way for a minute.
            let received = held_back.received((60 + n) * SECOND, n, AHEAD + n * 1_000, 3 * SECOND);
            assert_eq!(received, Freshness::Stale, "{n}");
        }
        let mut stood_still = clock_after(10);
        assert_eq!(stood_still.received(90 * SECOND, 11, AHEAD + 90_000, 3 * SECOND), Freshness::News);
    }

    #[test]
    fn a_backlog_that_begins_after_an_answer_is_stale_too() {
        // Also if no heartbeat was received before.
        for (mut clock, known) in [(clock_after(10), 10), (SenderClock::default(), 0)] {
            clock.answered(known * SECOND + 300 * MS, AHEAD + known * 1_000 + 200);
            for n in known + 1..known + 30 {
                let received = clock.received((30 + n) * SECOND, n, AHEAD + n * 1_000, 3 * SECOND);
                assert_eq!(received, Freshness::Stale, "{n}");
            }
        }
    }

    #[test]
    fn an_older_number_is_late_and_no_number_is_counted_twice() {
        let mut clock = clock_after(10);
        assert_eq!(clock.received(11 * SECOND, 9, AHEAD + 9_000, 3 * SECOND), Freshness::Late);
        assert_eq!(clock.received(11 * SECOND, 10, AHEAD + 10_000, 3 * SECOND), Freshness::Late);
        assert_eq!(clock.received(12 * SECOND, 12, 0, 3 * SECOND), Freshness::News, "without a time stamp");
    }

    #[test]
    fn a_clock_that_was_set_back_is_learned_anew_after_an_answer_and_drift_is_no_age() {
        let mut clock = clock_after(10);
        assert_eq!(clock.received(11 * SECOND, 11, AHEAD - 90_000, 3 * SECOND), Freshness::Stale);
        clock.answered(11 * SECOND + 100 * MS, AHEAD - 89_900);
        assert_eq!(clock.received(12 * SECOND, 12, AHEAD - 89_000, 3 * SECOND), Freshness::News);
        let mut slow = SenderClock::default();
        for n in 1..100_000 {
            let sent = AHEAD + n * 999 + n / 2;
            assert_eq!(slow.received(n * SECOND, n, sent, 3 * SECOND), Freshness::News, "500 ppm slow, {n} s");
        }
    }
}
