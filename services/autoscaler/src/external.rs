//! Replicas from an external metric, such as a queue's lag (`GetExternalMetricReplicas`, `GetExternalPerPodMetricReplicas`).

use crate::{ExternalTarget, MetricError, MetricValues, Pods, Proposal, Rule, Tolerances, arithmetic::to_i32};

/// The series of an external metric, and the counts of the target that it is compared with.
#[derive(Debug, Clone, Copy)]
pub struct ExternalValue<'a> {
    /// Thousandths. Empty: the metrics API returned none.
    pub series_milli: &'a [i64],
    pub current: i32,
    /// `status.replicas` of the target.
    pub status: i32,
}

/// Sums that exceed 2^63 − 1 and counts that exceed int32 are cut, as in the controller, except for a count from 0 replicas.
///
/// # Errors
///
/// There is no series, or the ratio is needed and there are no pods.
pub fn external_replicas(
    value: &ExternalValue<'_>,
    target: ExternalTarget,
    tolerances: Tolerances,
    pods: &Pods,
) -> Result<Proposal, MetricError> {
    if value.series_milli.is_empty() {
        return Err(MetricError::NoExternalMetrics);
    }
    match target {
        ExternalTarget::ValueMilli(target) => by_value(value, target, tolerances, pods),
        ExternalTarget::AverageMilli(target) => Ok(by_average(value, target, tolerances)),
    }
}

/// Replicas follow ratio × pods that are Running and Ready. Tolerance and pods do not matter if there are no replicas.
fn by_value(
    value: &ExternalValue<'_>,
    target_milli: i64,
    tolerances: Tolerances,
    pods: &Pods,
) -> Result<Proposal, MetricError> {
    let (total_milli, mut overflow) = total(value.series_milli, |sum, next| next > 0 && sum > i64::MAX - next);
    let ratio = total_milli as f64 / target_milli as f64;
    let values = MetricValues { value_milli: Some(total_milli), ..MetricValues::default() };
    let (replicas, ready) = if value.current == 0 {
        let wanted = ratio.ceil();
        overflow |= wanted > f64::from(i32::MAX);
        (to_i32(wanted), None)
    } else if tolerances.contain(ratio) {
        return Ok(Proposal { replicas: value.current, values, rules: held(ratio, tolerances, value.current) });
    } else if pods.pods.is_empty() {
        return Err(MetricError::NoPods);
    } else {
        let ready = pods.running_and_ready();
        let wanted = ratio * ready as f64;
        overflow |= wanted > f64::from(i32::MAX);
        (if wanted > f64::from(i32::MAX) { i32::MAX } else { to_i32(wanted.ceil()) }, Some(ready))
    };
    let rule = Rule::ExternalRatio { total_milli, target_milli, ready, replicas };
    Ok(Proposal { replicas, values, rules: with_overflow(overflow, rule) })
}

/// Replicas = ⌈total / target⌉, if total / (target × `status.replicas`) is not within the tolerance.
fn by_average(value: &ExternalValue<'_>, target_milli: i64, tolerances: Tolerances) -> Proposal {
    // The controller takes a negative sum for an overflow.
    let (total_milli, mut overflow) = total(value.series_milli, |sum, next| sum.wrapping_add(next) < 0);
    let ratio = total_milli as f64 / (target_milli as f64 * f64::from(value.status));
    let average_milli = match value.status {
        // The controller divides by zero: the value has no meaning.
        0 => None,
        _ if total_milli as f64 >= i64::MAX as f64 => Some(i64::MAX),
        status => Some((total_milli as f64 / f64::from(status)).ceil() as i64),
    };
    let values = MetricValues { average_milli, ..MetricValues::default() };
    if tolerances.contain(ratio) {
        return Proposal { replicas: value.status, values, rules: held(ratio, tolerances, value.status) };
    }
    let wanted = (total_milli as f64 / target_milli as f64).ceil();
    overflow |= wanted > f64::from(i32::MAX);
    let replicas = if wanted > f64::from(i32::MAX) { i32::MAX } else { to_i32(wanted) };
    let rule = Rule::ExternalAverage { total_milli, target_milli, replicas };
    Proposal { replicas, values, rules: with_overflow(overflow, rule) }
}

/// The sum, cut at 2^63 − 1 where `is_cut(sum so far, next)`; and whether it was cut.
fn total(series: &[i64], is_cut: impl Fn(i64, i64) -> bool) -> (i64, bool) {
    let sum = series.iter().try_fold(0_i64, |sum, next| (!is_cut(sum, *next)).then(|| sum.wrapping_add(*next)));
    sum.map_or((i64::MAX, true), |sum| (sum, false))
}

/// At a ratio of exactly 1, no rule kept the number.
fn held(ratio: f64, tolerances: Tolerances, replicas: i32) -> Vec<Rule> {
    let (lower, upper) = (1.0 - tolerances.down, 1.0 + tolerances.up);
    (ratio != 1.0).then_some(Rule::WithinTolerance { ratio, lower, upper, replicas }).into_iter().collect()
}

fn with_overflow(overflow: bool, rule: Rule) -> Vec<Rule> {
    if overflow { vec![Rule::Overflow, rule] } else { vec![rule] }
}
