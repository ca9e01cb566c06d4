//! `testbed evaluate`: runs the profiles of a scenario and compares them with the article and the model; `--soak` runs one step for
//! hours.

use std::{path::Path, process::ExitCode, time::SystemTime};

use anyhow::{Context, bail};
use api::Profile;
use clap::Parser;
use loadtest::scenario::{Law, Scenario};
use report::{
    Document, Report,
    analysis::{all_valid, not_judged_because},
    soak,
};

use crate::{
    cli::{Cli, Command, EvaluateArgs, SchedulingPolicy},
    data,
    evaluation::{
        self, CALIBRATION_ATTEMPTS, Plan, Recorded, Variant,
        fitted::Fitted,
        journal::{self, Header, Journal, Past},
        manifest, resume,
    },
    exit, reports,
};

/// On a virtual machine, a step may be invalid in one minute and valid in the next: the load of other machines on its host changes.
const ATTEMPTS: u32 = 3;
/// Name of the stack.
const STACK: &str = "evaluate";

pub async fn run(args: EvaluateArgs) -> anyhow::Result<ExitCode> {
    let json = args.json;
    match args.resume.clone() {
        Some(dir) => resume(&dir, json).await,
        None => begin(args, None).await,
    }
}

/// Goes on with a run from its directory.
async fn resume(dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let past = Past::read(dir)?;
    if let Some(Document::Evaluation(report)) = past.report(dir) {
        eprintln!("The run in {} is complete; ./testbed report {0} shows it.", dir.display());
        return Ok(exit::judged(&report.verdicts));
    }
    if past.truncated {
        eprintln!("{}: the last line was not written to its end and is left out", dir.join(journal::FILE).display());
    }
    let words = ["testbed".to_owned()].into_iter().chain(resume::words(&past.header.manifest)?.iter().cloned());
    let Ok(Cli { command: Command::Evaluate(args) }) = Cli::try_parse_from(words) else {
        bail!("the first line of {} has no words of ./testbed evaluate", dir.join(journal::FILE).display());
    };
    begin(EvaluateArgs { out: Some(dir.to_owned()), json, ..*args }, Some(past)).await
}

async fn begin(args: EvaluateArgs, past: Option<Past>) -> anyhow::Result<ExitCode> {
    let mut scenario = scenario(&args)?;
    let mut variants =
        if args.soak.is_some() { vec![Variant::plain(Profile::Protected)] } else { variants(&args, &scenario)? };
    let fitted = fitted(&args, &scenario, &variants);
    variants.extend(fitted.iter().flat_map(Fitted::variants));
    let source = match &args.data {
        Some(file) => data::Source::File(file.clone()),
        None => data::Source::Generator(args.users.unwrap_or(if args.quick {
            evaluation::QUICK_USERS
        } else {
            evaluation::USERS
        })),
    };
    // The scenario's tolerances are for steps of a minute.
    scenario.tolerances = scenario.tolerances.filter(|_| args.soak.is_none());
    let tolerances = scenario.tolerances.clone();
    // Without a law the steps measure the machine's own limit, and a second attempt would give the same result.
    let once = args.quick || args.soak.is_some() || matches!(scenario.law, Law::None);
    let created = match &past {
        Some(past) => humantime::parse_rfc3339(&past.header.created).context("the begin of the run is no time")?,
        None => SystemTime::now(),
    };
    let plan = Plan {
        command: STACK,
        out: args.out.unwrap_or_else(|| reports::default_out(created, &scenario.name)),
        scenario,
        variants,
        source,
        quick: args.quick,
        repeat: args.repeat,
        seed: args.seed,
        attempts: args.attempts.unwrap_or(if once { 1 } else { ATTEMPTS }),
        calibration_attempts: args.attempts.unwrap_or(if args.quick { 1 } else { CALIBRATION_ATTEMPTS }),
        instances: args.instances,
        batch: args.scheduling == SchedulingPolicy::Batch,
        sets: args.sets,
        soak: args.soak.is_some(),
        after_steps_s: 0,
        traces: args.soak.is_none(),
        created,
    };
    let mut report = measured(&plan, past).await?;
    report.conclude(tolerances.as_ref());
    if report.verdicts.is_empty() && not_judged_because(&report).is_none() {
        // No tolerances: the steps are shown, and those that are not valid are no success.
        report.verdicts.push(all_valid(&report, "Steps are valid", |_| true));
    }
    if let Some(fitted) = &fitted {
        fitted.conclude(&mut report);
    }
    let soak = soak::of(&report.sections);
    report.verdicts.extend(soak.map(|soak| soak::verdict(&soak, &report.steps)));
    publish(&report, &plan.out, args.json)
}

