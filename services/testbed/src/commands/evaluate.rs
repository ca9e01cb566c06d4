//! `testbed evaluate`: plan → servers → data → calibrate → each profile, each step → report.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context, ensure};
use api::Profile;
use indicatif::ProgressBar;
use loadtest::{
    model,
    plan::{Phase, StepPlan},
    report::{self, DataInfo, DataSource, Law as LawInfo, Report, ScenarioInfo, Step},
    scenario::{Known, Law, Scenario},
};

use crate::{
    cli::{EvaluateArgs, LawChoice},
    cluster::{Cluster, Plan},
    data, machine,
    measure::{self, Target},
    progress::{self, stage},
};

/// A profile with some of its settings changed, under a name for the report.
struct Variant {
    name: String,
    profile: Profile,
    sets: Vec<String>,
}

const QUICK_WARM_UP_S: u32 = 3;
const QUICK_MEASURE_S: u32 = 10;
const USERS: u32 = 200_000;
/// Enough for the ids of one quick step: 5000/s × 13 s, half of them known.
const QUICK_USERS: u32 = 60_000;

pub async fn run(args: EvaluateArgs) -> anyhow::Result<ExitCode> {
    let scenario = scenario(&args)?;
    let variants = variants(&args, &scenario)?;
    let source = match &args.data {
        Some(file) => data::Source::File(file.clone()),
        None => data::Source::Generator(args.users.unwrap_or(if args.quick { QUICK_USERS } else { USERS })),
    };
    let created = SystemTime::now();
    let out = args.out.clone().unwrap_or_else(|| default_out(created, &scenario.name));
    std::fs::create_dir_all(&out).with_context(|| format!("cannot write to {}", out.display()))?;

    let rounds = u64::from(args.repeat) * variants.len() as u64 * scenario.steps.len() as u64;
    let step_s = u64::from(scenario.warm_up_s + scenario.measure_s);
    let bar = progress::bar(rounds * step_s, "starting");
    let mut plan = Plan::new("evaluate", &scenario);
    plan.instances = args.instances;
    plan.sets.clone_from(&args.sets);
    let mut evaluation = Evaluation { scenario, bar, out, round: 0 };
    let mut report = evaluation.run(plan, &variants, &source, &args, created).await?;
    evaluation.bar.finish_and_clear();
    report.conclude(evaluation.scenario.tolerances.as_ref());
    report::write_all(&report, &evaluation.out)?;
    if args.json {
        println!("{}", std::fs::read_to_string(evaluation.out.join("report.json"))?);
    } else {
        super::report::print(&report);
        println!("\nReport: {}", evaluation.out.join("report.html").display());
    }
    let failed = report.verdicts.iter().any(|verdict| verdict.passed == Some(false));
    Ok(if failed { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

struct Evaluation {
    scenario: Scenario,
    bar: ProgressBar,
    out: PathBuf,
    /// Steps done, for the bar.
    round: u64,
}

impl Evaluation {
    async fn run(
        &mut self,
        mut plan: Plan,
        variants: &[Variant],
        source: &data::Source,
        args: &EvaluateArgs,
        created: SystemTime,
    ) -> anyhow::Result<Report> {
        stage(&self.bar, "reading the data");
        let loaded = source.load()?;
        // The profiles set their own law, once it is calibrated.
        let law = std::mem::replace(&mut plan.law, faultproxy::Law::None);
        stage(&self.bar, "starting servers");
        let mut cluster = Cluster::start(plan).await?;
        stage(
            &self.bar,
            &format!("importing {} events of {} users", loaded.dataset.events.len(), loaded.dataset.users.len()),
        );
        let model_version = cluster.load(&loaded.dataset).await?;
        let known_ids = cluster.write_known_ids(&loaded.dataset)?;
        let law = self.calibrate(&mut cluster, law, &known_ids, args.quick).await?;
        let mut steps = Vec::new();
        for repeat in 1..=args.repeat {
            for variant in variants {
                steps.extend(self.profile(&mut cluster, variant, repeat, &law, &known_ids).await?);
            }
        }
        let report = Report {
            schema_version: report::SCHEMA_VERSION,
            created: rfc3339(created),
            scenario: self.scenario_info(),
            law,
            machine: machine::read(),
            versions: machine::versions(&cluster),
            revision: machine::revision(),
            data: DataInfo {
                source: if args.data.is_some() { DataSource::File } else { DataSource::Generator },
                name: loaded.name,
                users: loaded.dataset.users.len() as u64,
                items: loaded.dataset.items.len() as u64,
                events: loaded.dataset.events.len() as u64,
                bad_rows: loaded.bad_rows,
            },
            model_version,
            quick: args.quick,
            profiles: variants.iter().map(|variant| variant.name.clone()).collect(),
            repeats: args.repeat,
            steps,
            knees: Vec::new(),
            verdicts: Vec::new(),
            remarks: self.remarks(&cluster, args),
        };
        stage(&self.bar, "stopping");
        cluster.stack.stop().await?;
        Ok(report)
    }

    /// The law that makes the whole stack as slow as the scenario asks: its base less what the real stack takes by itself,
    /// measured without any law at the lowest step.
    async fn calibrate(
        &mut self,
        cluster: &mut Cluster,
        law: faultproxy::Law,
        known_ids: &Path,
        quick: bool,
    ) -> anyhow::Result<LawInfo> {
        let faultproxy::Law::Linear { base_ms: scenario_base, slope_ms, spread } = law else {
            return Ok(LawInfo::None);
        };
        stage(&self.bar, "calibrating: what the real stack takes by itself");
        cluster.start_replicas(Profile::Baseline, &[]).await?;
        let target = Target::of(cluster.stack.dir(), &launcher::Description::read(cluster.stack.dir())?)?;
        let users = self.scenario.steps.iter().copied().min().unwrap_or(1);
        let mut plan = self.plan(users, 0, known_ids, &target);
        (plan.warm_up_ms, plan.measure_ms) = if quick { (3_000, 5_000) } else { (5_000, 15_000) };
        let (step, _) = measure::step(&mut cluster.stack, &target, &plan, Vec::new(), |_| ()).await?;
        cluster.stop_replicas().await?;
        let overhead_ms = (step.mean_ms * 10.0).round() / 10.0;
        ensure!(step.error_pct < 1.0, "the stack answers with errors even without a law: {:?}", step.errors);
        Ok(LawInfo::Modelled {
            base_ms: (scenario_base - overhead_ms).max(0.0),
            base_ms_scenario: scenario_base,
            overhead_ms,
            slope_ms,
            spread,
        })
    }

    /// All steps of one profile, on fresh replicas and an empty Redis.
    async fn profile(
        &mut self,
        cluster: &mut Cluster,
        variant: &Variant,
        repeat: u32,
        law: &LawInfo,
        known_ids: &Path,
    ) -> anyhow::Result<Vec<Step>> {
        stage(&self.bar, &format!("{}: starting {} replicas", variant.name, self.scenario.replicas));
        cluster.flush_cache().await?;
        let law = match *law {
            LawInfo::Modelled { base_ms, slope_ms, spread, .. } => {
                faultproxy::Law::Linear { base_ms, slope_ms, spread }
            }
            LawInfo::None => faultproxy::Law::None,
        };
        cluster.proxy.client.set_law(law).await?;
        cluster.start_replicas(variant.profile, &variant.sets).await?;
        let target = Target::of(cluster.stack.dir(), &launcher::Description::read(cluster.stack.dir())?)?;
        let mut steps = Vec::new();
        for (n, &users) in self.scenario.steps.clone().iter().enumerate() {
            if variant.profile == Profile::Baseline && self.scenario.flush_cache_before_step {
                cluster.flush_cache().await?;
            }
            let plan = self.plan(users, n, known_ids, &target);
            let label = format!("{}, {users} users", variant.name);
            stage(&self.bar, &label);
            let base = self.round * u64::from(self.scenario.warm_up_s + self.scenario.measure_s);
            let bar = self.bar.clone();
            let show = |now: &loadtest::plan::Progress| {
                bar.set_position(base + u64::from(now.elapsed_s));
                let what = if now.phase == Phase::WarmUp { "warm-up" } else { "measuring" };
                bar.set_message(format!("{label}: {what}, {}/s good", now.good));
            };
            let faults = self.scenario.faults_of(n);
            let (step, outcome) = measure::step(&mut cluster.stack, &target, &plan, faults, show).await?;
            let hdr_log = format!("{}-{users}-{repeat}.hlog", variant.name.replace(' ', ""));
            loadtest::plan::write_hdr_log(&self.out.join(&hdr_log), &outcome)?;
            // The model knows one kind of step: every request needs the store.
            let all_miss = variant.profile == Profile::Baseline
                && self.scenario.flush_cache_before_step
                && matches!(self.scenario.known, Known::Once)
                && outcome.repeated_ids == 0;
            steps.push(Step {
                profile: variant.name.clone(),
                repeat,
                article: self.scenario.article(&variant.name, users).cloned(),
                model: if all_miss { model::step(&self.scenario, users, 1.0, 1) } else { None },
                hdr_log: Some(hdr_log),
                ..step
            });
            self.round += 1;
        }
        cluster.stop_replicas().await?;
        Ok(steps)
    }

    fn plan(&self, users: u32, n: usize, known_ids: &Path, target: &Target) -> StepPlan {
        step_plan(&self.scenario, users, n, known_ids, &target.gateway)
    }

    fn scenario_info(&self) -> ScenarioInfo {
        scenario_info(&self.scenario)
    }

    fn remarks(&self, cluster: &Cluster, args: &EvaluateArgs) -> Vec<String> {
        let mut remarks = vec![format!(
            "Load generator, nginx, {} api replicas, Redis, faultproxy and {} MySQL server(s) share this machine. MySQL writes \
             without waiting for the disk (innodb_flush_log_at_trx_commit=0), which no figure here depends on: the steps only read.",
            self.scenario.replicas,
            cluster.servers.len(),
        )];
        if !args.sets.is_empty() {
            remarks.push(format!("Settings changed in every replica: {}.", args.sets.join(", ")));
        }
        remarks
    }
}

pub fn step_plan(scenario: &Scenario, users: u32, n: usize, known_ids: &Path, gateway: &str) -> StepPlan {
    StepPlan {
        name: format!("{} {users}", scenario.name),
        base_url: gateway.to_owned(),
        users,
        interval_ms: scenario.interval_ms,
        timeout_ms: scenario.timeout_ms,
        warm_up_ms: u64::from(scenario.warm_up_s) * 1000,
        measure_ms: u64::from(scenario.measure_s) * 1000,
        unknown_share: scenario.unknown_share.get(n).copied().unwrap_or_default(),
        known: scenario.known,
        known_ids: known_ids.to_owned(),
        seed: 1 + n as u64,
        worker_threads: 1,
    }
}

pub fn scenario_info(scenario: &Scenario) -> ScenarioInfo {
    ScenarioInfo {
        name: scenario.name.clone(),
        description: scenario.description.clone(),
        steps: scenario.steps.clone(),
        warm_up_s: f64::from(scenario.warm_up_s),
        measure_s: f64::from(scenario.measure_s),
        interval_ms: scenario.interval_ms,
        timeout_ms: scenario.timeout_ms,
        unknown_share: scenario.unknown_share.clone(),
        known: scenario.known.describe(),
    }
}

fn scenario(args: &EvaluateArgs) -> anyhow::Result<Scenario> {
    let mut scenario = Scenario::load(&args.scenario)?;
    if args.quick {
        scenario.warm_up_s = scenario.warm_up_s.min(QUICK_WARM_UP_S);
        scenario.measure_s = scenario.measure_s.min(QUICK_MEASURE_S);
    }
    if args.law == Some(LawChoice::None) {
        scenario.law = Law::None;
    }
    Ok(scenario)
}

fn variants(args: &EvaluateArgs, scenario: &Scenario) -> anyhow::Result<Vec<Variant>> {
    let plain = |profile: Profile| Variant { name: profile.to_string(), profile, sets: Vec::new() };
    if args.ablation {
        let without = |guard: &str| Variant {
            name: format!("protected -{guard}"),
            profile: Profile::Protected,
            sets: vec![format!("guards.{guard}=off")],
        };
        return Ok(std::iter::once(plain(Profile::Protected)).chain(Profile::GUARDS.map(without)).collect());
    }
    if !args.profiles.is_empty() {
        return Ok(args.profiles.iter().copied().map(plain).collect());
    }
    let profiles = scenario.profiles.iter().map(|name| name.parse().map(plain).map_err(anyhow::Error::msg));
    profiles.collect()
}

fn default_out(created: SystemTime, scenario: &str) -> PathBuf {
    let stem = Path::new(scenario).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let time = rfc3339(created).trim_end_matches('Z').replace(':', "-");
    Path::new(super::report::REPORTS).join(format!("{time}-{stem}"))
}

/// `2026-01-31T12:00:00Z`
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_users_are_enough_for_a_step() {
        let scenario = Scenario::load("article").unwrap();
        let most = |warm_up: u32, measure: u32| scenario.steps.iter().max().unwrap() * (warm_up + measure) / 2;
        assert!(most(scenario.warm_up_s, scenario.measure_s) <= USERS);
        assert!(most(QUICK_WARM_UP_S, QUICK_MEASURE_S) <= QUICK_USERS);
        assert!(matches!(scenario.known, Known::Once));
    }
}
