//! The conditions of a HorizontalPodAutoscaler's status.

use std::{collections::BTreeMap, fmt};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    AbleToScale,
    ScalingActive,
    ScalingLimited,
    ScaledToZero,
}

impl ConditionType {
    pub const ALL: [Self; 4] = [Self::AbleToScale, Self::ScalingActive, Self::ScalingLimited, Self::ScaledToZero];

    /// Every reason that a condition of this type can have.
    pub fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::AbleToScale => &[
                "SucceededGetScale",
                "ReadyForNewScale",
                "SucceededRescale",
                "ScaleUpStabilized",
                "ScaleDownStabilized",
            ],
            Self::ScalingActive => &[
                "ValidMetricFound",
                "FailedGetResourceMetric",
                "FailedGetContainerResourceMetric",
                "FailedGetExternalMetric",
                "ScalingDisabled",
            ],
            Self::ScalingLimited => {
                &["DesiredWithinRange", "ScaleUpLimit", "ScaleDownLimit", "TooManyReplicas", "TooFewReplicas"]
            }
            Self::ScaledToZero => &["NotScaledToZero", "ScaledToZero"],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::AbleToScale => "AbleToScale",
            Self::ScalingActive => "ScalingActive",
            Self::ScalingLimited => "ScalingLimited",
            Self::ScaledToZero => "ScaledToZero",
        }
    }
}

/// Shown as `Status/Reason`, for example `True/ValidMetricFound`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    pub holds: bool,
    pub reason: &'static str,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", if self.holds { "True" } else { "False" }, self.reason)
    }
}

/// At most one condition of each type. They stay from step to step until they are set again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions(BTreeMap<ConditionType, Condition>);

impl Conditions {
    pub fn set(&mut self, kind: ConditionType, holds: bool, reason: &'static str) {
        self.0.insert(kind, Condition { holds, reason });
    }

    pub fn hold(&self, kind: ConditionType) -> bool {
        self.0.get(&kind).is_some_and(|condition| condition.holds)
    }

    pub fn get(&self, kind: ConditionType) -> Option<Condition> {
        self.0.get(&kind).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (ConditionType, Condition)> {
        self.0.iter().map(|(kind, condition)| (*kind, *condition))
    }
}
