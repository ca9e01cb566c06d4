//! `GET /partitions`: who owns what, at once or as soon as there is something newer than what the asker has.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

#[cfg(feature = "http")]
pub use self::route::{MAX_POLL, router};
use crate::assign::{NodeId, Table};

/// The table, and where its nodes are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Assignments {
    #[serde(flatten)]
    pub table: Arc<Table>,
    /// `host:port` of each registered node's HTTP.
    pub addresses: BTreeMap<NodeId, String>,
}

#[cfg(feature = "http")]
mod route;
