//! What an autoscaler is asked to keep: limits, metrics with targets, behaviour, and the flags of its controller.

use serde::{Deserialize, Serialize};

/// The part of a HorizontalPodAutoscaler's `spec` that decides, with the controller's flags. `min_replicas` ≤ `max_replicas`, both ≥ 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub min_replicas: i32,
    pub max_replicas: i32,
    /// The resource of all resource metrics.
    pub resource: Resource,
    pub metrics: Vec<Metric>,
    /// `None`: the path without behaviour, which has one window for scaling in and a fixed limit for scaling out.
    pub behavior: Option<Behavior>,
    pub flags: Flags,
}

impl Spec {
    pub fn tolerances(&self) -> Tolerances {
        let of = |rules: fn(&Behavior) -> &Rules| self.behavior.as_ref().and_then(|behavior| rules(behavior).tolerance);
        Tolerances {
            up: of(|behavior| &behavior.up).unwrap_or(self.flags.tolerance),
            down: of(|behavior| &behavior.down).unwrap_or(self.flags.tolerance),
        }
    }
}

/// Flags of kube-controller-manager. The default is Kubernetes' default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flags {
    /// A fraction, for both directions.
    pub tolerance: f64,
    pub cpu_initialization_ms: i64,
    pub readiness_delay_ms: i64,
    pub downscale_stabilization_ms: i64,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            tolerance: 0.1,
            cpu_initialization_ms: 300_000,
            readiness_delay_ms: 30_000,
            downscale_stabilization_ms: 300_000,
        }
    }
}

/// Fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerances {
    pub up: f64,
    pub down: f64,
}

impl Tolerances {
    /// In doubles, like the controller: with a tolerance of 0.1, a ratio of 1.1 is within it.
    pub fn contain(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    Cpu,
    Memory,
}

impl Resource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metric {
    /// Whole pods.
    Resource {
        target: ResourceTarget,
    },
    /// One container of each pod.
    ContainerResource {
        container: String,
        target: ResourceTarget,
    },
    External {
        name: String,
        target: ExternalTarget,
    },
}

/// Targets are positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceTarget {
    /// Percent of the request.
    UtilizationPercent(i32),
    /// Thousandths of a core, or of a byte, per pod.
    AverageMilli(i64),
}

/// Targets are positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalTarget {
    /// Thousandths per replica.
    AverageMilli(i64),
    /// Thousandths in all: replicas follow the ratio to it.
    ValueMilli(i64),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Behavior {
    pub up: Rules,
    pub down: Rules,
}

/// Rules of one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub window_s: i32,
    pub select: Select,
    pub policies: Vec<Policy>,
    /// A fraction. `None`: the controller's flag.
    pub tolerance: Option<f64>,
}

impl Rules {
    /// What the API server fills in for scaling out: no window; 4 pods or 100 % per 15 s, the larger.
    pub fn default_up() -> Self {
        let policies = vec![Policy::new(PolicyKind::Pods, 4, 15), Policy::new(PolicyKind::Percent, 100, 15)];
        Self { window_s: 0, select: Select::Max, policies, tolerance: None }
    }

    /// What the API server and the controller fill in for scaling in: the controller's window in whole seconds; 100 % per 15 s.
    pub fn default_down(flags: &Flags) -> Self {
        let window_s = crate::arithmetic::to_i32(flags.downscale_stabilization_ms as f64 / 1000.0);
        Self {
            window_s,
            select: Select::Max,
            policies: vec![Policy::new(PolicyKind::Percent, 100, 15)],
            tolerance: None,
        }
    }

    pub fn longest_period_s(&self) -> i32 {
        self.policies.iter().map(|policy| policy.period_s).max().unwrap_or(0).max(0)
    }
}

/// Which policy decides if several would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Select {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// No change in this direction.
    Disabled,
}

/// At most `value` pods, or percent of the count at the period's start, in `period_s` seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub kind: PolicyKind,
    pub value: i32,
    pub period_s: i32,
}

impl Policy {
    pub fn new(kind: PolicyKind, value: i32, period_s: i32) -> Self {
        Self { kind, value, period_s }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyKind {
    Pods,
    Percent,
}
