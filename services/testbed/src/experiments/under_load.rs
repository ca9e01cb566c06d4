//! What experiments with steps of load share: their arguments, and the plan of their evaluation.

use std::time::SystemTime;

use clap::Args;
use loadtest::scenario::Scenario;

use super::publish::RunArgs;
use crate::{
    data,
    evaluation::{self, CALIBRATION_ATTEMPTS, Plan, Variant},
    reports,
};

#[derive(Args)]
pub struct LoadArgs {
    /// Rounds; the variants take turns within each
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    #[command(flatten)]
    pub run: RunArgs,
}

/// The built-in scenario, with short steps if `quick`.
///
/// # Errors
/// There is no such scenario.
pub fn scenario(name: &str, quick: bool) -> anyhow::Result<Scenario> {
    let mut scenario = Scenario::load(name)?;
    if quick {
        evaluation::shorten(&mut scenario);
    }
    Ok(scenario)
}

/// `sets`: settings of all replicas.
pub fn plan(scenario: Scenario, variants: Vec<Variant>, args: &LoadArgs, sets: &[&str], begun: SystemTime) -> Plan {
    Plan {
        command: "experiment",
        out: args.run.out.clone().unwrap_or_else(|| reports::default_out(begun, &scenario.name)),
        scenario,
        variants,
        // A repeated id costs as much as a new one here, so a small data set suffices.
        source: data::Source::Generator(evaluation::QUICK_USERS),
        quick: args.run.quick,
        repeat: args.repeat,
        seed: loadtest::plan::DEFAULT_RUN_SEED,
        attempts: 1,
        calibration_attempts: if args.run.quick { 1 } else { CALIBRATION_ATTEMPTS },
        instances: 1,
        batch: true,
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        soak: false,
        traces: false,
        after_steps_s: 0,
        created: begun,
    }
}

/// The parts that are not empty, as one note of a verdict.
pub fn note(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.join("; ")
}

/// For the note of a verdict in a quick run.
pub const QUICK: &str = "quick run, not judged";

#[cfg(test)]
pub mod sample {
    use report::{DataInfo, DataSource, Law, Machine, Report, Revision, ScenarioInfo, Step};

    /// Made-up steps of 1000 to 5000 users that answer every request, with a growing share of unknown ids.
    pub fn report(profiles: &[&str]) -> Report {
        let users = [1000, 2000, 3000, 4000, 5000];
        let step = |profile: &str, users: u32| {
            let rate = f64::from(users);
            Step {
                profile: profile.to_owned(),
                users,
                repeat: 1,
                valid: true,
                offered_per_s: rate,
                answered_per_s: rate,
                good_per_s: rate,
                known_good_per_s: Some(rate / 2.0),
                ..Step::default()
            }
        };
        Report {
            schema_version: report::SCHEMA_VERSION,
            created: "2026-11-02T09:30:00Z".into(),
            scenario: ScenarioInfo {
                name: "sample".into(),
                description: "made up".into(),
                steps: users.to_vec(),
                warm_up_s: 1.0,
                measure_s: 1.0,
                interval_ms: 1000,
                arrival_grid_ms: 0,
                timeout_ms: 3000,
                unknown_share: vec![0.0, 0.2, 0.5, 0.75, 0.9],
                known: "once".into(),
                arrivals: String::new(),
                retries: String::new(),
                target: None,
            },
            law: Law::None,
            machine: Machine::default(),
            versions: [].into(),
            revision: Revision::default(),
            data: DataInfo {
                source: DataSource::Generator,
                name: "seed 1".into(),
                users: 1,
                items: 1,
                events: 1,
                bad_rows: 0,
            },
            model_version: 1,
            quick: false,
            profiles: profiles.iter().map(|&name| name.to_owned()).collect(),
            repeats: 1,
            steps: profiles.iter().flat_map(|profile| users.map(|users| step(profile, users))).collect(),
            knees: Vec::new(),
            verdicts: Vec::new(),
            sections: Vec::new(),
            waterfalls: Vec::new(),
            changed: Vec::new(),
            seed: None,
            manifest: None,
            remarks: Vec::new(),
        }
    }
}
