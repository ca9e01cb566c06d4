//! A scenario on a stack of its own: servers → data → calibration → each variant, each step → report. `evaluate` and `experiment` say what
//! to run, and judge the report.

mod attempts;
mod bar;
mod conditions;
pub mod fitted;
mod order;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, ensure};
use api::Profile;
use loadtest::{
    model,
    plan::{Progress, StepPlan},
    scenario::Scenario,
};
use report::{
    DataInfo, DataSource, Law as LawInfo, Report, ScenarioInfo, Step, Waterfall,
    soak::{self, Soak},
};

pub use self::{attempts::CALIBRATION_ATTEMPTS, bar::Bar};
use self::{
    attempts::{keep_log, not_calibrated},
    conditions::{base_in_force, changed, empties_cache, in_force, model_applies, starts_alike},
};
use crate::{
    data,
    instruments::{
        machine, measure,
        recording::{self, Recording},
        target::Target,
        time_spent,
    },
    reports::rfc3339,
    stack::service::{self, ServiceStack},
};

/// A profile with some of its settings changed, under a name for the report.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    pub name: String,
    pub profile: Profile,
    pub sets: Vec<String>,
    /// Steps, ids, flush and law of its own instead of the plan's. Its pool, order and patience come from `sets`.
    pub scenario: Option<Box<Scenario>>,
}

impl Variant {
    pub fn plain(profile: Profile) -> Self {
        Self { name: profile.to_string(), profile, sets: Vec::new(), scenario: None }
    }

    /// The scenario that it runs.
    pub fn scenario<'a>(&'a self, plan: &'a Plan) -> &'a Scenario {
        self.scenario.as_deref().unwrap_or(&plan.scenario)
    }
}

/// What to run.
pub struct Plan {
    /// Names the stack.
    pub command: &'static str,
    pub scenario: Scenario,
    /// In the order of the report; see [`order::of_round`] for that of the runs.
    pub variants: Vec<Variant>,
    pub source: data::Source,
    /// Short steps and a short calibration; the report says so.
    pub quick: bool,
    /// Rounds.
    pub repeat: u32,
    /// Decides users, ids and phases of each step, and the order of the variants.
    pub seed: u64,
    /// How often a step is measured at most, until it is valid.
    pub attempts: u32,
    /// The same for the calibration, on which all steps depend.
    pub calibration_attempts: u32,
    pub instances: u16,
    /// See [`service::Plan::batch`].
    pub batch: bool,
    /// Settings of every replica.
    pub sets: Vec<String>,
    /// Whether memory and open files are sampled every minute.
    pub soak: bool,
    /// Whether some requests of each step are recorded from the user to the store.
    pub traces: bool,
    /// Seconds of load that each variant has after its steps.
    pub after_steps_s: u64,
    /// Directory of the report; histogram logs are written there during the run.
    pub out: PathBuf,
    pub created: SystemTime,
}

pub const QUICK_WARM_UP_S: u32 = 3;
pub const QUICK_MEASURE_S: u32 = 10;
/// Users to generate for a whole run and for a quick one.
pub const USERS: u32 = 200_000;
/// Enough for the ids of one quick step: 5000/s × 13 s, half of them known.
pub const QUICK_USERS: u32 = 60_000;

/// What an experiment does after the steps of a variant needs this.
pub struct AfterSteps<'a> {
    pub service: &'a mut ServiceStack,
    pub target: &'a Target,
    pub scenario: &'a Scenario,
    pub variant: &'a Variant,
    pub repeat: u32,
    /// The file with the ids of all users.
    pub known_ids: &'a Path,
    pub bar: &'a mut Bar,
}

/// Short steps.
pub fn shorten(scenario: &mut Scenario) {
    scenario.warm_up_s = scenario.warm_up_s.min(QUICK_WARM_UP_S);
    scenario.measure_s = scenario.measure_s.min(QUICK_MEASURE_S);
    // A fault that would reach beyond the step's end is lifted with the step.
    scenario.faults.retain(|fault| fault.at_s < f64::from(scenario.measure_s));
}

/// Runs all of it. The report is neither concluded nor written.
///
/// # Errors
/// A setting is refused, a server or the load generator fails.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    run_with(plan, async |_| Ok(())).await
}

