//! Inputs of the control loop: from the transports, the probes, the other monitors and etcd.

use heartbeat::{assign::NodeId, vote::Ballot};

/// `Input::Answer::round` of a proof of life. Probe rounds are numbered from 1.
pub const PROOF_OF_LIFE: u64 = 0;

pub enum Input {
    /// `incarnation` 0 stands for the known incarnation: the article's heartbeats carry none.
    Beat {
        id: String,
        incarnation: u64,
        sequence: u64,
    },
    Answer {
        node: NodeId,
        incarnation: u64,
        round: u64,
    },
    Ballot(Ballot),
    /// Something in the registry has changed.
    Changed,
}
