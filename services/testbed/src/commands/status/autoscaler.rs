//! The autoscaler of a stack, by its metrics.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    autoscale::AUTOSCALER,
    commands::up::{HURRY, QUOTA},
    instruments::scrape::Reading,
};

const TIMEOUT: Duration = Duration::from_millis(800);

#[derive(Debug, Serialize)]
pub struct Autoscaler {
    /// How the CPU quotas of the replicas hold: `kernel (…)` or `modelled (…)`.
    pub quota: Option<String>,
    /// How many times as fast as this machine's clock its clock runs.
    pub hurry: Option<u32>,
    /// `None`: its admin port does not respond.
    pub replicas: Option<Replicas>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Replicas {
    pub min: u64,
    pub max: u64,
    /// What the last decision wants.
    pub desired: u64,
    pub ready: u64,
    pub starting: u64,
    pub leaving: u64,
    /// Mean used share of the CPU request at the last decision, and the share that is aimed at; 1 is all of it.
    pub utilization: f64,
    pub target: f64,
    /// Decisions so far that changed the count.
    pub scaled_up: u64,
    pub scaled_down: u64,
    /// Condition → reason, at the last decision.
    pub conditions: BTreeMap<String, String>,
}

/// `None`: the stack has no autoscaler.
///
/// # Errors
/// The HTTP client cannot be built.
pub async fn read(endpoints: &BTreeMap<String, String>) -> anyhow::Result<Option<Autoscaler>> {
    let Some(address) = endpoints.get(AUTOSCALER) else { return Ok(None) };
    let http = runtime::http::plain().timeout(TIMEOUT).build()?;
    let page = async {
        let answer = http.get(format!("{address}/metrics")).send().await?.error_for_status()?;
        answer.text().await
    };
    Ok(Some(Autoscaler {
        quota: endpoints.get(QUOTA).cloned(),
        hurry: endpoints.get(HURRY).and_then(|hurry| hurry.parse().ok()),
        replicas: page.await.ok().map(|page| of_page(&page)),
    }))
}

fn of_page(page: &str) -> Replicas {
    let reading = Reading::of([page]);
    let count = |what: &str| reading.sum(&format!("autoscaler_{what}_replicas"), &[]) as u64;
    let decisions =
        |direction: &str| reading.sum("autoscaler_decisions_total", &[&format!("direction=\"{direction}\"")]) as u64;
    let conditions = reading.labels("autoscaler_condition", "condition").into_iter().filter_map(|condition| {
        let of_it = format!("condition=\"{condition}\"");
        let mut reasons = reading.labels("autoscaler_condition", "reason").into_iter();
        let reason = reasons
            .find(|reason| reading.sum("autoscaler_condition", &[&of_it, &format!("reason=\"{reason}\"")]) == 1.0)?;
        Some((condition, reason))
    });
    Replicas {
        min: count("min"),
        max: count("max"),
        desired: count("desired"),
        ready: count("ready"),
        starting: count("starting"),
        leaving: count("leaving"),
        utilization: reading.sum("autoscaler_cpu_utilization_ratio", &[]),
        target: reading.sum("autoscaler_target_utilization_ratio", &[]),
        scaled_up: decisions("up"),
        scaled_down: decisions("down"),
        conditions: conditions.collect(),
    }
}

/// For a terminal.
pub fn table(seen: &Autoscaler) -> String {
    let quota = seen.quota.as_deref().unwrap_or("unknown");
    let hurry = match seen.hurry {
        Some(hurry) if hurry > 1 => format!(", windows and periods divided by {hurry}"),
        _ => String::new(),
    };
    let head = format!("autoscaler\n  {:<14} {quota}{hurry}\n", "CPU quota");
    let Some(replicas) = &seen.replicas else { return head + "  does not respond\n" };
    let Replicas { min, max, desired, ready, starting, leaving, utilization, target, scaled_up, scaled_down, .. } =
        replicas;
    let reasons: Vec<&str> = replicas.conditions.values().map(String::as_str).collect();
    let last = if reasons.is_empty() { "none yet".to_owned() } else { reasons.join(", ") };
    let lines = [
        (
            "replicas",
            format!("{desired} desired of {min} to {max}: {ready} ready, {starting} starting, {leaving} leaving"),
        ),
        ("CPU", format!("{:.0} % of the request used, {:.0} % aimed at", 100.0 * utilization, 100.0 * target)),
        ("decisions", format!("{scaled_up} up, {scaled_down} down; the last: {last}")),
    ];
    head + &lines.iter().map(|(name, text)| format!("  {name:<14} {text}\n")).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"
autoscaler_desired_replicas 12
autoscaler_ready_replicas 8
autoscaler_starting_replicas 4
autoscaler_leaving_replicas 0
autoscaler_min_replicas 8
autoscaler_max_replicas 20
autoscaler_cpu_utilization_ratio 1.04
autoscaler_target_utilization_ratio 0.7
autoscaler_decisions_total{direction="down"} 0
autoscaler_decisions_total{direction="none"} 9
autoscaler_decisions_total{direction="up"} 1
autoscaler_condition{condition="AbleToScale",reason="ReadyForNewScale"} 0
autoscaler_condition{condition="AbleToScale",reason="SucceededRescale"} 1
autoscaler_condition{condition="ScalingLimited",reason="DesiredWithinRange"} 1
"#;

    #[test]
    fn the_page_of_metrics_is_understood() {
        let replicas = of_page(PAGE);
        assert_eq!((replicas.desired, replicas.ready, replicas.starting, replicas.leaving), (12, 8, 4, 0));
        assert_eq!((replicas.min, replicas.max, replicas.scaled_up, replicas.scaled_down), (8, 20, 1, 0));
        let conditions: Vec<_> = replicas.conditions.iter().map(|(kind, reason)| format!("{kind}/{reason}")).collect();
        assert_eq!(conditions, ["AbleToScale/SucceededRescale", "ScalingLimited/DesiredWithinRange"]);
        let seen = |replicas| Autoscaler { quota: Some("modelled (chosen)".into()), hurry: Some(60), replicas };
        let text = table(&seen(Some(replicas)));
        for part in
            ["modelled (chosen), windows and periods divided by 60", "12 desired of 8 to 20: 8 ready", "104 %", "1 up"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(text.contains("the last: SucceededRescale, DesiredWithinRange"), "{text}");
        assert!(table(&seen(None)).contains("does not respond"));
    }
}
