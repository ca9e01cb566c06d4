//! The answer of one step, and how a decision's parts are shown in it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{Conditions, MetricValues, Rule};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepAnswer {
    pub replicas_before: i32,
    /// -1: no valid answer.
    pub proposed: i32,
    pub replicas: i32,
    pub metrics: Vec<ValuesAnswer>,
    pub conditions: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_text: Option<String>,
    /// The step's part of the answer's `explain`.
    #[serde(skip)]
    pub explain: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ValuesAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_milli: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_milli: Option<i64>,
}

pub(super) fn values(values: &MetricValues) -> ValuesAnswer {
    let MetricValues { utilization_percent, average_milli, value_milli } = *values;
    ValuesAnswer { utilization_percent, average_milli, value_milli }
}

pub(super) fn shown(conditions: &Conditions) -> BTreeMap<&'static str, String> {
    conditions.iter().map(|(kind, condition)| (kind.name(), condition.to_string())).collect()
}

pub(super) fn sentences(rules: &[Rule]) -> Vec<String> {
    rules.iter().map(Rule::to_string).collect()
}
