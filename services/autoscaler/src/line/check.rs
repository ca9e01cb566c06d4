//! From a case's fields to the planner's types. Each problem names its field.

use std::{collections::BTreeSet, fmt};

use crate::{
    Behavior, Container, ExternalTarget, Flags, History, Metric, Observation, Orphan, Phase, Pod, Pods, Policy,
    Quantity, Ready, Recommendation, Resource, ResourceTarget, Rules, Sample, ScaleEvent, Spec, Status, Tolerances,
    Usage,
    line::input::{
        BehaviorInput, Case, ContainerInput, EventInput, LoadInput, MetricInput, MetricKind, OrphanInput, PodInput,
        PolicyInput, RulesInput, StepInput, UsageInput,
    },
};

/// Pods that a load can be spread over: as many as a large cluster has.
pub const MOST_PODS: i32 = 150_000;
/// Pods that all steps of one case may have together, by `load`.
pub const MOST_PODS_OF_STEPS: u64 = 10_000_000;

/// The start of each case on its own clock.
pub const START_MS: i64 = 0;

/// A field with a value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub field: String,
    pub what: String,
}

impl Problem {
    pub fn new(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self { field: field.into(), what: what.into() }
    }

    fn inside(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field), what: self.what }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" | "." => f.write_str(&self.what),
            field => write!(f, "{field}: {}", self.what),
        }
    }
}

type Checked<T> = Result<T, Problem>;

/// A field that the kind needs.
pub fn needed<T: Copy>(field: &str, value: Option<T>) -> Checked<T> {
    value.ok_or_else(|| Problem::new(field, "is missing"))
}

pub fn count(field: &str, value: i32) -> Checked<i32> {
    if value < 0 { Err(Problem::new(field, format!("{value} is negative"))) } else { Ok(value) }
}

pub fn current(case: &Case) -> Checked<i32> {
    count("current_replicas", needed("current_replicas", case.current_replicas)?)
}

fn not_negative(field: &str, value: i64) -> Checked<i64> {
    if value < 0 { Err(Problem::new(field, format!("{value} is negative"))) } else { Ok(value) }
}

/// Minimum (by default 1) and maximum.
pub fn limits(case: &Case) -> Checked<(i32, i32)> {
    let min = count("min_replicas", case.min_replicas.unwrap_or(1))?;
    let max = count("max_replicas", needed("max_replicas", case.max_replicas)?)?;
    if max == 0 {
        return Err(Problem::new("max_replicas", "must be at least 1"));
    }
    if min > max {
        return Err(Problem::new("min_replicas", format!("{min} is above max_replicas, which is {max}")));
    }
    Ok((min, max))
}

/// Fields of the case that stand for flags of the controller.
pub fn flags(case: &Case) -> Checked<Flags> {
    let default = Flags::default();
    let period = |field: &str, value: Option<i64>, default| not_negative(field, value.unwrap_or(default));
    Ok(Flags {
        tolerance: fraction("tolerance", case.tolerance.unwrap_or(default.tolerance))?,
        cpu_initialization_ms: period(
            "cpu_initialization_period_ms",
            case.cpu_initialization_period_ms,
            default.cpu_initialization_ms,
        )?,
        readiness_delay_ms: period(
            "initial_readiness_delay_ms",
            case.initial_readiness_delay_ms,
            default.readiness_delay_ms,
        )?,
        downscale_stabilization_ms: period(
            "downscale_stabilization_ms",
            case.downscale_stabilization_ms,
            default.downscale_stabilization_ms,
        )?,
    })
}

fn fraction(field: &str, value: f64) -> Checked<f64> {
    if value < 0.0 { Err(Problem::new(field, format!("{value} is negative"))) } else { Ok(value) }
}

/// `tolerance_up` and `tolerance_down`, by default the controller's flag.
pub fn tolerances(case: &Case, flags: &Flags) -> Checked<Tolerances> {
    Ok(Tolerances {
        up: fraction("tolerance_up", case.tolerance_up.unwrap_or(flags.tolerance))?,
        down: fraction("tolerance_down", case.tolerance_down.unwrap_or(flags.tolerance))?,
    })
}

