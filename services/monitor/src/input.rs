//! Inputs of the control loop: from the transports, the probes, the other monitors and etcd.

use std::collections::BTreeMap;

use heartbeat::{
    Nanos,
    assign::NodeId,
    message::{Alive, Beat},
    vote::Ballot,
};

pub enum Input {
    /// Received at `at`. Incarnation 0 is the known incarnation: the article's heartbeats carry none.
    Beat {
        at: Nanos,
        beat: Beat,
    },
    Answer {
        node: NodeId,
        alive: Alive,
        round: u64,
    },
    Ballot(Ballot),
    /// The worker has the table of this epoch.
    Follows {
        node: NodeId,
        epoch: u64,
    },
    /// How far the copies of the partitions' segments are: see `Observer::copies`.
    Copies(BTreeMap<(usize, NodeId), u64>),
    /// Something in the registry has changed.
    Changed,
}
