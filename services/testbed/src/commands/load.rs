//! `testbed load`: sends the steps of a scenario, or a steady load, to the running stack; with `--engine k6` also by k6. `load events` sends
//! events instead, and with `--target` the load is for somebody else's service.

mod events;
mod target;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context, bail};
use api::Profile;
use launcher::Stack;
use loadtest::{
    k6::Pacing,
    plan::{StepOutcome, StepPlan},
    scenario::Scenario,
};
use report::{self, DataInfo, DataSource, Law, Report, ScenarioInfo, Step};

use runtime::telemetry::TelemetryConfig;

use crate::{
    cli::{Engine, LoadArgs, LoadCommand},
    evaluation, exit,
    instruments::machine,
    instruments::measure,
    instruments::recording,
    instruments::target::Target,
    progress::{self, stage},
    reports,
    stack::service::{OTLP, TRACES, flush_cache},
};

pub async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    if let Some(LoadCommand::Events(events)) = &args.command {
        return events::run(events).await;
    }
    if let Some(url) = &args.target.target {
        return target::run(&args, url).await;
    }
    let (scenario, steps) = scenario(&args)?;
    let twin = Twin::of(args.engine, &scenario)?;
    let created = SystemTime::now();
    let up = super::running_stack()?;
    let dir = launcher::orphans::find()?.into_iter().find(|found| found.description.as_ref() == Some(&up));
    // `None` for a stack elsewhere.
    let target = Target::of(dir.map(|found| found.dir).as_deref(), &up)?;
    let known_ids =
        PathBuf::from(up.endpoints.get(super::up::KNOWN_IDS).context("the running stack has no list of user ids")?);
    let profile = target.profile().await?;
    let redis = empties_cache(&scenario, &profile).then(|| up.endpoints.get("redis").cloned()).flatten();
    let proxy = up.endpoints.get("faultproxy").context("the running stack has no faultproxy")?;
    let state = faultproxy::Client::new(proxy)?.state().await?;
    let law = match state.law {
        faultproxy::Law::None => Law::None,
        faultproxy::Law::Linear { base_ms, slope_ms, crosstalk_ms, spread } => {
            Law::Modelled { base_ms, base_ms_scenario: base_ms, overhead_ms: 0.0, slope_ms, crosstalk_ms, spread }
        }
    };

    let metrics = up.endpoints.get(super::up::LOADGEN_METRICS).map(|address| address.parse()).transpose();
    let metrics = metrics.with_context(|| format!("{} of the running stack", super::up::LOADGEN_METRICS))?;
    // The receiver of a native stack accepts no log lines; a collector does.
    let logs = !up.endpoints.contains_key(TRACES);
    let telemetry = up.endpoints.get(OTLP).map(|endpoint| TelemetryConfig { logs, ..TelemetryConfig::to(endpoint) });
    let mut load = Load {
        scenario: &scenario,
        target,
        redis,
        known_ids,
        metrics,
        telemetry,
        profile,
        twin,
        out: args.out.clone(),
    };
    let mut remarks = load.remarks();
    if !state.faults.is_empty() {
        let faults = serde_json::to_string(&state.faults)?;
        remarks.push(format!("Faults of the store were active at the start (./testbed fault show): {faults}."));
    }
    let shown = shown(&scenario, &steps);
    let measured = load.run(steps).await?;
    let ids = std::fs::read_to_string(&load.known_ids).context("cannot read the list of ids")?.lines().count();
    let mut report = Report {
        schema_version: report::SCHEMA_VERSION,
        created: reports::rfc3339(created),
        scenario: shown,
        law,
        machine: machine::read(),
        versions: load.versions(),
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
        profiles: load.profiles(),
        repeats: 1,
        steps: measured,
        knees: Vec::new(),
        sections: Vec::new(),
        waterfalls: Vec::new(),
        verdicts: Vec::new(),
        changed: Vec::new(),
        seed: None,
        manifest: None,
        remarks,
    };
    report.conclude(None);
    publish(&report, &args)
}

