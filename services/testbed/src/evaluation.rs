//! A scenario on a stack of its own: servers → data → calibration → each variant, each step → report. `evaluate` and `experiment` say what
//! to run, and judge the report.

mod attempts;
mod bar;
mod calibration;
mod conditions;
mod described;
pub mod fitted;
pub mod journal;
pub mod manifest;
mod order;
pub mod resume;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context;
use api::Profile;
use loadtest::{
    model,
    plan::{Progress, StepPlan},
    scenario::Scenario,
};
use report::{
    DataInfo, DataSource, Law as LawInfo, Manifest, Report, Step, Waterfall,
    soak::{self, Soak},
};

pub use self::{attempts::CALIBRATION_ATTEMPTS, bar::Bar, described::scenario_info};
use self::{
    attempts::keep_log,
    conditions::{changed, empties_cache, in_force, model_applies, starts_alike},
    described::remarks,
    journal::{Begun, Finished, Journal, Line},
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
    check_settings(plan)?;
    std::fs::create_dir_all(&plan.out).with_context(|| format!("cannot write to {}", plan.out.display()))?;
    Evaluation::new(plan, manifest::of(plan)?).run(&mut after_steps).await
}

/// What was measured before the run was interrupted, and the file that goes on with it.
pub struct Recorded {
    pub journal: Journal,
    /// Of the first part.
    pub manifest: Manifest,
    pub begun: Option<Begun>,
    /// Steps that are not measured again.
    pub finished: Vec<Finished>,
}

/// As [`run`], and writes each step to the journal.
///
/// # Errors
/// As [`run`], or the journal cannot be written.
pub async fn run_recorded(plan: &Plan, recorded: Recorded) -> anyhow::Result<Report> {
    let Recorded { journal, manifest, begun, finished } = recorded;
    let new = Evaluation::new(plan, manifest);
    let mut evaluation = Evaluation { journal: Some(journal), begun, finished, ..new };
    evaluation.run(&mut async |_: AfterSteps<'_>| Ok(())).await
}

/// Before servers are started and data is imported in vain.
///
/// # Errors
/// A setting of a variant is refused.
pub fn check_settings(plan: &Plan) -> anyhow::Result<()> {
    let stack_plan = service_plan(plan);
    plan.variants.iter().try_for_each(|variant| stack_plan.check(variant.profile, &all_sets(plan, variant)))
}

/// Seconds of load.
fn length_s(plan: &Plan) -> u64 {
    let seconds = plan.variants.iter().map(|variant| {
        let scenario = variant.scenario(plan);
        scenario.steps.len() as u64 * u64::from(scenario.warm_up_s + scenario.measure_s) + plan.after_steps_s
    });
    u64::from(plan.repeat) * seconds.sum::<u64>()
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
    manifest: Manifest,
    /// Only of runs that can be resumed.
    journal: Option<Journal>,
    /// The calibration of the part before an interruption.
    begun: Option<Begun>,
    /// Its steps.
    finished: Vec<Finished>,
}

impl<'a> Evaluation<'a> {
    fn new(plan: &'a Plan, manifest: Manifest) -> Self {
        Self {
            plan,
            bar: Bar::new(length_s(plan)),
            steps: Vec::new(),
            waterfalls: Vec::new(),
            recording: None,
            soak: None,
            manifest,
            journal: None,
            begun: None,
            finished: Vec::new(),
        }
    }
}

impl Evaluation<'_> {
    async fn run(
        &mut self,
        after_steps: &mut impl AsyncFnMut(AfterSteps<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Report> {
        let report = self.measure(after_steps).await;
        self.bar.clear();
        report
    }

    async fn measure(
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
        let begun = match self.begun.take() {
            Some(begun) => {
                resume::same_servers(&begun.versions, &machine::versions(&service))?;
                begun
            }
            None => {
                let (law, doubt) = calibration::calibrate(plan, &self.bar, &mut service, law, &known_ids).await?;
                let begun = Begun { law, doubt, versions: machine::versions(&service) };
                self.record(|| Line::Begun(begun.clone()))?;
                begun
            }
        };
        for repeat in 1..=plan.repeat {
            for variant in order::of_round(plan, repeat) {
                self.variant(&mut service, variant, repeat, &begun.law, &known_ids, after_steps).await?;
            }
        }
        let report = Report {
            schema_version: report::SCHEMA_VERSION,
            created: rfc3339(plan.created),
            scenario: scenario_info(&plan.scenario),
            law: begun.law,
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
            manifest: Some(self.manifest.clone()),
            steps: std::mem::take(&mut self.steps),
            knees: Vec::new(),
            verdicts: Vec::new(),
            sections: self.soak.iter().map(soak::section).collect::<Result<_, _>>()?,
            waterfalls: std::mem::take(&mut self.waterfalls),
            changed: changed(plan),
            remarks: remarks(plan, &service).into_iter().chain(begun.doubt).collect(),
        };
        self.bar.stage("stopping");
        service.stack.stop().await?;
        Ok(report)
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
        let done = self.take_finished(variant, repeat);
        if done > 0 && done == scenario.steps.len() {
            return Ok(());
        }
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
        for (n, &users) in scenario.steps.iter().enumerate().skip(done) {
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
            let finished = Finished { step, examples };
            self.record(|| Line::Step(Box::new(finished.clone())))?;
            self.keep(finished);
        }
        let bar = &mut self.bar;
        after_steps(AfterSteps { service, target: &target, scenario, variant, repeat, known_ids, bar }).await?;
        service.stop_replicas().await
    }

    /// Takes over the steps of this variant from before an interruption; answers how many.
    fn take_finished(&mut self, variant: &Variant, repeat: u32) -> usize {
        let of_this = |finished: &Finished| finished.step.profile == variant.name && finished.step.repeat == repeat;
        let (own, others) = std::mem::take(&mut self.finished).into_iter().partition::<Vec<_>, _>(of_this);
        self.finished = others;
        let scenario = variant.scenario(self.plan);
        self.bar.done(own.len() as u64 * u64::from(scenario.warm_up_s + scenario.measure_s));
        own.into_iter().map(|finished| self.keep(finished)).count()
    }

    fn keep(&mut self, finished: Finished) {
        self.steps.push(finished.step);
        for example in finished.examples {
            if self.waterfalls.iter().all(|known| known.kind != example.kind) {
                self.waterfalls.push(example);
            }
        }
    }

    fn record(&self, line: impl FnOnce() -> Line) -> anyhow::Result<()> {
        self.journal.as_ref().map_or(Ok(()), |journal| journal.append(&line()))
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

/// The processes of a stack as they are now: restarted replicas are others.
///
/// # Errors
/// The stack has no description.
pub fn target(service: &ServiceStack) -> anyhow::Result<Target> {
    Target::of(Some(service.stack.dir()), &launcher::Description::read(service.stack.dir())?)
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
