//! Inputs of the control loop: from the transports, the probes, the other monitors, etcd and `GET /status`.

use heartbeat::{Nanos, assign::NodeId, message::Beat, vote::Ballot};
use tokio::sync::oneshot;

use crate::status::Status;

pub enum Input {
    /// Received at `at`. Incarnation 0 is the known incarnation: the article's heartbeats carry none.
    Beat {
        at: Nanos,
        beat: Beat,
    },
    Answer {
        node: NodeId,
        incarnation: u64,
        round: u64,
    },
    Ballot(Ballot),
    /// Something in the registry has changed.
    Changed,
    Status(oneshot::Sender<Status>),
}
