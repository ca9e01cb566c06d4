//! Replicas from the CPU or memory of pods (`GetResourceReplicas`, `GetRawResourceReplicas`).

use crate::{
    Flags, Groups, MetricError, MetricValues, Pod, Pods, Proposal, Resource, ResourceTarget, Rule, Tolerances,
    arithmetic::scaled_up,
};

/// What is asked of the pods.
#[derive(Debug, Clone, Copy)]
pub struct ResourceQuestion<'a> {
    pub resource: Resource,
    /// Empty: whole pods.
    pub container: &'a str,
    pub target: ResourceTarget,
    pub tolerances: Tolerances,
    pub flags: &'a Flags,
}

/// No proposal, and the groups of the pods if they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoProposal {
    pub error: MetricError,
    pub groups: Option<Box<Groups>>,
}

/// Usage of one pod that counts. An orphan has no request, and its sample counts wherever requests do not matter.
struct Counted {
    usage: i64,
    request: Option<i64>,
}

/// What several [`Counted`] say together.
struct Measured {
    ratio: f64,
    values: MetricValues,
    /// Percent, or the average: the figure that is compared with the target.
    usage: i64,
    overflow: bool,
}

/// `current` is `spec.replicas` of the target: the answer if nothing is to change.
///
/// # Errors
///
/// The metric has no answer: samples, pods or requests are missing.
pub fn resource_replicas(
    question: &ResourceQuestion<'_>,
    pods: &Pods,
    current: i32,
    now_ms: i64,
) -> Result<(Proposal, Groups), NoProposal> {
    let without_groups = |error| NoProposal { error, groups: None };
    if !pods.have_samples() {
        return Err(without_groups(MetricError::NoMetrics));
    }
    if pods.pods.is_empty() {
        return Err(without_groups(MetricError::NoPods));
    }
    let groups = Groups::of(pods, question.container, question.resource, question.flags, now_ms);
    match propose(question, pods, &groups, current) {
        Ok(proposal) => Ok((proposal, groups)),
        Err(error) => Err(NoProposal { error, groups: Some(Box::new(groups)) }),
    }
}

fn propose(
    question: &ResourceQuestion<'_>,
    pods: &Pods,
    groups: &Groups,
    current: i32,
) -> Result<Proposal, MetricError> {
    let ResourceQuestion { container, target, tolerances, .. } = *question;
    let samples_of_ready =
        groups.ready.iter().filter_map(|index| Some((Some(*index), pods.pods[*index].usage(container)?)));
    let samples_of_orphans = pods.orphans.iter().filter_map(|orphan| Some((None, orphan.sample.usage(container)?)));
    let samples: Vec<(Option<usize>, i64)> = samples_of_ready.chain(samples_of_orphans).collect();
    if samples.is_empty() {
        return Err(MetricError::NoUsableMetrics);
    }
    let requests = match target {
        ResourceTarget::UtilizationPercent(_) => requests(&pods.pods, container)?,
        ResourceTarget::AverageMilli(_) => vec![0; pods.pods.len()],
    };
    let counted = |index: Option<usize>, usage| Counted { usage, request: index.map(|index| requests[index]) };
    let mut all: Vec<Counted> = samples.into_iter().map(|(index, usage)| counted(index, usage)).collect();

    let first = measure(&all, target)?;
    let mut rules: Vec<Rule> = first.overflow.then_some(Rule::Overflow).into_iter().collect();
    let unready_count = !groups.unready.is_empty() && first.ratio > 1.0;
    if !unready_count && groups.missing.is_empty() {
        let replicas = if tolerances.contain(first.ratio) {
            rules.extend(held_by_tolerance(first.ratio, tolerances, current));
            current
        } else {
            let (pods, replicas) = (groups.ready.len(), scaled_up(first.ratio, groups.ready.len()));
            rules.push(Rule::ResourceRatio { usage: first.usage, target, pods, replicas });
            replicas
        };
        return Ok(Proposal { replicas, values: first.values, rules });
    }

    // Pods that cannot be judged are counted so that they dampen the change.
    if !groups.missing.is_empty() && first.ratio != 1.0 {
        let counted_as = missing_as(target, first.ratio);
        for index in &groups.missing {
            let usage = match counted_as {
                ResourceTarget::UtilizationPercent(percent) => requests[*index].wrapping_mul(percent.into()) / 100,
                ResourceTarget::AverageMilli(milli) => milli,
            };
            all.push(counted(Some(*index), usage));
        }
        rules.push(Rule::MissingPods { pods: groups.missing.len(), counted_as });
    }
    if unready_count {
        all.extend(groups.unready.iter().map(|index| counted(Some(*index), 0)));
        rules.push(Rule::UnreadyPods { pods: groups.unready.len() });
    }
    let second = measure(&all, target)?;
    if second.overflow && !first.overflow {
        rules.push(Rule::Overflow);
    }
    let wanted = scaled_up(second.ratio, all.len());
    let (replicas, rule) = if tolerances.contain(second.ratio) {
        (current, held_by_tolerance(second.ratio, tolerances, current))
    } else if (first.ratio < 1.0 && second.ratio > 1.0) || (first.ratio > 1.0 && second.ratio < 1.0) {
        (current, Some(Rule::RatioWouldReverse { before: first.ratio, after: second.ratio, replicas: current }))
    } else if (second.ratio < 1.0 && wanted > current) || (second.ratio > 1.0 && wanted < current) {
        (current, Some(Rule::CountWouldReverse { ratio: second.ratio, wanted, replicas: current }))
    } else {
        (wanted, Some(Rule::ResourceRatio { usage: second.usage, target, pods: all.len(), replicas: wanted }))
    };
    rules.extend(rule);
    Ok(Proposal { replicas, values: first.values, rules })
}

