//! What a metric asks for.

use crate::Rule;

/// The current value of a metric, as in `status.currentMetrics`. Thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricValues {
    pub utilization_percent: Option<i32>,
    pub average_milli: Option<i64>,
    pub value_milli: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    pub replicas: i32,
    pub values: MetricValues,
    /// In the order in which they were applied.
    pub rules: Vec<Rule>,
}
