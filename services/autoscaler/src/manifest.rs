//! A HorizontalPodAutoscaler of `autoscaling/v2` as YAML: limits, metrics and behaviour for cases that leave them out. What the API server
//! refuses is refused here.

mod document;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;
use thiserror::Error;

use self::document::{Document, Head, HpaPolicy, HpaRules, HpaSpec, MetricSpec, Target, Text};
use crate::{
    Quantity, Resource,
    line::{BehaviorInput, Case, Kind, MetricInput, MetricKind, PolicyInput, RulesInput},
};

/// The longest window and the longest period that the API server accepts, in seconds.
const LONGEST_WINDOW_S: i32 = 3600;
const LONGEST_PERIOD_S: i32 = 1800;

#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    min_replicas: Option<i32>,
    max_replicas: i32,
    /// `None`: all metrics are external.
    resource: Option<Resource>,
    metrics: Vec<MetricInput>,
    behavior: Option<BehaviorInput>,
}

/// A manifest that cannot be planned with: the line, if it is known, the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct BadManifest {
    pub line: Option<u64>,
    pub field: String,
    pub what: String,
}

impl fmt::Display for BadManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.what)
    }
}

type Read<T> = Result<T, BadManifest>;

fn bad(line: u64, field: impl Into<String>, what: impl Into<String>) -> BadManifest {
    BadManifest { line: Some(line), field: field.into(), what: what.into() }
}

fn line_of<T>(value: &Spanned<T>) -> u64 {
    value.referenced.line()
}

impl Manifest {
    /// # Errors
    ///
    /// The text is not YAML of one document, not `autoscaling/v2` or not a HorizontalPodAutoscaler; a field is unknown; the API server
    /// would refuse it; or the planner does not plan it: Pods and Object metrics, other resources than CPU and memory, both in one.
    pub fn parse(text: &str) -> Read<Self> {
        let head: Head = from_yaml(text)?;
        expect(head.api_version.as_ref(), "apiVersion", "autoscaling/v2")?;
        expect(head.kind.as_ref(), "kind", "HorizontalPodAutoscaler")?;
        let document: Document = from_yaml(text)?;
        let spec = document.spec.ok_or_else(|| missing("spec"))?;
        read(&spec)
    }

    /// Without a minimum in the manifest 1, as the API server has it.
    pub fn min_replicas(&self) -> i32 {
        self.min_replicas.unwrap_or(1)
    }

    pub fn max_replicas(&self) -> i32 {
        self.max_replicas
    }

    /// At least one.
    pub fn metrics(&self) -> &[MetricInput] {
        &self.metrics
    }

    /// Of all its metrics that are not external. `None`: all are external.
    pub fn resource(&self) -> Option<Resource> {
        self.resource
    }

    /// Sets what the case leaves out and its kind uses.
    pub fn fill(&self, case: &mut Case) {
        match case.kind {
            Kind::Resource => self.fill_resource(case),
            Kind::External => self.fill_external(case),
            Kind::Stabilize | Kind::Rate | Kind::Normalize | Kind::Reconcile => {
                // The minimum belongs to the maximum: a case with its own maximum may be below this minimum.
                if case.max_replicas.is_none() {
                    case.min_replicas = case.min_replicas.or(self.min_replicas);
                    case.max_replicas = Some(self.max_replicas);
                }
                case.behavior = case.behavior.take().or_else(|| self.behavior.clone());
                if case.kind == Kind::Reconcile {
                    case.metrics = case.metrics.take().or_else(|| Some(self.metrics.clone()));
                    case.resource = case.resource.or(self.resource);
                }
            }
        }
    }

    fn fill_resource(&self, case: &mut Case) {
        let metric = self.metrics.iter().find(|metric| metric.kind != MetricKind::External);
        if let Some(metric) =
            metric.filter(|_| case.target_utilization_percent.is_none() && case.target_average_milli.is_none())
        {
            case.target_utilization_percent = metric.target_utilization_percent;
            case.target_average_milli = metric.target_average_milli;
            case.container = case.container.take().or_else(|| metric.container.clone());
            case.resource = case.resource.or(self.resource);
        }
        self.fill_tolerances(case);
    }

    fn fill_external(&self, case: &mut Case) {
        let metric = self.metrics.iter().find(|metric| metric.kind == MetricKind::External);
        if let Some(metric) =
            metric.filter(|_| case.target_value_milli.is_none() && case.target_average_milli.is_none())
        {
            case.target_value_milli = metric.target_value_milli;
            case.target_average_milli = metric.target_average_milli;
        }
        self.fill_tolerances(case);
    }

    /// After the API's arithmetic: `resource` and `external` cases take tolerances as they are.
    fn fill_tolerances(&self, case: &mut Case) {
        let of = |rules: Option<&RulesInput>| {
            rules.and_then(|rules| Quantity::of(rules.tolerance?)).map(Quantity::approximate)
        };
        let behavior = self.behavior.as_ref();
        case.tolerance_up = case.tolerance_up.or_else(|| of(behavior?.scale_up.as_ref()));
        case.tolerance_down = case.tolerance_down.or_else(|| of(behavior?.scale_down.as_ref()));
    }
}

