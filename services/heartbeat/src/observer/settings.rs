use crate::{Nanos, node_state, vote};

/// Times of a monitor. All follow from the interval of the beats; see `for_interval`.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Of the beats; a ballot is sent as often.
    pub interval: Nanos,
    pub suspicion: node_state::Settings,
    /// A longer gap between two things done here is a pause of this observer.
    pub pause: Nanos,
    /// How long after a pause what is read may be from a full buffer.
    pub catch_up: Nanos,
    pub vote_lifetime: Nanos,
    /// Of a leader; prolonged every quarter of it.
    pub term: Nanos,
    /// The registry is read as often, besides being told of changes.
    pub refresh: Nanos,
    /// Votes that decide, of so many monitors.
    pub quorum: fn(usize) -> usize,
}

/// The overdue beat and five rounds without an answer: 3.15 intervals after the beat was due.
pub const PARTITIONED_AFTER: u32 = 6;

impl Settings {
    /// A crash is confirmed, in intervals: up to 1 until the beat is missed, the detector's margin, two rounds of 0.35. After
    /// a pause of the monitor: grace of 1.08, two rounds, and 0.2 s if a segment on the way to the registry is lost: below the 2
    /// that are promised for beats a second apart.
    pub fn for_interval(interval: Nanos, term: Nanos) -> Self {
        let round = interval * 7 / 20;
        Self {
            interval,
            suspicion: node_state::Settings {
                round,
                longest_round: interval * 8,
                grace: interval * 27 / 25,
                partitioned_after: PARTITIONED_AFTER,
            },
            pause: interval / 2,
            catch_up: interval / 10,
            vote_lifetime: interval * 5 / 2,
            term,
            refresh: interval.max(1_000_000_000),
            quorum: vote::majority,
        }
    }
}