pub fn behavior(input: &BehaviorInput, flags: &Flags) -> Checked<Behavior> {
    let side = |field: &str, rules: &Option<RulesInput>, default: Rules| match rules {
        Some(rules) => filled(rules, default).map_err(|problem| problem.inside(field)),
        None => Ok(default),
    };
    let up = side("behavior.scale_up", &input.scale_up, Rules::default_up())?;
    let down = side("behavior.scale_down", &input.scale_down, Rules::default_down(flags))?;
    Ok(Behavior { up, down })
}

/// What is absent is filled in as the API server does.
fn filled(input: &RulesInput, default: Rules) -> Checked<Rules> {
    let window_s = count("stabilization_window_s", input.stabilization_window_s.unwrap_or(default.window_s))?;
    let policies = match &input.policies {
        Some(policies) if policies.is_empty() => return Err(Problem::new("policies", "must have at least one policy")),
        Some(policies) => policies.iter().enumerate().map(|(at, input)| policy(at, *input)).collect::<Checked<_>>()?,
        None => default.policies,
    };
    let tolerance = match input.tolerance {
        Some(value) => {
            let value = fraction("tolerance", value)?;
            let quantity =
                Quantity::of(value).ok_or_else(|| Problem::new("tolerance", format!("{value} is too large")))?;
            Some(quantity.approximate())
        }
        None => None,
    };
    Ok(Rules { window_s, select: input.select_policy.unwrap_or(default.select), policies, tolerance })
}

fn policy(at: usize, input: PolicyInput) -> Checked<Policy> {
    count(&format!("policies[{at}].value"), input.value)?;
    count(&format!("policies[{at}].period_s"), input.period_s)?;
    Ok(Policy::new(input.kind, input.value, input.period_s))
}

/// The case's own target, of `resource`.
pub fn resource_target(percent: Option<i32>, average_milli: Option<i64>) -> Checked<ResourceTarget> {
    match (percent, average_milli) {
        (Some(percent), None) => {
            positive("target_utilization_percent", percent.into()).map(|_| ResourceTarget::UtilizationPercent(percent))
        }
        (None, Some(milli)) => positive("target_average_milli", milli).map(ResourceTarget::AverageMilli),
        (Some(_), Some(_)) => Err(Problem::new("target_average_milli", "stands beside target_utilization_percent")),
        (None, None) => Err(Problem::new("target_utilization_percent", "is missing, and so is target_average_milli")),
    }
}

/// The case's own target, of `external`.
pub fn external_target(value_milli: Option<i64>, average_milli: Option<i64>) -> Checked<ExternalTarget> {
    match (value_milli, average_milli) {
        (Some(milli), None) => positive("target_value_milli", milli).map(ExternalTarget::ValueMilli),
        (None, Some(milli)) => positive("target_average_milli", milli).map(ExternalTarget::AverageMilli),
        (Some(_), Some(_)) => Err(Problem::new("target_average_milli", "stands beside target_value_milli")),
        (None, None) => Err(Problem::new("target_value_milli", "is missing, and so is target_average_milli")),
    }
}

fn positive(field: &str, value: i64) -> Checked<i64> {
    if value < 1 { Err(Problem::new(field, format!("{value} is not positive"))) } else { Ok(value) }
}

/// What a `reconcile` case asks its autoscaler to keep. Without metrics, the target is 80 % CPU, as the API server fills in.
pub fn spec(case: &Case) -> Checked<Spec> {
    let flags = flags(case)?;
    let (min_replicas, max_replicas) = limits(case)?;
    let metrics = match case.metrics.as_deref() {
        None | Some([]) if case.resource == Some(Resource::Memory) => {
            return Err(Problem::new("metrics", "is missing; the default is a target of CPU, and resource is memory"));
        }
        None | Some([]) => vec![Metric::Resource { target: ResourceTarget::UtilizationPercent(80) }],
        Some(inputs) => {
            let metric = |(at, input)| metric(input).map_err(|problem| problem.inside(&format!("metrics[{at}]")));
            inputs.iter().enumerate().map(metric).collect::<Checked<_>>()?
        }
    };
    let behavior = case.behavior.as_ref().map(|input| behavior(input, &flags)).transpose()?;
    Ok(Spec { min_replicas, max_replicas, resource: case.resource.unwrap_or(Resource::Cpu), metrics, behavior, flags })
}

