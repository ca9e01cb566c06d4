//! Inputs of the control loop: from the transports, the probes, the other monitors, etcd and `GET /status`.

use heartbeat::{assign::NodeId, vote::Ballot};
use tokio::sync::oneshot;

use crate::status::Status;

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
    Status(oneshot::Sender<Status>),
}
