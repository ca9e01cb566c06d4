//! Every rule that can change the number, as data, and the sentence for it.

use std::fmt;

use crate::{MetricError, Policy, PolicyKind, ResourceTarget};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

/// A rule that changed the number, or kept it from changing. Its `Display` is one sentence with the figures.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Replicas = ⌈usage / target × pods⌉.
    ResourceRatio {
        usage: i64,
        target: ResourceTarget,
        pods: usize,
        replicas: i32,
    },
    /// Replicas = ⌈total / target × ready pods⌉; without replicas, ⌈total / target⌉.
    ExternalRatio {
        total_milli: i64,
        target_milli: i64,
        ready: Option<usize>,
        replicas: i32,
    },
    /// Replicas = ⌈total / target⌉.
    ExternalAverage {
        total_milli: i64,
        target_milli: i64,
        replicas: i32,
    },
    /// The ratio of usage to target is near enough to 1.
    WithinTolerance {
        ratio: f64,
        lower: f64,
        upper: f64,
        replicas: i32,
    },
    /// Pods without a sample are counted with this usage, in percent of the request or in thousandths.
    MissingPods {
        pods: usize,
        counted_as: ResourceTarget,
    },
    /// Unready pods are counted with no usage.
    UnreadyPods {
        pods: usize,
    },
    /// With missing and unready pods, the ratio points the other way.
    RatioWouldReverse {
        before: f64,
        after: f64,
        replicas: i32,
    },
    /// The ratio asks for one direction, the number of pods that it is multiplied with leads to the other.
    CountWouldReverse {
        ratio: f64,
        wanted: i32,
        replicas: i32,
    },
    /// A sum or a count does not fit the controller's integers.
    Overflow,
    /// One of several metrics has no answer.
    FailedMetric {
        metric: usize,
        error: MetricError,
    },
    /// A metric has no answer and the others do not ask for more: nothing changes.
    NoAnswer {
        failed: usize,
        metrics: usize,
        replicas: i32,
    },
    /// The metric with the highest proposal decides.
    HighestMetric {
        metric: usize,
        metrics: usize,
        replicas: i32,
    },
    /// No answer can be negative.
    NotNegative {
        wanted: i32,
    },
    /// Somebody scaled to 0 by hand: the autoscaler is off.
    Disabled,
    AboveMaximum {
        current: i32,
        max: i32,
    },
    BelowMinimum {
        current: i32,
        min: i32,
    },
    /// A recommendation of the window holds the number.
    Stabilized {
        direction: Direction,
        wanted: i32,
        replicas: i32,
        window_ms: i64,
    },
    /// A policy limits the change. `None`: scaling in this direction is disabled, or the path has no behaviour.
    RateLimited {
        direction: Direction,
        wanted: i32,
        replicas: i32,
        limit: RateLimit,
    },
    LimitedByMaximum {
        wanted: i32,
        max: i32,
    },
    LimitedByMinimum {
        wanted: i32,
        min: i32,
    },
    /// From 0, at least the minimum.
    RaisedToMinimum {
        wanted: i32,
        min: i32,
    },
}