fn metric(input: &MetricInput) -> Checked<Metric> {
    let resource = || resource_target(input.target_utilization_percent, input.target_average_milli);
    match input.kind {
        MetricKind::Resource => Ok(Metric::Resource { target: resource()? }),
        MetricKind::ContainerResource => {
            let container = input.container.clone().filter(|container| !container.is_empty());
            let container = container.ok_or_else(|| Problem::new("container", "is missing"))?;
            Ok(Metric::ContainerResource { container, target: resource()? })
        }
        MetricKind::External => {
            let name = input.name.clone().ok_or_else(|| Problem::new("name", "is missing"))?;
            let target = external_target(input.target_value_milli, input.target_average_milli)?;
            Ok(Metric::External { name, target })
        }
    }
}

/// Recommendations and events before the case, which starts at `now_ms`.
pub fn history(case: &Case, now_ms: i64) -> Checked<History> {
    let mut history = History::default();
    for (at, input) in case.recommendations.iter().enumerate() {
        let replicas = count(&format!("recommendations[{at}].replicas"), input.replicas)?;
        history.recommendations.push(Recommendation { at_ms: ago(now_ms, input.ms_ago), replicas });
    }
    history.scale_ups = events("scale_up_events", &case.scale_up_events, now_ms)?;
    history.scale_downs = events("scale_down_events", &case.scale_down_events, now_ms)?;
    Ok(history)
}

fn events(field: &str, inputs: &[EventInput], now_ms: i64) -> Checked<Vec<ScaleEvent>> {
    let event = |(at, input): (usize, &EventInput)| {
        let change = count(&format!("{field}[{at}].change"), input.change)?;
        Ok(ScaleEvent { at_ms: ago(now_ms, input.ms_ago), change })
    };
    inputs.iter().enumerate().map(event).collect()
}

/// What the controller sees in a step, at `now_ms`, with `current` replicas. `spare` has pods of an earlier load to use again: making them
/// anew would take most of the time of a long case.
pub fn observation(step: &StepInput, current: i32, now_ms: i64, spare: Pods) -> Checked<Observation> {
    let status_replicas = step.status_replicas.map(|value| count("status_replicas", value)).transpose()?;
    let pods = match (&step.load, step.pods.is_empty() && step.orphan_metrics.is_empty()) {
        (Some(_), false) => return Err(Problem::new("load", "stands beside pods or orphan_metrics")),
        (Some(load), true) => shared_load(load, current, now_ms, spare).map_err(|problem| problem.inside("load"))?,
        (None, _) => pods(&step.pods, &step.orphan_metrics, now_ms)?,
    };
    let series = step.external_milli.iter().map(|(name, series)| (name.clone(), series.clone().unwrap_or_default()));
    Ok(Observation { pods, external_milli: series.collect(), status_replicas })
}

/// `current` equal pods, Running and Ready since long ago, that share the load.
fn shared_load(load: &LoadInput, current: i32, now_ms: i64, mut pods: Pods) -> Checked<Pods> {
    const LONG_AGO_MS: i64 = 365 * 24 * 3_600_000;
    let total = not_negative("total_milli", load.total_milli)?;
    let limit = not_negative("limit_milli", load.limit_milli.unwrap_or(i64::MAX))?;
    let request_milli = load.request_milli.map(|request| not_negative("request_milli", request)).transpose()?;
    if current > MOST_PODS {
        return Err(Problem::new(
            "total_milli",
            format!("would be spread over {current} pods; the most is {MOST_PODS}"),
        ));
    }
    let usage = total.checked_div(current.into()).unwrap_or(0).min(limit);
    let long_ago = ago(now_ms, LONG_AGO_MS);
    let known = i32::try_from(pods.pods.len()).unwrap_or(i32::MAX);
    pods.pods.truncate(usize::try_from(current).unwrap_or(0));
    pods.pods.extend((known..current).map(|number| equal_pod(format!("p{number}"))));
    for pod in &mut pods.pods {
        pod.started_ms = Some(long_ago);
        pod.ready = Some(Ready { status: Status::True, changed_ms: Some(long_ago) });
        pod.containers.iter_mut().for_each(|container| container.request_milli = request_milli);
        if let Some(sample) = &mut pod.sample {
            sample.at_ms = ago(now_ms, 15_000);
            sample.containers.iter_mut().for_each(|container| container.milli = Some(usage));
        }
    }
    Ok(pods)
}

