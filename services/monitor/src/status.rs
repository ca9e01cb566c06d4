//! What a monitor says of itself and of the nodes: `GET /status`.

use std::{collections::VecDeque, sync::Arc};

use heartbeat::{
    assign::{NodeId, Table},
    clock::wall_ms,
    soft::{Cause, State, Transition},
};
use serde::{Deserialize, Serialize};

/// Changes that are remembered; older ones are in the log.
const MAX_CHANGES: usize = 200;
const MS: f64 = 1e6;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub monitor: NodeId,
    pub leading: bool,
    /// As the registry said last.
    pub leader: Option<NodeId>,
    /// How many there are, and the votes of how many count now.
    pub monitors: usize,
    pub present: usize,
    /// Whether etcd answered last.
    pub registry_up: bool,
    pub nodes: Vec<Node>,
    pub table: Arc<Table>,
    /// The newest last.
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub state: State,
    pub incarnation: u64,
    /// Whether the table of assignments has it as online.
    pub online: bool,
    /// It has said so before it stopped, and is not watched any more.
    #[serde(default)]
    pub left: bool,
    /// Since it was last heard.
    pub silent_ms: f64,
    pub primary_of: usize,
    pub replica_of: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum What {
    /// This monitor's own opinion.
    State {
        node: NodeId,
        from: State,
        to: State,
        cause: Cause,
        silent_ms: f64,
    },
    /// The table's: decided by the majority.
    Admitted {
        node: NodeId,
        epoch: u64,
    },
    /// Failed, or has left.
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
}

/// The last changes.
#[derive(Debug, Default)]
pub struct Changes(VecDeque<Change>);

impl Changes {
    pub fn note(&mut self, what: What) {
        if self.0.len() == MAX_CHANGES {
            self.0.pop_front();
        }
        self.0.push_back(Change { at_ms: wall_ms(), what });
    }

    pub fn list(&self) -> Vec<Change> {
        self.0.iter().cloned().collect()
    }
}

impl What {
    pub fn transition(node: &NodeId, transition: &Transition) -> Self {
        let Transition { from, to, cause, silent } = *transition;
        Self::State { node: node.clone(), from, to, cause, silent_ms: silent as f64 / MS }
    }

    /// What a later table changes.
    pub fn between(before: &Table, after: &Table) -> Vec<Self> {
        let epoch = after.epoch;
        let switched = after.nodes.iter().filter(|(node, standing)| before.is_online(node) != standing.online);
        let mut changes: Vec<Self> = switched
            .map(|(node, standing)| match standing.online {
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
