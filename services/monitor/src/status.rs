//! Response body of `GET /status`: a monitor's view of itself and of the workers.

use std::{collections::VecDeque, sync::Arc};

use heartbeat::{
    assign::{NodeId, Table},
    clock::wall_ms,
    node_state::{Cause, State, Transition},
    observer::Source,
};
use serde::{Deserialize, Serialize};

/// Number of events in the status. Older events are in the log.
const MAX_CHANGES: usize = 200;
const MS: f64 = 1e6;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub monitor: NodeId,
    pub leading: bool,
    /// As read from the registry last.
    pub leader: Option<NodeId>,
    /// Number of all monitors, and of those whose votes count now.
    pub monitors: usize,
    pub present: usize,
    /// Whether the last request to etcd was answered.
    pub registry_up: bool,
    pub nodes: Vec<Node>,
    pub table: Arc<Table>,
    /// Of the segments of which a version is known.
    #[serde(default)]
    pub segments: Vec<SegmentStatus>,
    /// Newest last.
    pub changes: Vec<LoggedEvent>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub state: State,
    pub incarnation: u64,
    /// Whether the partition table lists it as online.
    pub online: bool,
    /// It announced that it leaves, and is not watched any more.
    #[serde(default)]
    pub left: bool,
    /// Milliseconds since the last sign of life.
    pub silent_ms: f64,
    /// Share of new work: 1, less in a warning, 0 for a worker that gets none.
    #[serde(default)]
    pub weight: f64,
    pub primary_of: usize,
    pub replica_of: usize,
}

/// The copies of a segment, as workers reported them to this monitor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentStatus {
    pub segment: u8,
    /// Log entries that were folded: the sum of the version vector's positions.
    pub version: u64,
    pub epoch: u64,
    /// Holders with a complete copy of this version.
    pub good: usize,
    pub holders: usize,
    /// Milliseconds since the primary first reported the announced version to this monitor.
    pub age_ms: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoggedEvent {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Event {
    /// This monitor's view.
    State {
        node: NodeId,
        from: State,
        to: State,
        cause: Cause,
        silent_ms: f64,
    },
    /// Decided by the majority, as the two below.
    Admitted {
        node: NodeId,
        epoch: u64,
    },
    /// Failed, or left.
    Offline {
        node: NodeId,
        epoch: u64,
    },
    Primaries {
        epoch: u64,
        moved: usize,
    },
    Paused {
        ms: f64,
    },
    /// The worker sends heartbeats, but does not serve these partitions: the leader takes them from it.
    Unserved {
        node: NodeId,
        partitions: Vec<usize>,
        evidence: Source,
    },
    /// Etcd had lost tables up to this epoch.
    TablesLost {
        epoch: u64,
    },
}

/// The latest events.
#[derive(Debug, Default)]
pub struct EventLog(VecDeque<LoggedEvent>);

impl EventLog {
    pub fn push(&mut self, event: Event) {
        if self.0.len() == MAX_CHANGES {
            self.0.pop_front();
        }
        self.0.push_back(LoggedEvent { at_ms: wall_ms(), event });
    }

    pub fn list(&self) -> Vec<LoggedEvent> {
        self.0.iter().cloned().collect()
    }
}

impl Event {
    pub fn transition(node: &NodeId, transition: &Transition) -> Self {
        let Transition { from, to, cause, silent } = *transition;
        Self::State { node: node.clone(), from, to, cause, silent_ms: silent as f64 / MS }
    }

    /// Differences of a later table.
    pub fn between(before: &Table, after: &Table) -> Vec<Self> {
        let epoch = after.epoch;
        let switched = after.nodes.iter().filter(|(node, membership)| before.is_online(node) != membership.online);
        let mut changes: Vec<Self> = switched
            .map(|(node, membership)| match membership.online {
                true => Self::Admitted { node: node.clone(), epoch },
                false => Self::Offline { node: node.clone(), epoch },
            })
            .collect();
        let pairs = before.partitions.iter().zip(&after.partitions);
        let moved = pairs.filter(|(old, new)| old.primary != new.primary).count();
        if moved > 0 {
            changes.push(Self::Primaries { epoch, moved });
        }
        changes
    }
}
