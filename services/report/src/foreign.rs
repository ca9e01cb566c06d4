//! Somebody else's endpoint under load: what a report says of it, and what it leaves out because only our own stack has it.

use serde::Serialize;
use serde_json::Value;

use super::{
    numbers::{count, plain},
    schema::{Report, Step, TargetInfo},
};

/// Figures of a step that only our own stack has, and that would be 0 for any other service.
const OWN_FIGURES: [&str; 6] = [
    "store_timeouts",
    "store_queries_per_request",
    "store_share",
    "bloom_rejections",
    "bloom_rejections_per_request",
    "sources",
];

impl Step {
    /// A figure that only our own stack has; `None` of somebody else's endpoint.
    pub(super) fn own(&self, figure: f64) -> Option<f64> {
        (!self.foreign).then_some(figure)
    }
}

/// The JSON form of a report without the figures that its steps do not have.
///
/// # Errors
/// The report has no JSON form.
pub fn to_json(report: &impl Serialize) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(report)?;
    let steps = value.get_mut("steps").and_then(Value::as_array_mut);
    steps.into_iter().flatten().for_each(leave_out);
    Ok(value)
}

fn leave_out(step: &mut Value) {
    let Some(step) = step.as_object_mut() else { return };
    if step.get("foreign").and_then(Value::as_bool) == Some(true) {
        for name in OWN_FIGURES {
            step.remove(name);
        }
    }
    step.get_mut("discarded").and_then(Value::as_array_mut).into_iter().flatten().for_each(leave_out);
}

/// What was sent to the endpoint, for a reader who has not seen a report before.
pub(super) fn opening(report: &Report, target: &TargetInfo, arrivals: &str) -> String {
    let scenario = &report.scenario;
    let offered: Vec<String> = report.steps.iter().map(|step| count(step.offered_per_s)).collect();
    format!(
        "{} was offered {} requests per second for {} s after {} s of warm-up. Arrivals are {arrivals}. {} Any answer with status 2xx is good. A \
         request unanswered after {} s is an error. {}",
        target.url,
        offered.join(", "),
        plain(scenario.measure_s),
        plain(scenario.warm_up_s),
        ids(target),
        plain(scenario.timeout_ms as f64 / 1000.0),
        machine(target),
    )
}

fn ids(target: &TargetInfo) -> String {
    format!("Ids: {}.", target.ids)
}

/// Whose CPU the report shows.
fn machine(target: &TargetInfo) -> String {
    if target.remote {
        "The endpoint is on another machine: CPU and validity are of the machine of the load generator, and latency includes the network.".into()
    } else {
        "The endpoint is on this machine: it shares the CPU with the load generator.".into()
    }
}

/// The conditions that take the place of law and data.
pub(super) fn conditions(target: &TargetInfo) -> [(String, String); 4] {
    [
        ("Target".into(), target.url.clone()),
        ("Addresses of the target".into(), target.addresses.join(", ")),
        ("Machine of the target".into(), machine(target)),
        ("Ids".into(), target.ids.clone()),
    ]
}