/// As [`run`], and calls `after_steps` on each variant's replicas after its steps.
///
/// # Errors
/// As [`run`], and those of `after_steps`.
pub async fn run_with(
    plan: &Plan,
    mut after_steps: impl AsyncFnMut(AfterSteps<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Report> {
    let stack_plan = service_plan(plan);
    for variant in &plan.variants {
        // Before servers are started and data is imported in vain.
        stack_plan.check(variant.profile, &all_sets(plan, variant))?;
    }
    std::fs::create_dir_all(&plan.out).with_context(|| format!("cannot write to {}", plan.out.display()))?;
    let seconds = plan.variants.iter().map(|variant| {
        let scenario = variant.scenario(plan);
        scenario.steps.len() as u64 * u64::from(scenario.warm_up_s + scenario.measure_s) + plan.after_steps_s
    });
    let length = u64::from(plan.repeat) * seconds.sum::<u64>();
    let mut evaluation = Evaluation {
        plan,
        bar: Bar::new(length),
        steps: Vec::new(),
        waterfalls: Vec::new(),
        recording: None,
        soak: None,
    };
    let report = evaluation.run(&mut after_steps).await;
    evaluation.bar.clear();
    report
}

fn service_plan(plan: &Plan) -> service::Plan {
    service::Plan {
        instances: plan.instances,
        batch: plan.batch,
        sets: plan.sets.clone(),
        traces: plan.traces,
        telemetry: recording::only_what_the_load_generator_chose(),
        only_read: true,
        ..service::Plan::new(plan.command, &plan.scenario)
    }
}

/// Of a variant's replicas.
fn all_sets(plan: &Plan, variant: &Variant) -> Vec<String> {
    [&plan.sets[..], &variant.sets[..]].concat()
}

struct Evaluation<'a> {
    plan: &'a Plan,
    bar: Bar,
    steps: Vec<Step>,
    /// One of each kind.
    waterfalls: Vec<Waterfall>,
    recording: Option<Recording>,
    soak: Option<Soak>,
}

impl Evaluation<'_> {
    async fn run(
        &mut self,
        after_steps: &mut impl AsyncFnMut(AfterSteps<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Report> {
        let plan = self.plan;
        self.bar.stage("reading the data");
        let loaded = plan.source.load().await?;
        let mut stack_plan = service_plan(plan);
        // The profiles set their own law, once it is calibrated.
        let law = std::mem::replace(&mut stack_plan.law, faultproxy::Law::None);
        self.bar.stage("starting servers");
        let mut service = ServiceStack::start(stack_plan).await?;
        self.bar.stage(&format!(
            "importing {} events of {} users",
            loaded.dataset.events.len(),
            loaded.dataset.users.len()
        ));
        self.recording = Recording::of(&launcher::Description::read(service.stack.dir())?)?;
        let model_version = service.load(&loaded.dataset).await?;
        let known_ids = service.write_known_ids(&loaded.dataset)?;
        let (law, doubt) = self.calibrate(&mut service, law, &known_ids).await?;
        for repeat in 1..=plan.repeat {
            for variant in order::of_round(plan, repeat) {
                self.variant(&mut service, variant, repeat, &law, &known_ids, after_steps).await?;
            }
        }
        let report = Report {
            schema_version: report::SCHEMA_VERSION,
            created: rfc3339(plan.created),
            scenario: scenario_info(&plan.scenario),
            law,
            machine: machine::read(),
            versions: machine::versions(&service),
            revision: machine::revision(),
            data: DataInfo {
                source: match plan.source {
                    data::Source::File(_) => DataSource::File,
                    data::Source::Generator(_) => DataSource::Generator,
                },
                name: loaded.name,
                users: loaded.dataset.users.len() as u64,
                items: loaded.dataset.items.len() as u64,
                events: loaded.dataset.events.len() as u64,
                bad_rows: loaded.bad_rows,
            },
            model_version,
            quick: plan.quick,
            profiles: plan.variants.iter().map(|variant| variant.name.clone()).collect(),
            repeats: plan.repeat,
            seed: Some(plan.seed),
            steps: std::mem::take(&mut self.steps),
            knees: Vec::new(),
            verdicts: Vec::new(),
            sections: self.soak.iter().map(soak::section).collect::<Result<_, _>>()?,
            waterfalls: std::mem::take(&mut self.waterfalls),
            changed: changed(plan),
            remarks: remarks(plan, &service).into_iter().chain(doubt).collect(),
        };
        self.bar.stage("stopping");
        service.stack.stop().await?;
        Ok(report)
    }

    /// The law that makes the whole stack as slow as the scenario asks: its base less the real stack's own latency, measured without any
    /// law at the lowest step. The real store's time is not subtracted, as the law includes it. Also answers a remark if the measurement
    /// of a quick run was not valid.
    ///
    /// # Errors
    /// No measurement was valid, and the run is to be judged: an unknown law has no figures worth a verdict.
    async fn calibrate(
        &mut self,
        service: &mut ServiceStack,
        law: faultproxy::Law,
        known_ids: &Path,
    ) -> anyhow::Result<(LawInfo, Option<String>)> {
        let faultproxy::Law::Linear { base_ms: scenario_base, slope_ms, spread } = law else {
            return Ok((LawInfo::None, None));
        };
        self.bar.stage("calibrating: the latency of the real stack without the law");
        service.start_replicas(Profile::Baseline, &[]).await?;
        let target = target(service)?;
        let scenario = &self.plan.scenario;
        let users = scenario.steps.iter().copied().min().unwrap_or(1);
        let mut plan = StepPlan {
            seed: statistics::seed::of_step(self.plan.seed, 0, 0),
            ..StepPlan::of(scenario, users, 0, known_ids, &target.gateway)
        };
        (plan.warm_up_ms, plan.measure_ms) = if self.plan.quick { (3_000, 5_000) } else { (5_000, 15_000) };
        // A curve may be shorter than the calibration.
        plan.arrivals = plan.arrivals.at_constant_rate();
        let mut attempts = 0;
        let step = loop {
            // The ids are the same each time.
            service.flush_cache().await?;
            let (step, _) = measure::step(service, &target, &plan, Vec::new(), |_| ()).await?;
            attempts += 1;
            if step.valid || attempts >= self.plan.calibration_attempts {
                break step;
            }
        };
        service.stop_replicas().await?;
        let reasons = step.invalid_reasons.join("; ");
        ensure!(step.valid || self.plan.quick, not_calibrated(attempts, &reasons));
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
        Ok((LawInfo::Modelled { base_ms, base_ms_scenario: scenario_base, overhead_ms, slope_ms, spread }, doubt))
    }

    /// All steps of one variant on fresh replicas and an empty Redis, then `after_steps`.
    async fn variant(
        &mut self,
        service: &mut ServiceStack,
        variant: &Variant,
        repeat: u32,
        law: &LawInfo,
        known_ids: &Path,
        after_steps: &mut impl AsyncFnMut(AfterSteps<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let scenario = variant.scenario(self.plan);
        self.bar.stage(&format!("{}: starting {} replicas", variant.name, scenario.replicas));
        service.flush_cache().await?;
        let law = match *law {
            LawInfo::Modelled { overhead_ms, .. } => in_force(scenario, overhead_ms)?,
            LawInfo::None => faultproxy::Law::None,
        };
        service.proxy.client.set_law(law).await?;
        service.start_replicas(variant.profile, &variant.sets).await?;
        let target = target(service)?;
        let empties_cache = empties_cache(scenario, variant);
        let attempts = if starts_alike(self.plan, variant)? { self.plan.attempts } else { 1 };
        // In the scenario's order in every round: an overloaded step leaves queues and cold caches to the one after it, and a cache warms up
        // from step to step. Another order would measure other states.
        for (n, &users) in scenario.steps.iter().enumerate() {
            if empties_cache {
                service.flush_cache().await?;
            }
            let plan = StepPlan::of(scenario, users, n, known_ids, &target.gateway);
            let telemetry = self.recording.as_ref().map(|recording| recording.telemetry(&plan));
            let seed = statistics::seed::of_step(self.plan.seed, repeat, n);
            let plan = StepPlan { telemetry, seed, ..plan };
            let (mut step, mut examples) = self.step(service, &target, variant, repeat, n, &plan).await?;
            // Validity does not depend on the service's result, so measuring again favours none.
            while !step.valid && step.discarded.len() + 1 < attempts as usize {
                self.bar.lengthen((plan.warm_up_ms + plan.measure_ms) / 1000);
                if empties_cache {
                    service.flush_cache().await?;
                }
                keep_log(&self.plan.out, &mut step)?;
                let again = self.step(service, &target, variant, repeat, n, &plan).await?;
                (step, examples) = (again.0.after(step), again.1);
            }
            self.steps.push(step);
            for example in examples {
                if self.waterfalls.iter().all(|known| known.kind != example.kind) {
                    self.waterfalls.push(example);
                }
            }
        }
        let bar = &mut self.bar;
        after_steps(AfterSteps { service, target: &target, scenario, variant, repeat, known_ids, bar }).await?;
        service.stop_replicas().await
    }

    async fn step(
        &mut self,
        service: &mut ServiceStack,
        target: &Target,
        variant: &Variant,
        repeat: u32,
        n: usize,
        plan: &StepPlan,
    ) -> anyhow::Result<(Step, Vec<Waterfall>)> {
        let (scenario, users) = (variant.scenario(self.plan), plan.users);
        let mut samples = Vec::new();
        let mut show = self.bar.follow(&format!("{}, {}", variant.name, scenario.step_in_words(users)));
        let watch = |now: &Progress| {
            let measured_s = now.elapsed_s.saturating_sub(scenario.warm_up_s);
            if self.plan.soak && measured_s > 0 && measured_s.is_multiple_of(60) {
                samples.push(target.resources());
            }
            show(now);
        };
        let faults = scenario.faults_of(n);
        if let Some(recording) = &self.recording {
            recording.begin().await?;
        }
        let (mut step, outcome) = measure::step(service, target, plan, faults, watch).await?;
        self.bar.done((plan.warm_up_ms + plan.measure_ms) / 1000);
        if self.plan.soak {
            self.soak = Some(soak::conclude(soak::minutes(samples, &step.series)));
            step.series = soak::by_minute(&step.series);
        }
        let mut examples = Vec::new();
        if let Some(recording) = &self.recording {
            let traces = recording.end(&outcome).await?;
            step.time_spent = time_spent::time_spent(&traces, recording::sample_ratio(plan));
            examples = time_spent::examples(&traces, &variant.name, step.offered_per_s);
        }
        let hdr_log = format!("{}-{users}-{repeat}.hlog", variant.name.replace(' ', ""));
        loadtest::plan::write_hdr_log(&self.plan.out.join(&hdr_log), &outcome)?;
        let modelled = outcome.repeated_ids == 0 && model_applies(self.plan, variant, n);
        let step = Step {
            profile: variant.name.clone(),
            repeat,
            article: scenario.article(&variant.name, users).cloned(),
            model: if modelled { model::step(scenario, users, 1) } else { None },
            hdr_log: Some(hdr_log),
            ..step
        };
        Ok((step, examples))
    }
}

fn target(service: &ServiceStack) -> anyhow::Result<Target> {
    Target::of(Some(service.stack.dir()), &launcher::Description::read(service.stack.dir())?)
}

fn remarks(plan: &Plan, service: &ServiceStack) -> Vec<String> {
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
        target: None,
    }
}

#[cfg(test)]
pub mod tests {
    use loadtest::scenario::KnownIds;

    use super::*;

    /// A plan without variants.
    pub fn plan(scenario: Scenario, sets: &[&str]) -> Plan {
        Plan {
            command: "test",
            scenario,
            variants: Vec::new(),
            source: data::Source::Generator(1),
            quick: false,
            repeat: 1,
            seed: 1,
            attempts: 3,
            calibration_attempts: 3,
            instances: 1,
            batch: true,
            sets: sets.iter().map(|set| (*set).to_owned()).collect(),
            soak: false,
            traces: false,
            after_steps_s: 0,
            out: PathBuf::new(),
            created: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn known_users_are_enough_for_a_step() {
        let scenario = Scenario::load("article").unwrap();
        let most = |warm_up: u32, measure: u32| scenario.steps.iter().max().unwrap() * (warm_up + measure) / 2;
        assert!(most(scenario.warm_up_s, scenario.measure_s) <= USERS);
        assert!(most(QUICK_WARM_UP_S, QUICK_MEASURE_S) <= QUICK_USERS);
        assert!(matches!(scenario.known, KnownIds::Once));
    }
}
