//! Pods as the autoscaler sees them, their samples, and the group that each pod falls into.

use serde::{Deserialize, Serialize};

use crate::{Flags, Resource};

/// What the selector finds, and samples of pods that it does not find.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pods {
    /// Names are unique.
    pub pods: Vec<Pod>,
    pub orphans: Vec<Orphan>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub phase: Phase,
    /// It has a deletion timestamp.
    pub deleted: bool,
    pub started_ms: Option<i64>,
    /// `None`: it has no Ready condition.
    pub ready: Option<Ready>,
    pub containers: Vec<Container>,
    /// `None`: the metrics API knows nothing of the pod.
    pub sample: Option<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Running,
    Pending,
    Failed,
    Succeeded,
    Unknown,
}

/// The Ready condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    pub status: Status,
    /// Its last transition. `None`: longer ago than any other time.
    pub changed_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    True,
    False,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// Thousandths of a core, or of a byte.
    pub request_milli: Option<i64>,
    /// An init container with restart policy Always.
    pub sidecar: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub at_ms: i64,
    pub window_ms: i64,
    pub containers: Vec<Usage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub container: String,
    /// `None`: the container is listed without this resource.
    pub milli: Option<i64>,
}

/// A sample of a pod that the selector does not find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    pub pod: String,
    pub sample: Sample,
}

impl Pods {
    /// The metrics API returns at least one sample, of any pod.
    pub fn have_samples(&self) -> bool {
        !self.orphans.is_empty() || self.pods.iter().any(|pod| pod.sample.is_some())
    }

    /// Pods that are Running and Ready. Deleted ones count.
    pub fn running_and_ready(&self) -> usize {
        let is_ready = |pod: &&Pod| pod.ready.is_some_and(|ready| ready.status == Status::True);
        self.pods.iter().filter(|pod| pod.phase == Phase::Running).filter(is_ready).count()
    }
}

impl Pod {
    /// The container's usage, or the pod's if `container` is empty. A pod is only as known as its least known container.
    pub fn usage(&self, container: &str) -> Option<i64> {
        self.sample.as_ref()?.usage(container)
    }
}

impl Sample {
    pub fn usage(&self, container: &str) -> Option<i64> {
        if container.is_empty() {
            let known = self
                .containers
                .iter()
                .map(|usage| usage.milli)
                .try_fold(0_i64, |sum, milli| Some(sum.wrapping_add(milli?)));
            known.filter(|_| !self.containers.is_empty())
        } else {
            self.containers.iter().find(|usage| usage.container == container)?.milli
        }
    }
}

/// Indices into [`Pods::pods`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    /// Pods whose sample counts.
    pub ready: Vec<usize>,
    /// Pending, or with a CPU sample that does not count yet.
    pub unready: Vec<usize>,
    /// Without a sample.
    pub missing: Vec<usize>,
    /// Failed, or being deleted.
    pub ignored: Vec<usize>,
}

impl Groups {
    pub fn of(pods: &Pods, container: &str, resource: Resource, flags: &Flags, now_ms: i64) -> Self {
        let mut groups = Self::default();
        for (index, pod) in pods.pods.iter().enumerate() {
            let group = if pod.deleted || pod.phase == Phase::Failed {
                &mut groups.ignored
            } else if pod.phase == Phase::Pending {
                &mut groups.unready
            } else {
                match (&pod.sample, pod.usage(container)) {
                    (Some(sample), Some(_)) if resource == Resource::Cpu && !counts(pod, sample, flags, now_ms) => {
                        &mut groups.unready
                    }
                    (Some(_), Some(_)) => &mut groups.ready,
                    _ => &mut groups.missing,
                }
            };
            group.push(index);
        }
        groups
    }

    /// All pods count.
    pub fn are_all_ready(&self) -> bool {
        self.unready.is_empty() && self.missing.is_empty() && self.ignored.is_empty()
    }
}

/// A CPU sample counts. In 128 bits, because sums of times may exceed 64.
fn counts(pod: &Pod, sample: &Sample, flags: &Flags, now_ms: i64) -> bool {
    let (Some(ready), Some(started)) = (pod.ready, pod.started_ms.map(i128::from)) else { return false };
    let changed = ready.changed_ms.map_or(i128::from(i64::MIN) * 2, i128::from);
    if started + i128::from(flags.cpu_initialization_ms) > i128::from(now_ms) {
        // The sample must begin after the last transition.
        let in_time = i128::from(sample.at_ms) >= changed + i128::from(sample.window_ms);
        ready.status != Status::False && in_time
    } else {
        // Later, only a pod that was never ready is left out.
        ready.status != Status::False || started + i128::from(flags.readiness_delay_ms) <= changed
    }
}
