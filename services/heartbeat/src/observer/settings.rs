use serde::{Deserialize, Serialize};

use crate::{Nanos, node_state, vote};

/// Times of a monitor. All follow from the heartbeat interval; see `for_interval`.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Interval of heartbeats, and of ballots.
    pub interval: Nanos,
    pub suspicion: node_state::Settings,
    /// A longer gap between two calls is a pause of this process.
    pub pause: Nanos,
    /// Time after a pause in which input may come from a full buffer.
    pub catch_up: Nanos,
    pub vote_lifetime: Nanos,
    /// Duration of the leader's lease; renewed every quarter of it.
    pub term: Nanos,
    /// Interval of reads of the registry, in addition to notifications.
    pub refresh: Nanos,
    /// Number of votes that decide, for a number of monitors.
    pub quorum: fn(usize) -> usize,
    /// A heartbeat that was on its way for longer is no sign of life: its sender may be dead.
    pub oldest_beat: Nanos,
    /// What shows that a worker does not serve its partitions.
    pub evidence: Evidence,
    /// Time after a failure in which no partition is moved for balance, and in which a worker that did not serve, or was in a crash loop, gets
    /// none.
    pub rebalance_after: Nanos,
    /// An offline worker that owns nothing is forgotten after this silence.
    pub forget_after: Nanos,
}

/// What counts as evidence that a worker does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The silence of its heartbeats alone.
    Heartbeats,
    /// Also its own reports, and those of requesters.
    All,
}

/// The overdue heartbeat and five unanswered rounds: 3.15 intervals after the heartbeat was due.
pub const PARTITIONED_AFTER: u32 = 6;

impl Settings {
    /// A crash is confirmed after, in intervals: up to 1 until the heartbeat is missed, the detector's margin, two rounds of 0.35. After a
    /// pause of the monitor: grace of 1.08, two rounds, and 0.2 s if a segment to the registry is lost. That is below the 2 promised for
    /// heartbeats a second apart.
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
            oldest_beat: (3 * interval).max(1_000_000_000),
            evidence: Evidence::All,
            rebalance_after: (30 * interval).max(10_000_000_000),
            forget_after: 3_600_000_000_000,
        }
    }
}
