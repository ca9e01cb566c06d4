//! What the kernel gave the processes of a step.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// During the measured part. Maps have an entry for each kind of process, such as `api`; the load generator is `load`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Scheduling {
    /// Milliseconds per second in which runnable threads waited for a core, summed over all threads of a kind.
    pub run_queue_ms_per_s: BTreeMap<String, f64>,
    /// Milliseconds that a thread of the load generator waited for a core each time it was woken up, on average; null when not measured.
    pub generator_wait_ms: Option<f64>,
    /// Cores that a cgroup's quota allows a process of this kind, the one that was held back longest; a kind without a quota is absent.
    pub quota_cores: BTreeMap<String, f64>,
    /// Milliseconds in which the quota of that process was used up; a kind without a quota is absent.
    pub throttled_ms: BTreeMap<String, f64>,
    /// Policy and nice value: `SCHED_BATCH, nice -10`.
    pub policy: BTreeMap<String, String>,
    /// Whether the load generator got the nice value that it asked for; null when not measured.
    pub nice_granted: Option<bool>,
}
