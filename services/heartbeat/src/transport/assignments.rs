//! `/partitions`: the partition table, immediately or as a long poll for a later one.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

#[cfg(feature = "http")]
pub use self::route::{MAX_POLL, authenticated, router};
use crate::assign::{NodeId, Table};

/// The partition table, and the addresses of its workers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Assignments {
    #[serde(flatten)]
    pub table: Arc<Table>,
    /// `host:port` of each registered worker's HTTP port.
    pub addresses: BTreeMap<NodeId, String>,
}

#[cfg(feature = "http")]
mod route;
