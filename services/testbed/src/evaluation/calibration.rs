//! The calibration of the law: the latency of the real stack without it.

use std::path::Path;

use anyhow::ensure;
use api::Profile;
use loadtest::plan::StepPlan;
use report::Law as LawInfo;

use super::{Bar, Plan, attempts::not_calibrated, conditions::base_in_force, target};
use crate::{instruments::measure, stack::service::ServiceStack};

/// The law that makes the whole stack as slow as the scenario asks: its base less the real stack's own latency, measured without any
/// law at the lowest step. The real store's time is not subtracted, as the law includes it. Also answers a remark if the measurement
/// of a quick run was not valid.
///
/// # Errors
/// No measurement was valid, and the run is to be judged: an unknown law has no figures worth a verdict.
pub async fn calibrate(
    plan: &Plan,
    bar: &Bar,
    service: &mut ServiceStack,
    law: faultproxy::Law,
    known_ids: &Path,
) -> anyhow::Result<(LawInfo, Option<String>)> {
    let faultproxy::Law::Linear { base_ms: scenario_base, slope_ms, crosstalk_ms, spread } = law else {
        return Ok((LawInfo::None, None));
    };
    bar.stage("calibrating: the latency of the real stack without the law");
    service.start_replicas(Profile::Baseline, &[]).await?;
    let target = target(service)?;
    let scenario = &plan.scenario;
    let users = scenario.steps.iter().copied().min().unwrap_or(1);
    let mut step_plan = StepPlan {
        seed: statistics::seed::of_step(plan.seed, 0, 0),
        ..StepPlan::of(scenario, users, 0, known_ids, &target.gateway)
    };
    (step_plan.warm_up_ms, step_plan.measure_ms) = if plan.quick { (3_000, 5_000) } else { (5_000, 15_000) };
    step_plan.retry = None;
    // A curve may be shorter than the calibration.
    step_plan.arrivals = step_plan.arrivals.at_constant_rate();
    let mut attempts = 0;
    let step = loop {
        // The ids are the same each time.
        service.flush_cache().await?;
        let (step, _) = measure::step(service, &target, &step_plan, Vec::new(), |_| ()).await?;
        attempts += 1;
        if step.valid || attempts >= plan.calibration_attempts {
            break step;
        }
    };
    service.stop_replicas().await?;
    let reasons = step.invalid_reasons.join("; ");
    ensure!(step.valid || plan.quick, not_calibrated(attempts, &reasons));
    ensure!(step.error_pct < 1.0, "the stack answers with errors even without a law: {:?}", step.errors);
    let store_ms = step.store_upstream_mean_ms.unwrap_or(0.0) * step.store_queries_per_request;
    let overhead_ms = ((step.mean_ms - store_ms).max(0.0) * 10.0).round() / 10.0;
    let base_ms = base_in_force(scenario_base, overhead_ms)?;
    let doubt = (!step.valid).then(|| {
        format!(
            "The stack's own latency was measured {attempts} time(s), and the last measurement was not valid ({reasons}): {overhead_ms} ms \
             may be too high, and the law's base too low by the difference."
        )
    });
    let law =
        LawInfo::Modelled { base_ms, base_ms_scenario: scenario_base, overhead_ms, slope_ms, crosstalk_ms, spread };
    Ok((law, doubt))
}