/// Below the target, missing pods use their request, or the target if it is higher. Above it, they use nothing.
fn missing_as(target: ResourceTarget, ratio: f64) -> ResourceTarget {
    match target {
        ResourceTarget::UtilizationPercent(percent) if ratio < 1.0 => {
            ResourceTarget::UtilizationPercent(percent.max(100))
        }
        ResourceTarget::UtilizationPercent(_) => ResourceTarget::UtilizationPercent(0),
        ResourceTarget::AverageMilli(milli) if ratio < 1.0 => ResourceTarget::AverageMilli(milli),
        ResourceTarget::AverageMilli(_) => ResourceTarget::AverageMilli(0),
    }
}

/// At a ratio of exactly 1, no rule kept the number.
fn held_by_tolerance(ratio: f64, tolerances: Tolerances, replicas: i32) -> Option<Rule> {
    let (lower, upper) = (1.0 - tolerances.down, 1.0 + tolerances.up);
    (ratio != 1.0).then_some(Rule::WithinTolerance { ratio, lower, upper, replicas })
}

/// Percent and averages are integers, truncated, before the ratio is taken.
fn measure(all: &[Counted], target: ResourceTarget) -> Result<Measured, MetricError> {
    match target {
        ResourceTarget::UtilizationPercent(target) => {
            let (mut used, mut requested, mut pods, mut exact_used, mut exact_requested) =
                (0_i64, 0_i64, 0_i64, 0_i128, 0_i128);
            for (usage, request) in all.iter().filter_map(|counted| Some((counted.usage, counted.request?))) {
                used = used.wrapping_add(usage);
                requested = requested.wrapping_add(request);
                exact_used += i128::from(usage);
                exact_requested += i128::from(request);
                pods += 1;
            }
            if requested == 0 {
                return Err(MetricError::ZeroRequestTotal);
            }
            let percent = used.wrapping_mul(100).wrapping_div(requested) as i32;
            let overflow = exact_requested == 0 || i128::from(percent) != exact_used * 100 / exact_requested;
            Ok(Measured {
                ratio: f64::from(percent) / f64::from(target),
                values: MetricValues {
                    utilization_percent: Some(percent),
                    average_milli: Some(used.wrapping_div(pods)),
                    value_milli: None,
                },
                usage: percent.into(),
                overflow,
            })
        }
        ResourceTarget::AverageMilli(target) => {
            let used = all.iter().fold(0_i64, |sum, counted| sum.wrapping_add(counted.usage));
            let exact: i128 = all.iter().map(|counted| i128::from(counted.usage)).sum();
            let average = used.wrapping_div(i64::try_from(all.len()).unwrap_or(i64::MAX));
            Ok(Measured {
                ratio: average as f64 / target as f64,
                values: MetricValues { average_milli: Some(average), ..MetricValues::default() },
                usage: average,
                overflow: i128::from(used) != exact,
            })
        }
    }
}

/// The request of each pod. One container without a request fails the metric, even in a failed or deleted pod.
fn requests(pods: &[Pod], container: &str) -> Result<Vec<i64>, MetricError> {
    pods.iter().map(|pod| request(pod, container)).collect()
}

fn request(pod: &Pod, container: &str) -> Result<i64, MetricError> {
    // Kubernetes reads sidecars after the other containers, which decides between two errors.
    let ordinary = pod.containers.iter().filter(|candidate| !candidate.sidecar);
    let ordered = ordinary.chain(pod.containers.iter().filter(|candidate| candidate.sidecar));
    let mut sum = 0_i64;
    for candidate in ordered.filter(|candidate| container.is_empty() || candidate.name == container) {
        let missing = || MetricError::MissingRequest { pod: pod.name.clone(), container: candidate.name.clone() };
        let request = candidate.request_milli.ok_or_else(missing)?;
        sum = sum.wrapping_add(request);
        if candidate.name == container {
            return Ok(request);
        }
    }
    if container.is_empty() {
        Ok(sum)
    } else {
        Err(MetricError::ContainerNotFound { pod: pod.name.clone(), container: container.to_owned() })
    }
}
