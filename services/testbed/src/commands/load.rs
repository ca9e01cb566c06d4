//! `testbed load`: a scenario's steps against the stack that `up` started.

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::{Context, bail};
use launcher::Stack;
use loadtest::{
    plan::Phase,
    report::{self, DataInfo, DataSource, Law, Report, Step},
    scenario::Scenario,
};

use crate::{
    cli::LoadArgs,
    evaluation, machine,
    measure::{self, Target},
    progress::{self, stage},
};

pub async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let mut scenario = Scenario::load(&args.scenario)?;
    let steps: Vec<(usize, u32)> = scenario.steps.iter().copied().enumerate().collect();
    let steps: Vec<_> = steps.into_iter().filter(|(_, users)| args.step.is_none_or(|only| only == *users)).collect();
    if steps.is_empty() {
        bail!(
            "scenario {} has no step of {} users; it has {:?}",
            scenario.name,
            args.step.unwrap_or_default(),
            scenario.steps
        );
    }
    scenario.steps = steps.iter().map(|(_, users)| *users).collect();
    let created = SystemTime::now();
    let up = super::running_stack()?;
    let dir = launcher::orphans::find()?.into_iter().find(|found| found.description.as_ref() == Some(&up));
    let dir = dir.context("the running stack has just ended")?.dir;
    let target = Target::of(&dir, &up)?;
    let known_ids =
        PathBuf::from(up.endpoints.get(super::up::KNOWN_IDS).context("the running stack has no list of ids")?);
    let profile = up.endpoints.get("profile").cloned().unwrap_or_default();
    let proxy = up.endpoints.get("faultproxy").context("the running stack has no faultproxy")?;
    let law = match faultproxy::Client::new(proxy)?.state().await?.law {
        faultproxy::Law::None => Law::None,
        faultproxy::Law::Linear { base_ms, slope_ms, spread } => {
            Law::Modelled { base_ms, base_ms_scenario: base_ms, overhead_ms: 0.0, slope_ms, spread }
        }
    };

    let mut stack = Stack::create("load")?;
    let seconds = u64::from(scenario.warm_up_s + scenario.measure_s);
    let bar = progress::bar(seconds * steps.len() as u64, "starting");
    let mut measured = Vec::new();
    for (done, (n, users)) in steps.into_iter().enumerate() {
        stage(&bar, &format!("{users} users"));
        let plan = evaluation::step_plan(&scenario, users, n, &known_ids, &target.gateway);
        let show = |now: &loadtest::plan::Progress| {
            bar.set_position(done as u64 * seconds + u64::from(now.elapsed_s));
            let what = if now.phase == Phase::WarmUp { "warm-up" } else { "measuring" };
            bar.set_message(format!("{users} users: {what}, {}/s good", now.good));
        };
        let (step, outcome) = measure::step(&mut stack, &target, &plan, scenario.faults_of(n), show).await?;
        let mut hdr_log = None;
        if let Some(out) = &args.out {
            std::fs::create_dir_all(out).with_context(|| format!("cannot write to {}", out.display()))?;
            let name = format!("{profile}-{users}-1.hlog");
            loadtest::plan::write_hdr_log(&out.join(&name), &outcome)?;
            hdr_log = Some(name);
        }
        measured.push(Step { profile: profile.clone(), hdr_log, ..step });
    }
    bar.finish_and_clear();
    stack.stop().await?;
    let ids = std::fs::read_to_string(&known_ids).context("cannot read the list of ids")?.lines().count();
    let mut report = Report {
        schema_version: report::SCHEMA_VERSION,
        created: evaluation::rfc3339(created),
        scenario: evaluation::scenario_info(&scenario),
        law,
        machine: machine::read(),
        versions: std::collections::BTreeMap::from([("testbed".into(), env!("CARGO_PKG_VERSION").into())]),
        revision: machine::revision(),
        data: DataInfo {
            source: DataSource::File,
            name: "of the running stack".into(),
            users: ids as u64,
            items: 0,
            events: 0,
            bad_rows: 0,
        },
        model_version: 0,
        quick: false,
        profiles: vec![profile],
        repeats: 1,
        steps: measured,
        knees: Vec::new(),
        recoveries: Vec::new(),
        soak: None,
        verdicts: Vec::new(),
        remarks: vec![
            "Measured on a stack that was running before: what its cache held at the start is not known.".into(),
        ],
    };
    report.conclude(None);
    if let Some(out) = &args.out {
        report::write_all(&report, out)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        super::report::print(&report);
    }
    Ok(ExitCode::SUCCESS)
}