/// What limits a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimit {
    /// The direction is disabled.
    Disabled,
    /// `start` is the count before the changes of the policy's period.
    Policy { policy: Policy, start: i32 },
    /// Without behaviour: the larger of twice the count and 4.
    Doubling,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResourceRatio { usage, target, pods, replicas } => {
                let (unit, target) = parts(*target);
                let ratio = *usage as f64 / target as f64;
                write!(
                    f,
                    "Usage is {usage}{unit}, the target is {target}{unit}: {ratio:.2} × {pods} pods, rounded up, is {replicas}."
                )
            }
            Self::ExternalRatio { total_milli, target_milli, ready, replicas } => {
                let (total, target) = (Milli(*total_milli), Milli(*target_milli));
                let ratio = *total_milli as f64 / *target_milli as f64;
                match ready {
                    Some(ready) => write!(
                        f,
                        "The metric is {total}, the target is {target}: {ratio:.2} × {ready} ready pods, rounded up, is {replicas}."
                    ),
                    None => {
                        write!(f, "There are no replicas: metric {total} / target {target}, rounded up, is {replicas}.")
                    }
                }
            }
            Self::ExternalAverage { total_milli, target_milli, replicas } => {
                let (total, target) = (Milli(*total_milli), Milli(*target_milli));
                write!(
                    f,
                    "The metric is {total}, the target is {target} per replica: {total} / {target}, rounded up, is {replicas}."
                )
            }
            Self::WithinTolerance { ratio, lower, upper, replicas } => write!(
                f,
                "Usage / target is {ratio:.2}, within the tolerance of {lower:.2} to {upper:.2}: the count stays {replicas}."
            ),
            Self::MissingPods { pods, counted_as: ResourceTarget::UtilizationPercent(percent) } => {
                write!(f, "{} without a sample counted as {percent} % of the request.", Count(*pods))
            }
            Self::MissingPods { pods, counted_as: ResourceTarget::AverageMilli(milli) } => {
                write!(f, "{} without a sample counted as {milli} milli-units.", Count(*pods))
            }
            Self::UnreadyPods { pods } => write!(f, "{} not ready yet counted as 0.", Count(*pods)),
            Self::RatioWouldReverse { before, after, replicas } => write!(
                f,
                "With missing and unready pods, usage / target is {after:.2} instead of {before:.2}, the other direction: the count stays {replicas}."
            ),
            Self::CountWouldReverse { ratio, wanted, replicas } => write!(
                f,
                "Usage / target of {ratio:.2} leads to {wanted}, which is the other direction: the count stays {replicas}."
            ),
            Self::Overflow => {
                f.write_str("A number does not fit Kubernetes' integers: it continues with a wrong or cut number.")
            }
            Self::FailedMetric { metric, error } => write!(f, "Metric {metric} has no answer: {error}."),
            Self::NoAnswer { failed, metrics, replicas } => write!(
                f,
                "{failed} of {metrics} metrics have no answer and no other asks for at least {replicas}: the count stays {replicas}."
            ),
            Self::HighestMetric { metric, metrics, replicas } => {
                write!(f, "Metric {metric} of {metrics} asks for the most, {replicas}.")
            }
            Self::NotNegative { wanted } => write!(f, "The metrics ask for {wanted}; the least is 0."),
            Self::Disabled => {
                f.write_str("The count is 0 and the autoscaler did not scale it there: scaling is disabled.")
            }
            Self::AboveMaximum { current, max } => {
                write!(f, "The count {current} is above the maximum: it becomes {max} at once.")
            }
            Self::BelowMinimum { current, min } => {
                write!(f, "The count {current} is below the minimum: it becomes {min} at once.")
            }
            Self::Stabilized { direction, wanted, replicas, window_ms } => {
                let which = if *direction == Direction::Up { "lowest" } else { "highest" };
                let window = Milli(*window_ms);
                write!(
                    f,
                    "The metrics ask for {wanted}; the {which} recommendation of the last {window} s makes it {replicas}."
                )
            }
            Self::RateLimited { direction, wanted, replicas, limit } => {
                let verb = if *direction == Direction::Up { "out" } else { "in" };
                match limit {
                    RateLimit::Disabled => {
                        write!(f, "Scaling {verb} is disabled: {replicas} instead of {wanted}.")
                    }
                    RateLimit::Policy { policy: Policy { kind, value, period_s }, start } => {
                        let unit = if *kind == PolicyKind::Pods { " pods" } else { " %" };
                        write!(
                            f,
                            "The policy of {value}{unit} per {period_s} s, from {start}, limits scaling {verb}: {replicas} instead of {wanted}."
                        )
                    }
                    RateLimit::Doubling => write!(
                        f,
                        "Without behaviour, one step at most doubles the count, or reaches 4: {replicas} instead of {wanted}."
                    ),
                }
            }
            Self::LimitedByMaximum { wanted, max } => write!(f, "The maximum is {max}: {max} instead of {wanted}."),
            Self::LimitedByMinimum { wanted, min } => write!(f, "The minimum is {min}: {min} instead of {wanted}."),
            Self::RaisedToMinimum { wanted, min } => {
                write!(f, "From 0, the count is raised to the minimum: {min} instead of {wanted}.")
            }
        }
    }
}

fn parts(target: ResourceTarget) -> (&'static str, i64) {
    match target {
        ResourceTarget::UtilizationPercent(percent) => (" % of the request", percent.into()),
        ResourceTarget::AverageMilli(milli) => (" milli-units", milli),
    }
}

/// Thousandths as a decimal number.
struct Milli(i64);

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, all) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        match all % 1000 {
            0 => write!(f, "{sign}{}", all / 1000),
            rest => f.write_str(format!("{sign}{}.{rest:03}", all / 1000).trim_end_matches('0')),
        }
    }
}

/// "1 pod is", "2 pods are".
struct Count(usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 1 { f.write_str("1 pod is") } else { write!(f, "{} pods are", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_have_the_figures() {
        let says = |rule: Rule| rule.to_string();
        let rule =
            Rule::ResourceRatio { usage: 100, target: ResourceTarget::UtilizationPercent(70), pods: 8, replicas: 12 };
        assert_eq!(
            says(rule),
            "Usage is 100 % of the request, the target is 70 % of the request: 1.43 × 8 pods, rounded up, is 12."
        );
        let rule = Rule::Stabilized { direction: Direction::Up, wanted: 12, replicas: 8, window_ms: 120_000 };
        assert_eq!(says(rule), "The metrics ask for 12; the lowest recommendation of the last 120 s makes it 8.");
        let policy = Policy::new(PolicyKind::Percent, 100, 15);
        let limit = RateLimit::Policy { policy, start: 4 };
        let rule = Rule::RateLimited { direction: Direction::Up, wanted: 12, replicas: 8, limit };
        assert_eq!(says(rule), "The policy of 100 % per 15 s, from 4, limits scaling out: 8 instead of 12.");
        assert_eq!(Milli(-1_500).to_string(), "-1.5");
        assert_eq!(Milli(i64::MIN).to_string(), "-9223372036854775.808");
    }
}
