//! What the control loop receives: from the transports, the probes, the other monitors, etcd and `GET /status`.

use heartbeat::{assign::NodeId, vote::Ballot};
use tokio::sync::oneshot;

use crate::status::Status;

pub enum Input {
    /// `incarnation` 0: of whatever life is known, as the article's beats.
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
    /// Something in the registry has.
    Changed,
    Status(oneshot::Sender<Status>),
}