/// Writes and prints the report.
fn publish(report: &Report, args: &LoadArgs) -> anyhow::Result<ExitCode> {
    if let Some(out) = &args.out {
        report::write_report(report, out)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report::to_json(report)?)?);
    } else {
        reports::print(report);
    }
    // Nothing is judged here, but figures of an invalid step are no success.
    let valid = report::analysis::all_valid(report, "steps are valid", |_| true);
    if valid.undecided {
        eprintln!("undecided: {} steps are valid; {}", valid.measured, valid.note);
    }
    Ok(exit::judged([&valid]))
}

/// The scenario, and the selected steps with their indices.
fn scenario(args: &LoadArgs) -> anyhow::Result<(Scenario, Vec<(usize, u32)>)> {
    let scenario = match (&args.scenario, args.users, args.lasting) {
        (Some(name), ..) => Scenario::load(name)?,
        (None, Some(users), Some(seconds)) => Scenario::steady(users, seconds)?,
        _ => {
            return Err(exit::usage(
                "load needs a scenario, or --users and --for: ./testbed load --users 200 --for 30s",
            ));
        }
    };
    let all = scenario.steps.iter().copied().enumerate();
    let steps: Vec<_> = all.filter(|(_, users)| args.step.is_none_or(|only| only == *users)).collect();
    if steps.is_empty() {
        bail!(
            "scenario {} has no step of {}; it has {:?}",
            scenario.name,
            scenario.step_in_words(args.step.unwrap_or_default()),
            scenario.steps
        );
    }
    Ok((scenario, steps))
}

/// As in `evaluate`, a baseline step must not find lists of an earlier step in the cache.
fn empties_cache(scenario: &Scenario, profile: &str) -> bool {
    scenario.flush_cache_before_step && profile == Profile::Baseline.to_string()
}

/// The report's scenario: only these steps, each with its share of unknown ids.
fn shown(scenario: &Scenario, steps: &[(usize, u32)]) -> ScenarioInfo {
    ScenarioInfo {
        steps: steps.iter().map(|(_, users)| *users).collect(),
        unknown_share: steps.iter().filter_map(|(n, _)| scenario.unknown_share.get(*n).copied()).collect(),
        ..evaluation::scenario_info(scenario)
    }
}

/// The second load generator, which repeats each step.
struct Twin {
    program: PathBuf,
    pacing: Pacing,
    name: &'static str,
}

impl Twin {
    /// Finds the program before the first step, so that a missing program is reported at once.
    fn of(engine: Engine, scenario: &Scenario) -> anyhow::Result<Option<Self>> {
        let (pacing, name) = match engine {
            Engine::Goose => return Ok(None),
            _ if !scenario.arrivals.is_closed() => {
                bail!("k6 cannot repeat scenario {}, whose arrivals are open: use --engine goose", scenario.name)
            }
            _ if scenario.retry.is_some() => {
                bail!(
                    "k6 cannot send the retries of scenario {}: use --engine goose, or leave out its table [retry]",
                    scenario.name
                )
            }
            _ if scenario.criticality.is_some() => {
                bail!(
                    "k6 cannot send the criticality of scenario {}: use --engine goose, or leave out its table [criticality]",
                    scenario.name
                )
            }
            Engine::K6 => (Pacing::Closed, "k6"),
            Engine::K6Open => (Pacing::Open, "k6-open"),
        };
        Ok(Some(Self { program: measure::k6::program()?, pacing, name }))
    }
}

struct Load<'a> {
    scenario: &'a Scenario,
    target: Target,
    /// Address of the Redis to empty before each step; `None`: it is not emptied.
    redis: Option<String>,
    known_ids: PathBuf,
    metrics: Option<SocketAddr>,
    telemetry: Option<TelemetryConfig>,
    profile: String,
    twin: Option<Twin>,
    out: Option<PathBuf>,
}