/// Runs the plan, or what is missing of it. A soak is one step, so there is nothing to go on with.
async fn measured(plan: &Plan, past: Option<Past>) -> anyhow::Result<Report> {
    if plan.soak {
        return evaluation::run(plan).await;
    }
    evaluation::check_settings(plan)?;
    let manifest = manifest::of(plan)?;
    let Some(mut past) = past else {
        std::fs::create_dir_all(&plan.out).with_context(|| format!("cannot write to {}", plan.out.display()))?;
        let (schema_version, created) = (report::SCHEMA_VERSION, reports::rfc3339(plan.created));
        let header = Header { schema_version, created, manifest: manifest.clone() };
        let journal = Journal::create(&plan.out, &header)?;
        let recorded = Recorded { journal, manifest, begun: None, finished: Vec::new() };
        return evaluation::run_recorded(plan, recorded).await;
    };
    resume::same_run(&past.header.manifest, &manifest)?;
    let resumed = resume::go_on(plan, &mut past, SystemTime::now())?;
    let journal = Journal::resume(&plan.out, &past, &resumed)?;
    resume::remove_leftovers(STACK)?;
    let all = [past.resumed, vec![resumed]].concat();
    let recorded = Recorded { journal, manifest: past.header.manifest, begun: past.begun, finished: past.finished };
    let mut report = evaluation::run_recorded(plan, recorded).await?;
    resume::remark(&mut report, &all);
    Ok(report)
}

/// Writes the report and prints it; the exit code follows from its verdicts.
fn publish(report: &Report, out: &Path, json: bool) -> anyhow::Result<ExitCode> {
    report::write_report(report, out)?;
    if json {
        println!("{}", std::fs::read_to_string(out.join("report.json"))?);
    } else {
        reports::print(report);
        println!("\nReport: {}", out.join("report.html").display());
    }
    Ok(exit::judged(&report.verdicts))
}

/// Fit, prediction and sensitivity speak of the scenario as it is: with its law, its settings and the profile that the article describes.
fn fitted(args: &EvaluateArgs, scenario: &Scenario, variants: &[Variant]) -> Option<Fitted> {
    let unchanged = args.soak.is_none()
        && !args.ablation
        && args.sets.is_empty()
        && args.instances == 1
        && args.scheduling == SchedulingPolicy::Batch;
    let applies = unchanged && !scenario.article.is_empty() && variants.contains(&Variant::plain(Profile::Baseline));
    // A quick run is not judged, so it does not measure the prediction.
    applies.then(|| Fitted::of(scenario, !args.quick, args.sensitivity))
}

fn scenario(args: &EvaluateArgs) -> anyhow::Result<Scenario> {
    let mut scenario = Scenario::load(&args.scenario)?;
    if args.quick {
        evaluation::shorten(&mut scenario);
    }
    if let Some(law) = args.law {
        law.apply(&mut scenario)?;
    }
    if let Some(length) = args.soak {
        soak(&mut scenario, length.as_secs() as u32);
    }
    Ok(scenario)
}

/// Keeps only the lowest step: with a moderate load, growth is not caused by a queue.
fn soak(scenario: &mut Scenario, seconds: u32) {
    let lowest = scenario.steps.iter().enumerate().min_by_key(|(_, users)| **users).map(|(n, users)| (n, *users));
    if let Some((n, users)) = lowest {
        scenario.steps = vec![users];
        scenario.unknown_share = scenario.unknown_share.get(n).copied().into_iter().collect();
        scenario.faults.retain(|fault| fault.step.is_none_or(|of| of == n));
        scenario.faults.iter_mut().for_each(|fault| fault.step = None);
    }
    scenario.measure_s = seconds;
}

fn variants(args: &EvaluateArgs, scenario: &Scenario) -> anyhow::Result<Vec<Variant>> {
    if args.ablation {
        let without = |guard: &str| Variant {
            name: format!("protected -{guard}"),
            profile: Profile::Protected,
            sets: vec![format!("guards.{guard}=off")],
            scenario: None,
        };
        return Ok(std::iter::once(Variant::plain(Profile::Protected)).chain(Profile::GUARDS.map(without)).collect());
    }
    if !args.profiles.is_empty() {
        return Ok(args.profiles.iter().copied().map(Variant::plain).collect());
    }
    let profiles = scenario.profiles.iter().map(|name| name.parse().map(Variant::plain).map_err(anyhow::Error::msg));
    profiles.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soak_is_the_lowest_step_for_long() {
        let mut scenario = Scenario::load("penetration").unwrap();
        scenario.steps.reverse();
        scenario.unknown_share.reverse();
        soak(&mut scenario, 7200);
        assert_eq!((scenario.steps, scenario.unknown_share, scenario.measure_s), (vec![400], vec![0.0], 7200));
    }
}