fn from_yaml<T: DeserializeOwned>(text: &str) -> Read<T> {
    serde_saphyr::from_str(text).map_err(|error| {
        let what = error.without_snippet().to_string();
        let line = error.location().map(|location| location.line());
        let what = what.lines().next().unwrap_or_default().to_owned();
        BadManifest { line, field: String::new(), what }
    })
}

fn missing(field: &str) -> BadManifest {
    BadManifest { line: None, field: field.to_owned(), what: "is missing".to_owned() }
}

fn expect(found: Option<&Spanned<String>>, field: &str, expected: &str) -> Read<()> {
    let found = found.ok_or_else(|| missing(field))?;
    if found.value == expected {
        return Ok(());
    }
    Err(bad(line_of(found), field, format!("{:?} instead of {expected:?}", found.value)))
}

fn read(spec: &HpaSpec) -> Read<Manifest> {
    let max = spec.max_replicas.as_ref().ok_or_else(|| missing("spec.maxReplicas"))?;
    if max.value < 1 {
        return Err(bad(line_of(max), "spec.maxReplicas", format!("{} is not positive", max.value)));
    }
    let mut metrics = Vec::new();
    let mut resource = None;
    let specs = spec.metrics.as_deref().unwrap_or_default();
    for (at, metric) in specs.iter().enumerate() {
        let field = format!("spec.metrics[{at}]");
        let (metric, of) = read_metric(&field, line_of(metric), &metric.value)?;
        if let (Some(before), Some((line, name))) = (resource, of)
            && before != name
        {
            return Err(bad(line, field, "asks for a second resource; the planner plans one"));
        }
        resource = of.map(|(_, name)| name).or(resource);
        metrics.push(metric);
    }
    if let Some(min) = &spec.min_replicas {
        let has_external = metrics.iter().any(|metric| metric.kind == MetricKind::External);
        let problem = match min.value {
            ..0 => Some("is negative".to_owned()),
            0 if !has_external => Some("needs an External metric".to_owned()),
            value if value > max.value => Some(format!("is above maxReplicas, which is {}", max.value)),
            _ => None,
        };
        if let Some(what) = problem {
            return Err(bad(line_of(min), "spec.minReplicas", format!("{} {what}", min.value)));
        }
    }
    if metrics.is_empty() {
        // As the API server does.
        metrics.push(MetricInput { target_utilization_percent: Some(80), ..empty(MetricKind::Resource) });
        resource = Some(Resource::Cpu);
    }
    let behavior = match &spec.behavior {
        Some(behavior) => Some(BehaviorInput {
            scale_up: behavior.scale_up.as_ref().map(|rules| read_rules("scaleUp", rules)).transpose()?,
            scale_down: behavior.scale_down.as_ref().map(|rules| read_rules("scaleDown", rules)).transpose()?,
        }),
        None => None,
    };
    let min_replicas = spec.min_replicas.as_ref().map(|min| min.value);
    Ok(Manifest { min_replicas, max_replicas: max.value, resource, metrics, behavior })
}

fn empty(kind: MetricKind) -> MetricInput {
    MetricInput {
        kind,
        container: None,
        name: None,
        target_utilization_percent: None,
        target_average_milli: None,
        target_value_milli: None,
    }
}

/// The metric, and the line and name of its resource.
fn read_metric(field: &str, line: u64, metric: &MetricSpec) -> Read<(MetricInput, Option<(u64, Resource)>)> {
    let MetricSpec { kind, resource, container_resource, external, pods, object } = metric;
    let sources =
        [resource.is_some(), container_resource.is_some(), external.is_some(), pods.is_some(), object.is_some()];
    if sources.into_iter().filter(|is_there| *is_there).count() != 1 {
        return Err(bad(line, field, "must have exactly the source that its type names"));
    }
    match (kind.as_str(), resource, container_resource, external) {
        ("Resource", Some(source), ..) => {
            let name = read_resource(&format!("{field}.resource.name"), &source.name)?;
            let target = read_target(&format!("{field}.resource.target"), &source.target, MetricKind::Resource)?;
            Ok((target, Some((line_of(&source.name), name))))
        }
        ("ContainerResource", _, Some(source), _) => {
            let name = read_resource(&format!("{field}.containerResource.name"), &source.name)?;
            let field = format!("{field}.containerResource.target");
            let target = read_target(&field, &source.target, MetricKind::ContainerResource)?;
            let metric = MetricInput { container: Some(source.container.clone()), ..target };
            Ok((metric, Some((line_of(&source.name), name))))
        }
        ("External", _, _, Some(source)) => {
            let target = read_target(&format!("{field}.external.target"), &source.target, MetricKind::External)?;
            Ok((MetricInput { name: Some(source.metric.name.clone()), ..target }, None))
        }
        ("Pods" | "Object", ..) => Err(bad(line, format!("{field}.type"), format!("{kind} metrics are not planned"))),
        ("Resource" | "ContainerResource" | "External", ..) => {
            Err(bad(line, field, "must have exactly the source that its type names"))
        }
        _ => Err(bad(line, format!("{field}.type"), format!("{kind:?} is no type of metric"))),
    }
}

