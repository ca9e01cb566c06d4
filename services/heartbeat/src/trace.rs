//! Heartbeat traces: send and arrival times at one observer, recorded or generated, to measure detectors with.

mod condition;
mod csv;
mod drawn;
mod link;
mod path;
mod random;

pub use self::{condition::Condition, csv::BadTrace};
use crate::Nanos;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentBeat {
    pub sequence: u64,
    /// On the sender's clock.
    pub sent: Nanos,
    /// On the observer's clock; `None`: lost.
    pub received: Option<Nanos>,
}

/// Heartbeats in the order sent; sequence numbers ascend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Nominal interval.
    pub interval: Nanos,
    pub beats: Vec<SentBeat>,
}

impl Trace {
    /// Share of lost heartbeats, 0..=1; 0 for an empty trace.
    pub fn loss(&self) -> f64 {
        let lost = self.beats.iter().filter(|beat| beat.received.is_none()).count();
        lost as f64 / self.beats.len().max(1) as f64
    }

    /// Received heartbeats in order of arrival; ties in the order sent.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let arrival =
            |beat: &SentBeat| beat.received.map(|at| Arrival { at, sequence: beat.sequence, sent: beat.sent });
        let mut arrivals: Vec<Arrival> = self.beats.iter().filter_map(arrival).collect();
        // Nearly sorted, which the stable sort exploits.
        arrivals.sort_by_key(|arrival| arrival.at);
        arrivals
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub at: Nanos,
    pub sequence: u64,
    pub sent: Nanos,
}
