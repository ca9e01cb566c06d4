//! Heartbeats, batches and acknowledgements, and their rules.

use serde::{Deserialize, Serialize};

use crate::id::{self, IdError};

pub const MAX_SERVICES: usize = 32;
/// Maximum number of complaints in a heartbeat.
pub const MAX_COMPLAINTS: usize = 16;
/// Maximum number of heartbeats in a batch.
pub const MAX_BATCH: usize = 1024;

/// One heartbeat. JSON uses the field names; `sequence`, `incarnation` and `load` are optional there.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub struct Beat {
    /// Milliseconds since the Unix epoch on the sender's clock. For information only, since clocks disagree.
    #[prost(uint64, tag = "1")]
    pub timestamp: u64,
    /// 1 to 64 bytes; see `id`.
    #[prost(string, tag = "2")]
    pub node_id: String,
    /// Services that the node offers; at most 32 valid names.
    #[prost(string, repeated, tag = "3")]
    #[serde(default)]
    pub services: Vec<String>,
    /// Counts the heartbeats of an incarnation from 1. Zero: unnumbered, and repetitions cannot be detected.
    #[prost(uint64, tag = "4")]
    #[serde(default)]
    pub sequence: u64,
    /// Increases with every start of the node and with every refutation.
    #[prost(uint64, tag = "5")]
    #[serde(default)]
    pub incarnation: u64,
    /// 0: idle; 1: fully loaded. Finite and not negative.
    #[prost(float, tag = "6")]
    #[serde(default)]
    pub load: f32,
    /// What a worker does besides sending heartbeats. `None`: the sender owns no partitions.
    #[prost(message, optional, tag = "7")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<WorkerReport>,
}

/// A worker's account of its partitions, and of the workers that its clients had no success with. Sets of partitions are bit masks: bit n is
/// partition n.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The worker's process: see `registry::Registration::process`.
    #[prost(fixed64, tag = "1")]
    pub process: u64,
    /// History and epoch of the partition table that the worker follows: see `assign::Table`.
    #[prost(fixed64, tag = "2")]
    pub history: u64,
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// Partitions that it serves: the store has its fence.
    #[prost(uint32, tag = "4")]
    pub serving: u32,
    /// Partitions that it owns, but whose store does not answer it, or fails too many of its requests.
    #[prost(uint32, tag = "5")]
    pub failing: u32,
    /// Milliseconds since the store last answered a request of this worker for a partition; the oldest of its partitions counts. 0 without
    /// partitions.
    #[prost(uint32, tag = "6")]
    pub store_age_ms: u32,
    /// The latest epoch in the store that refused a fence or a write of this worker. 0: none did.
    #[prost(uint64, tag = "7")]
    pub overruled_by: u64,
    /// Other workers that clients had no success with, as they told this worker in the last seconds.
    #[prost(message, repeated, tag = "8")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<Complaint>,
}

/// A worker that clients had no success with, and for which partitions.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
pub struct Complaint {
    #[prost(string, tag = "1")]
    pub node_id: String,
    #[prost(uint32, tag = "2")]
    pub partitions: u32,
}

/// Heartbeats of several nodes in one message, with its own sequence.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub struct Batch {
    #[prost(message, repeated, tag = "1")]
    pub beats: Vec<Beat>,
    /// The agent that packed the batch; a valid name.
    #[prost(string, tag = "2")]
    pub sender: String,
    #[prost(uint64, tag = "3")]
    #[serde(default)]
    pub sequence: u64,
    #[prost(uint64, tag = "4")]
    #[serde(default)]
    pub incarnation: u64,
}

/// The receiver's response to a heartbeat or batch that requested one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ack {
    /// Node of the heartbeat, or sender of the batch.
    #[prost(string, tag = "1")]
    pub of: String,
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
}

/// A node's answer to a probe.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProbeAnswer {
    /// The node, its incarnation, and the question's random number.
    #[prost(message, required, tag = "1")]
    pub ack: Ack,
    /// Time of the answer by the node's clock in Unix milliseconds, as in `Beat::timestamp`.
    #[prost(uint64, tag = "2")]
    pub sent_ms: u64,
}

/// What a node says of itself in an answer to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    pub incarnation: u64,
    /// When it answered, by its own clock in Unix milliseconds; 0: unknown.
    pub sent_ms: u64,
}

/// Why a decoded message is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("node_id {0}")]
    NodeId(IdError),
    #[error("sender {0}")]
    Sender(IdError),
    #[error("a service {0}")]
    Service(IdError),
    #[error("more than {MAX_SERVICES} services")]
    Services,
    #[error("more than {MAX_BATCH} beats")]
    Beats,
    #[error("more than {MAX_COMPLAINTS} complaints")]
    Complaints,
    #[error("a complaint's node_id {0}")]
    Complaint(IdError),
    #[error("load must be finite and not negative")]
    Load,
}

impl Beat {
    /// # Errors
    /// The first violated rule.
    pub fn check(&self) -> Result<(), Invalid> {
        id::check(&self.node_id).map_err(Invalid::NodeId)?;
        check_services(self.services.iter().map(String::as_str))?;
        check_load(self.load)?;
        self.report.as_ref().map_or(Ok(()), WorkerReport::check)
    }
}

impl WorkerReport {
    /// # Errors
    /// The first violated rule.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.complaints.len() > MAX_COMPLAINTS {
            return Err(Invalid::Complaints);
        }
        self.complaints.iter().try_for_each(|complaint| id::check(&complaint.node_id).map_err(Invalid::Complaint))
    }
}

impl Batch {
    /// # Errors
    /// The first violated rule, of the batch or of one of its heartbeats.
    pub fn check(&self) -> Result<(), Invalid> {
        id::check(&self.sender).map_err(Invalid::Sender)?;
        if self.beats.len() > MAX_BATCH {
            return Err(Invalid::Beats);
        }
        self.beats.iter().try_for_each(Beat::check)
    }
}

pub(crate) fn check_services<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Result<(), Invalid> {
    if names.len() > MAX_SERVICES {
        return Err(Invalid::Services);
    }
    for name in names {
        id::check(name).map_err(Invalid::Service)?;
    }
    Ok(())
}

pub(crate) fn check_load(load: f32) -> Result<(), Invalid> {
    // Also false for NaN.
    if load.is_finite() && load >= 0.0 { Ok(()) } else { Err(Invalid::Load) }
}
