//! One step of the controller (`reconcileAutoscaler`): metrics, limits, windows, rates, and what is remembered of them.

use std::collections::BTreeMap;

use crate::{
    ConditionType, Conditions, Direction, ExternalValue, History, Metric, MetricError, MetricValues, Pods, Proposal,
    Recommendation, Request, ResourceQuestion, Rule, ScaleEvent, Spec, external_replicas, normalize, resource_replicas,
};

/// What the controller sees in one step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    pub pods: Pods,
    /// Series of external metrics by name, in thousandths. An absent name returns nothing.
    pub external_milli: BTreeMap<String, Vec<i64>>,
    /// `status.replicas` of the target. `None`: the current count.
    pub status_replicas: Option<i32>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub replicas_before: i32,
    /// What the metrics ask for, before history, rates and limits; -1 without a valid answer. Also where the step did not ask them.
    pub proposed: i32,
    pub replicas: i32,
    /// Current values, in the order of the spec. Empty where the step did not ask the metrics.
    pub metrics: Vec<MetricValues>,
    pub conditions: Conditions,
    /// The first metric without an answer. The count may have changed nevertheless.
    pub error: Option<MetricError>,
    /// In the order in which they were applied.
    pub rules: Vec<Rule>,
}

/// What all metrics ask for together.
struct Wish {
    /// -1: no valid answer.
    replicas: i32,
    values: Vec<MetricValues>,
    error: Option<MetricError>,
    /// The reason of `ScalingActive`, which is true if the wish is valid.
    reason: &'static str,
    valid: bool,
    rules: Vec<Rule>,
}

/// `current` is `spec.replicas` of the target. `now_ms` does not go back from step to step.
pub fn reconcile(spec: &Spec, history: &mut History, now_ms: i64, current: i32, seen: &Observation) -> Decision {
    history.conditions.set(ConditionType::AbleToScale, true, "SucceededGetScale");
    if history.recommendations.is_empty() {
        history.recommendations.push(Recommendation { at_ms: now_ms, replicas: current });
    }
    let wish = ask_metrics(spec, seen, current, now_ms);
    let mut decision = Decision {
        replicas_before: current,
        proposed: wish.replicas,
        replicas: current,
        metrics: Vec::new(),
        conditions: Conditions::default(),
        error: None,
        rules: Vec::new(),
    };
    match without_metrics(spec, history, current) {
        Some(rule) => {
            decision.replicas = match rule {
                Rule::AboveMaximum { max, .. } => max,
                Rule::BelowMinimum { min, .. } => min,
                _ => current,
            };
            decision.rules.push(rule);
        }
        None => follow_metrics(spec, history, wish, now_ms, &mut decision),
    }
    if decision.replicas != current {
        remember_change(spec, history, now_ms, current, decision.replicas);
    }
    decision.conditions = history.conditions.clone();
    decision
}

/// The rule that decides without metrics, if there is one.
fn without_metrics(spec: &Spec, history: &mut History, current: i32) -> Option<Rule> {
    let (min, max) = (spec.min_replicas, spec.max_replicas);
    if current == 0 {
        let scaled_to_zero = history.conditions.hold(ConditionType::ScaledToZero);
        if scaled_to_zero && (min != 0 || has_external(spec)) {
            return None;
        }
        history.conditions.set(ConditionType::ScalingActive, false, "ScalingDisabled");
        Some(Rule::Disabled)
    } else if current > max {
        Some(Rule::AboveMaximum { current, max })
    } else {
        (current < min).then_some(Rule::BelowMinimum { current, min })
    }
}

fn has_external(spec: &Spec) -> bool {
    spec.metrics.iter().any(|metric| matches!(metric, Metric::External { .. }))
}

fn follow_metrics(spec: &Spec, history: &mut History, wish: Wish, now_ms: i64, decision: &mut Decision) {
    let current = decision.replicas_before;
    history.conditions.set(ConditionType::ScalingActive, wish.valid, wish.reason);
    decision.metrics = wish.values;
    decision.error = wish.error;
    decision.rules = wish.rules;
    if !wish.valid {
        return;
    }
    let wanted = wish.replicas.max(0);
    if wanted != wish.replicas {
        decision.rules.push(Rule::NotNegative { wanted: wish.replicas });
    }
    let normalized = normalize(spec, history, Request { current, wanted, now_ms });
    decision.rules.extend(normalized.rules);
    decision.replicas = normalized.replicas;
    // The limits do not reach a count of 0 that no metric changes.
    if current == 0 && decision.replicas < spec.min_replicas {
        decision.rules.push(Rule::RaisedToMinimum { wanted: decision.replicas, min: spec.min_replicas });
        decision.replicas = spec.min_replicas;
    }
}

