//! What a report says of the load and the stack of an evaluation. Pure.

use loadtest::{retry::Retry, scenario::Scenario};
use report::ScenarioInfo;

use super::Plan;
use crate::stack::service::ServiceStack;

/// What a reader must know of the stack.
pub fn remarks(plan: &Plan, service: &ServiceStack) -> Vec<String> {
    let policy = service.stack.policy();
    let mut remarks = vec![format!(
        "Load generator, nginx, {} api replicas, Redis, faultproxy and {} MySQL server(s) share this machine, all under {}{}. The load \
         generator stands for machines of its own and runs at nice -10 where that is permitted. Behind nginx all use Unix sockets. MySQL \
         neither waits for the disk nor writes its log at a commit (innodb_flush_log_at_trx_commit=0); no figure here depends on that, as \
         the steps only read. Other stacks of the testbed write the log at each commit (1).",
        plan.scenario.replicas,
        service.servers.len(),
        policy,
        if policy == "SCHED_BATCH" { " (a process that wakes up does not interrupt a running one)" } else { "" },
    )];
    if !plan.sets.is_empty() {
        remarks.push(format!("Settings changed in every replica: {}.", plan.sets.join(", ")));
    }
    remarks
}

/// The load as the report shows it.
pub fn scenario_info(scenario: &Scenario) -> ScenarioInfo {
    ScenarioInfo {
        name: scenario.name.clone(),
        description: scenario.description.clone(),
        steps: scenario.steps.clone(),
        warm_up_s: f64::from(scenario.warm_up_s),
        measure_s: f64::from(scenario.measure_s),
        interval_ms: scenario.interval_ms,
        arrival_grid_ms: scenario.arrival_grid_ms,
        timeout_ms: scenario.timeout_ms,
        unknown_share: scenario.unknown_share.clone(),
        known: scenario.known.describe(),
        arrivals: scenario.arrivals.describe(),
        retries: scenario.retry.as_ref().map(Retry::describe).unwrap_or_default(),
        target: None,
    }
}