impl Load<'_> {
    /// Runs every step with goose and then, if there is a twin, with it.
    async fn run(&mut self, steps: Vec<(usize, u32)>) -> anyhow::Result<Vec<Step>> {
        let mut stack = Stack::create("load")?;
        // The same scheduling policy as the measured stack.
        stack.batch();
        let seconds = u64::from(self.scenario.warm_up_s + self.scenario.measure_s);
        let engines = if self.twin.is_some() { 2 } else { 1 };
        let bar = progress::load_bar(seconds * steps.len() as u64 * engines);
        let mut measured = Vec::new();
        for (done, (n, users)) in steps.into_iter().enumerate() {
            let name = self.scenario.step_in_words(users);
            stage(&bar, &name);
            let base = done as u64 * seconds * engines;
            let plan = StepPlan::of(self.scenario, users, n, &self.known_ids, &self.target.gateway);
            let sample_ratio = recording::sample_ratio(&plan);
            let telemetry = self.telemetry.clone().map(|telemetry| TelemetryConfig { sample_ratio, ..telemetry });
            let plan = StepPlan { metrics: self.metrics, telemetry, ..plan };
            let show = progress::follow(&bar, &name, base);
            let faults = self.scenario.faults_of(n);
            self.empty_cache().await?;
            let (step, outcome) = measure::step(&mut stack, &self.target, &plan, faults, show).await?;
            let mut hdr_log = None;
            if let Some(out) = &self.out {
                hdr_log = Some(write_log(out, &self.profile, &outcome)?);
            }
            measured.push(Step { profile: self.profile.clone(), hdr_log, ..step });
            if let Some(twin) = &self.twin {
                stage(&bar, &format!("{name}, {}", twin.name));
                self.empty_cache().await?;
                let step = measure::k6::step(&mut stack, &self.target, &twin.program, &plan, twin.pacing).await?;
                measured.push(Step { profile: format!("{} {}", self.profile, twin.name), ..step });
                bar.set_position(base + 2 * seconds);
            }
        }
        bar.finish_and_clear();
        stack.stop().await?;
        Ok(measured)
    }

    async fn empty_cache(&self) -> anyhow::Result<()> {
        match &self.redis {
            Some(redis) => flush_cache(redis).await,
            None => Ok(()),
        }
    }

    fn profiles(&self) -> Vec<String> {
        let twin = self.twin.as_ref().map(|twin| format!("{} {}", self.profile, twin.name));
        std::iter::once(self.profile.clone()).chain(twin).collect()
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let twin = self.twin.as_ref().map(|twin| ("k6".to_owned(), measure::k6::version(&twin.program)));
        machine::own_versions().into_iter().chain(twin).collect()
    }

    fn remarks(&self) -> Vec<String> {
        let cache = if self.redis.is_some() {
            "its cache was emptied before each step"
        } else {
            "the content of its cache at the start is unknown"
        };
        let mut remarks = vec![format!("Measured on a stack that was already running: {cache}.")];
        if let Some(twin) = &self.twin {
            let finds = if self.redis.is_some() {
                ""
            } else {
                ": it finds lists in the cache that goose's requests had written"
            };
            remarks.push(format!(
                "{} ran each step right after goose{finds}. Its clock has whole milliseconds. Planned faults were not repeated for it.",
                twin.name
            ));
        }
        remarks
    }
}

/// Writes the histograms of a step and returns the name of the file.
fn write_log(out: &Path, profile: &str, outcome: &StepOutcome) -> anyhow::Result<String> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot write to {}", out.display()))?;
    let file = format!("{profile}-{}-1.hlog", outcome.users);
    loadtest::plan::write_hdr_log(&out.join(&file), outcome)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_alone_keeps_its_share_of_unknown_ids() {
        let args = |step| LoadArgs {
            command: None,
            scenario: Some("penetration".into()),
            users: None,
            lasting: None,
            step,
            engine: Engine::Goose,
            target: crate::cli::TargetArgs::default(),
            out: None,
            json: false,
        };
        let (scenario, steps) = super::scenario(&args(Some(1600))).unwrap();
        assert_eq!(steps, [(3, 1600)]);
        let shown = shown(&scenario, &steps);
        assert_eq!((shown.steps, shown.unknown_share), (vec![1600], vec![0.75]));
        assert_eq!(StepPlan::of(&scenario, 1600, 3, "ids".as_ref(), "http://127.0.0.1:1").unknown_share, 0.75);
        let (scenario, steps) = super::scenario(&args(None)).unwrap();
        assert_eq!(super::shown(&scenario, &steps), evaluation::scenario_info(&scenario));
        assert!(super::scenario(&args(Some(7))).is_err());
    }
}