fn remember_change(spec: &Spec, history: &mut History, now_ms: i64, before: i32, after: i32) {
    history.conditions.set(ConditionType::AbleToScale, true, "SucceededRescale");
    if let Some(behavior) = &spec.behavior {
        let (direction, rules) =
            if after > before { (Direction::Up, &behavior.up) } else { (Direction::Down, &behavior.down) };
        let change = after.wrapping_sub(before).wrapping_abs();
        history.scaled(direction, ScaleEvent { at_ms: now_ms, change }, rules.longest_period_s());
    }
    let to_zero = after == 0 && before > 0 && spec.min_replicas == 0 && has_external(spec);
    history.conditions.set(
        ConditionType::ScaledToZero,
        to_zero,
        if to_zero { "ScaledToZero" } else { "NotScaledToZero" },
    );
}

/// The highest proposal. If a metric fails and the others ask for less than now, there is no valid answer.
fn ask_metrics(spec: &Spec, seen: &Observation, current: i32, now_ms: i64) -> Wish {
    let answers: Vec<_> = spec.metrics.iter().map(|metric| ask(spec, metric, seen, current, now_ms)).collect();
    let mut wish = Wish {
        replicas: 0,
        values: Vec::new(),
        error: None,
        reason: "ValidMetricFound",
        valid: true,
        rules: Vec::new(),
    };
    let (mut failed, mut failed_rules, mut highest) = (0, Vec::new(), None);
    let mut failure_reason = wish.reason;
    for (index, (metric, answer)) in spec.metrics.iter().zip(answers).enumerate() {
        match answer {
            Ok(proposal) => {
                wish.values.push(proposal.values);
                if wish.replicas == 0 || proposal.replicas > wish.replicas {
                    wish.replicas = proposal.replicas;
                    highest = Some((index, proposal.rules));
                }
            }
            Err(error) => {
                wish.values.push(MetricValues::default());
                failed += 1;
                failed_rules.push(Rule::FailedMetric { metric: index + 1, error: error.clone() });
                if wish.error.is_none() {
                    wish.error = Some(error);
                    failure_reason = reason_of_failure(metric);
                }
            }
        }
    }
    let metrics = spec.metrics.len();
    if failed >= metrics || (failed > 0 && wish.replicas < current) {
        (wish.valid, wish.reason, wish.replicas) = (false, failure_reason, -1);
        wish.rules = failed_rules;
        wish.rules.push(Rule::NoAnswer { failed, metrics, replicas: current });
        return wish;
    }
    wish.rules = failed_rules;
    if let Some((index, rules)) = highest {
        wish.rules.extend(rules);
        if metrics > 1 {
            wish.rules.push(Rule::HighestMetric { metric: index + 1, metrics, replicas: wish.replicas });
        }
    }
    wish
}

fn reason_of_failure(metric: &Metric) -> &'static str {
    match metric {
        Metric::Resource { .. } => "FailedGetResourceMetric",
        Metric::ContainerResource { .. } => "FailedGetContainerResourceMetric",
        Metric::External { .. } => "FailedGetExternalMetric",
    }
}

fn ask(spec: &Spec, metric: &Metric, seen: &Observation, current: i32, now_ms: i64) -> Result<Proposal, MetricError> {
    let tolerances = spec.tolerances();
    let resource = |container, target| {
        let question = ResourceQuestion { resource: spec.resource, container, target, tolerances, flags: &spec.flags };
        let answer = resource_replicas(&question, &seen.pods, current, now_ms);
        answer.map(|(proposal, _)| proposal).map_err(|failure| failure.error)
    };
    match metric {
        Metric::Resource { target } => resource("", *target),
        Metric::ContainerResource { container, target } => resource(container, *target),
        Metric::External { name, target } => {
            let series_milli = seen.external_milli.get(name).map_or(&[][..], Vec::as_slice);
            let status = seen.status_replicas.unwrap_or(current);
            external_replicas(&ExternalValue { series_milli, current, status }, *target, tolerances, &seen.pods)
        }
    }
}
