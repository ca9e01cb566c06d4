//! What a run is made of, for its report and for `--resume`.

use std::{collections::BTreeMap, fs::File, path::Path};

use anyhow::Context;
use loadtest::plan::StepPlan;
use report::Manifest;
use serde_json::{Value, json, to_value};

use super::{Plan, all_sets, service_plan};
use crate::{data, stack::service};

/// Reads the program's file, and the data's if there is one.
///
/// # Errors
/// A setting is refused, or a file cannot be read.
pub fn of(plan: &Plan) -> anyhow::Result<Manifest> {
    let mut scenario = to_value(&plan.scenario)?;
    scenario["article"] = to_value(&plan.scenario.article)?;
    let data = match &plan.source {
        data::Source::File(path) => {
            json!({ "file": path.file_name().map(|name| name.to_string_lossy()), "blake3": hash(path)? })
        }
        data::Source::Generator(users) => json!({ "generated_users": users }),
    };
    let variants = plan.variants.iter().map(|variant| {
        let scenario = variant.scenario.as_deref().map(to_value).transpose()?;
        Ok(json!({
            "name": variant.name,
            "profile": variant.profile.to_string(),
            "sets": variant.sets,
            "scenario": scenario,
        }))
    });
    let run = json!({
        "data": data,
        "variants": variants.collect::<anyhow::Result<Vec<Value>>>()?,
        "quick": plan.quick,
        "repeat": plan.repeat,
        "attempts": plan.attempts,
        "calibration_attempts": plan.calibration_attempts,
        "instances": plan.instances,
        "batch": plan.batch,
        "sets": plan.sets,
        "traces": plan.traces,
        "soak": plan.soak,
    });
    let manifest = Manifest {
        argv: std::env::args().skip(1).collect(),
        seed: plan.seed,
        binary_blake3: own_binary()?,
        scenario,
        tolerances: plan.scenario.tolerances.clone(),
        run,
        processes: processes(plan)?,
    };
    Ok(manifest.redacted())
}

/// BLAKE3 of the program that runs.
///
/// # Errors
/// It cannot be read.
pub fn own_binary() -> anyhow::Result<String> {
    hash(Path::new("/proc/self/exe"))
}

/// The servers' versions are in the report.
fn processes(plan: &Plan) -> anyhow::Result<BTreeMap<String, Value>> {
    let stack = service_plan(plan);
    let mut processes = service::server_settings(&stack);
    for variant in &plan.variants {
        let settings = stack.settings(variant.profile, &all_sets(plan, variant))?;
        processes.insert(format!("api {}", variant.name), to_value(settings)?);
        let scenario = variant.scenario(plan);
        let law = service::law(scenario.law);
        let max_connections = faultproxy::DEFAULT_MAX_CONNECTIONS;
        let proxy = json!({ "law_before_calibration": to_value(law)?, "max_connections": max_connections });
        processes.insert(format!("faultproxy {}", variant.name), proxy);
        let steps =
            scenario.steps.iter().enumerate().map(|(n, &users)| step_plan(plan, variant.scenario(plan), n, users));
        processes.insert(format!("load {}", variant.name), Value::Array(steps.collect::<anyhow::Result<_>>()?));
    }
    Ok(processes)
}

/// As the load generator gets it in the first repeat, without addresses and paths.
fn step_plan(plan: &Plan, scenario: &loadtest::Scenario, n: usize, users: u32) -> anyhow::Result<Value> {
    let seed = statistics::seed::of_step(plan.seed, 1, n);
    let step = StepPlan { seed, ..StepPlan::of(scenario, users, n, Path::new(""), "") };
    let mut step = to_value(step)?;
    if let Some(fields) = step.as_object_mut() {
        fields.retain(|name, _| name != "base_url" && name != "known_ids");
    }
    Ok(step)
}

fn hash(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).with_context(cannot)?;
    Ok(hasher.finalize().to_hex().to_string())
}