fn read_resource(field: &str, name: &Spanned<String>) -> Read<Resource> {
    match name.value.as_str() {
        "cpu" => Ok(Resource::Cpu),
        "memory" => Ok(Resource::Memory),
        other => Err(bad(line_of(name), field, format!("{other:?} is neither cpu nor memory"))),
    }
}

fn read_target(field: &str, target: &Spanned<Target>, kind: MetricKind) -> Read<MetricInput> {
    let line = line_of(target);
    let Target { kind: type_name, average_utilization, average_value, value } = &target.value;
    if !["Utilization", "Value", "AverageValue"].contains(&type_name.as_str()) {
        return Err(bad(
            line,
            format!("{field}.type"),
            format!("{type_name:?} is neither Utilization, Value nor AverageValue"),
        ));
    }
    if average_utilization.is_some_and(|percent| percent < 1) {
        return Err(bad(line, format!("{field}.averageUtilization"), "is not positive"));
    }
    let milli = |name: &str, text: &Option<Text>| {
        let of = |text: &Text| positive_milli(line, &format!("{field}.{name}"), text);
        text.as_ref().map(of).transpose()
    };
    let (average_milli, value_milli) = (milli("averageValue", average_value)?, milli("value", value)?);
    let (first, second) = match kind {
        MetricKind::External => (("value", value_milli.is_some()), ("averageValue", average_milli.is_some())),
        MetricKind::Resource | MetricKind::ContainerResource => {
            (("averageUtilization", average_utilization.is_some()), ("averageValue", average_milli.is_some()))
        }
    };
    if first.1 == second.1 {
        return Err(bad(line, field, format!("must have either {} or {}", first.0, second.0)));
    }
    let external = kind == MetricKind::External;
    Ok(MetricInput {
        target_utilization_percent: average_utilization.filter(|_| !external),
        target_average_milli: average_milli,
        target_value_milli: value_milli.filter(|_| external),
        ..empty(kind)
    })
}

fn positive_milli(line: u64, field: &str, text: &Text) -> Read<i64> {
    let quantity = Quantity::parse(&text.0).map_err(|error| bad(line, field, error.to_string()))?;
    let milli = quantity.milli().ok_or_else(|| bad(line, field, format!("{:?} is too large", text.0)))?;
    if milli < 1 { Err(bad(line, field, format!("{:?} is not positive", text.0))) } else { Ok(milli) }
}

fn read_rules(direction: &str, rules: &HpaRules) -> Read<RulesInput> {
    let field = |name: &str| format!("spec.behavior.{direction}.{name}");
    let window = rules.stabilization_window_seconds.as_ref();
    if let Some(window) = window.filter(|window| !(0..=LONGEST_WINDOW_S).contains(&window.value)) {
        let what = format!("{} is not in 0..={LONGEST_WINDOW_S}", window.value);
        return Err(bad(line_of(window), field("stabilizationWindowSeconds"), what));
    }
    let tolerance = match &rules.tolerance {
        Some(tolerance) => {
            let (line, field) = (line_of(tolerance), field("tolerance"));
            let quantity = Quantity::parse(&tolerance.value.0).map_err(|error| bad(line, &field, error.to_string()))?;
            if quantity.is_negative() {
                return Err(bad(line, field, "is negative"));
            }
            Some(quantity.to_f64())
        }
        None => None,
    };
    let policies = match &rules.policies {
        Some(policies) if policies.is_empty() => {
            return Err(BadManifest {
                line: None,
                field: field("policies"),
                what: "must have at least one policy".into(),
            });
        }
        Some(policies) => {
            let policy = |(at, policy)| read_policy(&field(&format!("policies[{at}]")), policy);
            Some(policies.iter().enumerate().map(policy).collect::<Read<_>>()?)
        }
        None => None,
    };
    Ok(RulesInput {
        stabilization_window_s: window.map(|window| window.value),
        select_policy: rules.select_policy,
        policies,
        tolerance,
    })
}

fn read_policy(field: &str, policy: &Spanned<HpaPolicy>) -> Read<PolicyInput> {
    let HpaPolicy { kind, value, period_seconds } = policy.value;
    if value < 1 {
        return Err(bad(line_of(policy), format!("{field}.value"), format!("{value} is not positive")));
    }
    if !(1..=LONGEST_PERIOD_S).contains(&period_seconds) {
        let what = format!("{period_seconds} is not in 1..={LONGEST_PERIOD_S}");
        return Err(bad(line_of(policy), format!("{field}.periodSeconds"), what));
    }
    Ok(PolicyInput { kind, value, period_s: period_seconds })
}