/// A pod of a load, before its times and numbers are set.
fn equal_pod(name: String) -> Pod {
    let usage = Usage { container: "app".into(), milli: None };
    Pod {
        name,
        phase: Phase::Running,
        deleted: false,
        started_ms: None,
        ready: None,
        containers: vec![Container { name: "app".into(), request_milli: None, sidecar: false }],
        sample: Some(Sample { at_ms: 0, window_ms: 30_000, containers: vec![usage] }),
    }
}

pub fn pods(pods: &[PodInput], orphans: &[OrphanInput], now_ms: i64) -> Checked<Pods> {
    let mut names = BTreeSet::new();
    let mut unique = |field: String, name: &str| {
        let is_new = names.insert(name.to_owned());
        if is_new { Ok(()) } else { Err(Problem::new(field, format!("{name:?} is there twice"))) }
    };
    let mut found = Pods::default();
    for (at, input) in pods.iter().enumerate() {
        unique(format!("pods[{at}].name"), &input.name)?;
        found.pods.push(pod(input, now_ms).map_err(|problem| problem.inside(&format!("pods[{at}]")))?);
    }
    for (at, input) in orphans.iter().enumerate() {
        unique(format!("orphan_metrics[{at}].pod"), &input.pod)?;
        let OrphanInput { pod, sampled_ms_ago, window_ms, containers } = input;
        let sample = sample(*sampled_ms_ago, *window_ms, containers, now_ms);
        let sample = sample.map_err(|problem| problem.inside(&format!("orphan_metrics[{at}]")))?;
        found.orphans.push(Orphan { pod: pod.clone(), sample });
    }
    Ok(found)
}

fn pod(input: &PodInput, now_ms: i64) -> Checked<Pod> {
    let container = |(at, input): (usize, &ContainerInput)| {
        let field = format!("containers[{at}].request_milli");
        let request_milli = input.request_milli.map(|request| not_negative(&field, request)).transpose()?;
        Ok(Container { name: input.name.clone(), request_milli, sidecar: input.sidecar })
    };
    let sample = input.metrics.as_ref().map(|metrics| {
        let sample = sample(metrics.sampled_ms_ago, metrics.window_ms, &metrics.containers, now_ms);
        sample.map_err(|problem| problem.inside("metrics"))
    });
    let changed_ms = input.ready_changed_ms_ago.map(|ms_ago| ago(now_ms, ms_ago));
    Ok(Pod {
        name: input.name.clone(),
        phase: input.phase,
        deleted: input.deleted,
        started_ms: input.started_ms_ago.map(|ms_ago| ago(now_ms, ms_ago)),
        ready: input.ready.map(|status| Ready { status, changed_ms }),
        containers: input.containers.iter().enumerate().map(container).collect::<Checked<_>>()?,
        sample: sample.transpose()?,
    })
}

fn sample(sampled_ms_ago: i64, window_ms: i64, containers: &[UsageInput], now_ms: i64) -> Checked<Sample> {
    let window_ms = not_negative("window_ms", window_ms)?;
    let usage = |input: &UsageInput| Usage { container: input.name.clone(), milli: input.usage_milli };
    Ok(Sample { at_ms: ago(now_ms, sampled_ms_ago), window_ms, containers: containers.iter().map(usage).collect() })
}

pub fn ago(now_ms: i64, ms_ago: i64) -> i64 {
    now_ms.saturating_sub(ms_ago)
}
