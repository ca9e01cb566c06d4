//! What a heartbeat says, and when it is not one.

use serde::{Deserialize, Serialize};

use crate::id::{self, IdError};

pub const MAX_SERVICES: usize = 32;
/// Of one batch, in any codec.
pub const MAX_BATCH: usize = 1024;

/// One heartbeat. JSON names are those of the fields; `sequence`, `incarnation` and `load` may be left out there.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub struct Beat {
    /// Milliseconds since the Unix epoch on the sender's clock. Nothing is decided by it: clocks disagree.
    #[prost(uint64, tag = "1")]
    pub timestamp: u64,
    /// 1..=64 bytes, by the rule of all ids.
    #[prost(string, tag = "2")]
    pub node_id: String,
    /// What the node offers; at most 32 names by the rule of ids.
    #[prost(string, repeated, tag = "3")]
    #[serde(default)]
    pub services: Vec<String>,
    /// Counts the beats of an incarnation from 1. Zero: the sender does not count, and nothing tells a repetition.
    #[prost(uint64, tag = "4")]
    #[serde(default)]
    pub sequence: u64,
    /// Grows with every start of the node and with every refutation.
    #[prost(uint64, tag = "5")]
    #[serde(default)]
    pub incarnation: u64,
    /// 0 is idle, 1 is all the node can do; finite and not negative.
    #[prost(float, tag = "6")]
    #[serde(default)]
    pub load: f32,
}

/// Beats of several nodes in one message, with a sequence of its own.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub struct Batch {
    #[prost(message, repeated, tag = "1")]
    pub beats: Vec<Beat>,
    /// Who packed it, by the rule of ids.
    #[prost(string, tag = "2")]
    pub sender: String,
    #[prost(uint64, tag = "3")]
    #[serde(default)]
    pub sequence: u64,
    #[prost(uint64, tag = "4")]
    #[serde(default)]
    pub incarnation: u64,
}

/// The receiver's answer to a beat or batch that asked for one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ack {
    /// Node of the beat, or sender of the batch.
    #[prost(string, tag = "1")]
    pub of: String,
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
}

/// Decodes, but is no heartbeat.
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
    #[error("load must be finite and not negative")]
    Load,
}

impl Beat {
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), Invalid> {
        id::check(&self.node_id).map_err(Invalid::NodeId)?;
        check_services(self.services.iter().map(String::as_str))?;
        check_load(self.load)
    }
}

impl Batch {
    /// # Errors
    /// The first rule that is broken, of the batch or of a beat in it.
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
    // Also false for a NaN.
    if load.is_finite() && load >= 0.0 { Ok(()) } else { Err(Invalid::Load) }
}
