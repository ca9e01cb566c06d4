//! A case as a line of JSON. Absent and null mean the same. Fields that only another kind uses are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Phase, PolicyKind, Resource, Select, Status};

/// What is decided, and from what. All times are in milliseconds before the case's start, or a step's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub id: String,
    pub kind: Kind,
    /// Words of the author; they decide nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<serde_json::Value>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_utilization_percent: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_average_milli: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_value_milli: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance_up: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance_down: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_initialization_period_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_readiness_delay_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downscale_stabilization_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behavior: Option<BehaviorInput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<MetricInput>>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub values_milli: Vec<i64>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodInput>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub orphan_metrics: Vec<OrphanInput>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub recommendations: Vec<RecommendationInput>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub scale_up_events: Vec<EventInput>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub scale_down_events: Vec<EventInput>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepInput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Resource,
    External,
    Stabilize,
    Rate,
    Normalize,
    #[default]
    Reconcile,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodInput {
    pub name: String,
    pub phase: Phase,
    #[serde(default, deserialize_with = "or_default")]
    pub deleted: bool,
    pub started_ms_ago: Option<i64>,
    pub ready: Option<Status>,
    pub ready_changed_ms_ago: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub containers: Vec<ContainerInput>,
    pub metrics: Option<SampleInput>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerInput {
    pub name: String,
    pub request_milli: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub sidecar: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleInput {
    pub sampled_ms_ago: i64,
    pub window_ms: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub containers: Vec<UsageInput>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageInput {
    pub name: String,
    pub usage_milli: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrphanInput {
    pub pod: String,
    pub sampled_ms_ago: i64,
    pub window_ms: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub containers: Vec<UsageInput>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BehaviorInput {
    pub scale_up: Option<RulesInput>,
    pub scale_down: Option<RulesInput>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesInput {
    pub stabilization_window_s: Option<i32>,
    pub select_policy: Option<Select>,
    pub policies: Option<Vec<PolicyInput>>,
    pub tolerance: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyInput {
    #[serde(rename = "type")]
    pub kind: PolicyKind,
    pub value: i32,
    pub period_s: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecommendationInput {
    pub ms_ago: i64,
    pub replicas: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventInput {
    pub ms_ago: i64,
    pub change: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricInput {
    #[serde(rename = "type")]
    pub kind: MetricKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_utilization_percent: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_average_milli: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_value_milli: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetricKind {
    Resource,
    ContainerResource,
    External,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepInput {
    #[serde(default, deserialize_with = "or_default")]
    pub after_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_min_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_replicas: Option<i32>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodInput>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub orphan_metrics: Vec<OrphanInput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadInput>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub external_milli: BTreeMap<String, Option<Vec<i64>>>,
}

/// A load that the current replicas share: equal, ready pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadInput {
    pub request_milli: Option<i64>,
    pub total_milli: i64,
    /// Of each pod. `None`: no limit.
    pub limit_milli: Option<i64>,
}

/// For fields where null means the same as absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
