//! What became of a sender's beats on their way to one observer: recorded or generated, to judge detectors on.

mod condition;
mod csv;
mod link;
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

/// Beats in the order sent, sequence numbers ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Nominal, between two beats.
    pub interval: Nanos,
    pub beats: Vec<SentBeat>,
}

impl Trace {
    /// Of all beats, 0..=1; 0 without any.
    pub fn loss(&self) -> f64 {
        let lost = self.beats.iter().filter(|beat| beat.received.is_none()).count();
        lost as f64 / self.beats.len().max(1) as f64
    }

    /// Received beats in the order received; of those that came at once, in the order sent.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let arrival =
            |beat: &SentBeat| beat.received.map(|at| Arrival { at, sequence: beat.sequence, sent: beat.sent });
        let mut arrivals: Vec<Arrival> = self.beats.iter().filter_map(arrival).collect();
        // Nearly sorted already, which the stable sort makes use of.
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
