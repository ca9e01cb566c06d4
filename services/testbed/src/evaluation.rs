//! A scenario on a stack of its own: servers → data → calibrate → each variant, each step → report. `evaluate` and
//! `experiment` say with what, and judge what came of it.

mod conditions;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, ensure};
use api::Profile;
use indicatif::ProgressBar;
use loadtest::{
    model,
    plan::{Phase, StepPlan},
    scenario::{self, Scenario, Surge},
};
use report::{
    self, DataInfo, DataSource, Law as LawInfo, Outage, Recovery, Report, ScenarioInfo, Soak, Step, Waterfall, soak,
    trend,
};

use self::conditions::{base_in_force, changed, empties_cache, model_applies, starts_alike};
use crate::{
    data,
    experiments::outage,
    instruments::machine,
    instruments::measure::{self, Target},
    instruments::recording::{self, Recording},
    instruments::time_spent,
    progress::{self, stage},
    stack::service::{Cluster, Plan},
};

/// A profile with some of its settings changed, under a name for the report.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    pub name: String,
    pub profile: Profile,
    pub sets: Vec<String>,
}

impl Variant {
    pub fn plain(profile: Profile) -> Self {
        Self { name: profile.to_string(), profile, sets: Vec::new() }
    }
}

/// What is to be run.
pub struct Order {
    /// Names the stack.
    pub command: &'static str,
    pub scenario: Scenario,
    /// In the order they are run, in every round.
    pub variants: Vec<Variant>,
    pub source: data::Source,
    /// Short steps: told in the report, and the calibration is short, too.
    pub quick: bool,
    /// Rounds.
    pub repeat: u32,
    /// Times a step is measured, at most, until it is valid.
    pub attempts: u32,
    pub instances: u16,
    /// Settings of every replica.
    pub sets: Vec<String>,
    /// Whether memory and open files are looked at every minute.
    pub soak: bool,
    /// Whether some requests of each step are recorded from the user to the store.
    pub traces: bool,
    /// Where the report is to go; histogram logs go there on the way.
    pub out: PathBuf,
    pub created: SystemTime,
}

pub const QUICK_WARM_UP_S: u32 = 3;
pub const QUICK_MEASURE_S: u32 = 10;
/// Users to generate for a whole run and for a quick one.
pub const USERS: u32 = 200_000;
/// Enough for the ids of one quick step: 5000/s × 13 s, half of them known.
pub const QUICK_USERS: u32 = 60_000;

/// Short steps, and as short a surge.
pub fn shorten(scenario: &mut Scenario) {
    scenario.warm_up_s = scenario.warm_up_s.min(QUICK_WARM_UP_S);
    scenario.measure_s = scenario.measure_s.min(QUICK_MEASURE_S);
    // One that reaches beyond the step's end is lifted with it.
    scenario.faults.retain(|fault| fault.at_s < f64::from(scenario.measure_s));
    if let Some(surge) = &mut scenario.surge {
        surge.before_s = surge.before_s.min(5);
        surge.for_s = surge.for_s.min(8);
        surge.after_s = surge.after_s.min(12);
    }
    if let Some(outage) = &mut scenario.outage {
        outage.before_s = outage.before_s.min(5);
        outage.for_s = outage.for_s.min(6);
        outage.after_s = outage.after_s.min(10);
    }
}

/// Runs all of it; the report is neither concluded nor written.
///
/// # Errors
/// A setting is refused, a server or the load generator fails.
pub async fn run(order: &Order) -> anyhow::Result<Report> {
    let plan = plan(order);
    for variant in &order.variants {
        // Before servers are started and data is imported for nothing.
        plan.check(variant.profile, &all_sets(order, variant))?;
    }
    std::fs::create_dir_all(&order.out).with_context(|| format!("cannot write to {}", order.out.display()))?;
    let scenario = &order.scenario;
    let steps = scenario.steps.len() as u64 * u64::from(scenario.warm_up_s + scenario.measure_s);
    let surge = scenario.surge.map_or(0, |surge| surge_s(scenario, surge));
    let outages = outage::Server::ALL.len() as u64 * scenario.outage.map_or(0, |outage| outage_s(scenario, outage));
    let length = u64::from(order.repeat) * order.variants.len() as u64 * (steps + surge + outages);
    let mut evaluation = Evaluation {
        order,
        bar: progress::bar(length, "starting"),
        done_s: 0,
        steps: Vec::new(),
        recoveries: Vec::new(),
        outages: Vec::new(),
        waterfalls: Vec::new(),
        recording: None,
        soak: None,
    };
    let report = evaluation.run().await;
    evaluation.bar.finish_and_clear();
    report
}

fn plan(order: &Order) -> Plan {
    Plan {
        instances: order.instances,
        sets: order.sets.clone(),
        traces: order.traces,
        telemetry: recording::only_what_the_load_generator_chose(),
        only_read: true,
        ..Plan::new(order.command, &order.scenario)
    }
}

/// Of a variant's replicas.
fn all_sets(order: &Order, variant: &Variant) -> Vec<String> {
    [&order.sets[..], &variant.sets[..]].concat()
}

fn surge_s(scenario: &Scenario, surge: Surge) -> u64 {
    u64::from(scenario.warm_up_s + surge.before_s + surge.for_s + surge.after_s)
}

/// Of one server.
fn outage_s(scenario: &Scenario, outage: scenario::Outage) -> u64 {
    u64::from(scenario.warm_up_s + outage.before_s + outage.for_s + outage.after_s)
}

struct Evaluation<'a> {
    order: &'a Order,
    bar: ProgressBar,
    /// Of the load, for the bar.
    done_s: u64,
    steps: Vec<Step>,
    recoveries: Vec<Recovery>,
    outages: Vec<Outage>,
    /// One of each kind.
    waterfalls: Vec<Waterfall>,
    recording: Option<Recording>,
    soak: Option<Soak>,
}

impl Evaluation<'_> {
    async fn run(&mut self) -> anyhow::Result<Report> {
        let order = self.order;
        stage(&self.bar, "reading the data");
        let loaded = order.source.load().await?;
        let mut plan = plan(order);
        // The profiles set their own law, once it is calibrated.
        let law = std::mem::replace(&mut plan.law, faultproxy::Law::None);
        stage(&self.bar, "starting servers");
        let mut cluster = Cluster::start(plan).await?;
        stage(
            &self.bar,
            &format!("importing {} events of {} users", loaded.dataset.events.len(), loaded.dataset.users.len()),
        );
        self.recording = Recording::of(&launcher::Description::read(cluster.stack.dir())?)?;
        let model_version = cluster.load(&loaded.dataset).await?;
        let known_ids = cluster.write_known_ids(&loaded.dataset)?;
        let (law, doubt) = self.calibrate(&mut cluster, law, &known_ids).await?;
        for repeat in 1..=order.repeat {
            for variant in &order.variants {
                self.variant(&mut cluster, variant, repeat, &law, &known_ids).await?;
            }
        }
        let report = Report {
            schema_version: report::SCHEMA_VERSION,
            created: rfc3339(order.created),
            scenario: scenario_info(&order.scenario),
            law,
            machine: machine::read(),
            versions: machine::versions(&cluster),
            revision: machine::revision(),
            data: DataInfo {
                source: match order.source {
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
            quick: order.quick,
            profiles: order.variants.iter().map(|variant| variant.name.clone()).collect(),
            repeats: order.repeat,
            steps: std::mem::take(&mut self.steps),
            knees: Vec::new(),
            verdicts: Vec::new(),
            recoveries: std::mem::take(&mut self.recoveries),
            outages: std::mem::take(&mut self.outages),
            waterfalls: std::mem::take(&mut self.waterfalls),
            soak: self.soak.take(),
            changed: changed(order),
            remarks: remarks(order, &cluster).into_iter().chain(doubt).collect(),
        };
        stage(&self.bar, "stopping");
        cluster.stack.stop().await?;
        Ok(report)
    }

    /// The law that makes the whole stack as slow as the scenario asks: its base less what the real stack takes by itself,
    /// measured without any law at the lowest step. The real store is no part of it: its time is within the law's. Beside it what a reader
    /// must know if the measurement was not valid.
    async fn calibrate(
        &mut self,
        cluster: &mut Cluster,
        law: faultproxy::Law,
        known_ids: &Path,
    ) -> anyhow::Result<(LawInfo, Option<String>)> {
        let faultproxy::Law::Linear { base_ms: scenario_base, slope_ms, spread } = law else {
            return Ok((LawInfo::None, None));
        };
        stage(&self.bar, "calibrating: what the real stack takes by itself");
        cluster.start_replicas(Profile::Baseline, &[]).await?;
        let target = target(cluster)?;
        let scenario = &self.order.scenario;
        let users = scenario.steps.iter().copied().min().unwrap_or(1);
        let mut plan = StepPlan::of(scenario, users, 0, known_ids, &target.gateway);
        (plan.warm_up_ms, plan.measure_ms) = if self.order.quick { (3_000, 5_000) } else { (5_000, 15_000) };
        let mut attempts = 0;
        let step = loop {
            // The ids are the same each time.
            cluster.flush_cache().await?;
            let (step, _) = measure::step(&mut cluster.stack, &target, &plan, Vec::new(), |_| ()).await?;
            attempts += 1;
            if step.valid || attempts >= self.order.attempts {
                break step;
            }
        };
        cluster.stop_replicas().await?;
        ensure!(step.error_pct < 1.0, "the stack answers with errors even without a law: {:?}", step.errors);
        let store_ms = step.store_upstream_mean_ms.unwrap_or(0.0) * step.store_queries_per_request;
        let overhead_ms = ((step.mean_ms - store_ms).max(0.0) * 10.0).round() / 10.0;
        let base_ms = base_in_force(scenario_base, overhead_ms)?;
        let doubt = (!step.valid).then(|| {
            format!(
                "What the stack takes by itself was measured {attempts} time(s), and not validly the last time either ({}): {overhead_ms} ms \
                 may be too much, and the law's base so much too low.",
                step.invalid_reasons.join("; ")
            )
        });
        Ok((LawInfo::Modelled { base_ms, base_ms_scenario: scenario_base, overhead_ms, slope_ms, spread }, doubt))
    }

    /// All steps of one profile, then the surge if there is one, on fresh replicas and an empty Redis.
    async fn variant(
        &mut self,
        cluster: &mut Cluster,
        variant: &Variant,
        repeat: u32,
        law: &LawInfo,
        known_ids: &Path,
    ) -> anyhow::Result<()> {
        let scenario = &self.order.scenario;
        stage(&self.bar, &format!("{}: starting {} replicas", variant.name, scenario.replicas));
        cluster.flush_cache().await?;
        let law = match *law {
            LawInfo::Modelled { base_ms, slope_ms, spread, .. } => {
                faultproxy::Law::Linear { base_ms, slope_ms, spread }
            }
            LawInfo::None => faultproxy::Law::None,
        };
        cluster.proxy.client.set_law(law).await?;
        cluster.start_replicas(variant.profile, &variant.sets).await?;
        let target = target(cluster)?;
        let empties_cache = empties_cache(scenario, variant);
        let attempts = if starts_alike(self.order, variant)? { self.order.attempts } else { 1 };
        for (n, &users) in scenario.steps.iter().enumerate() {
            if empties_cache {
                cluster.flush_cache().await?;
            }
            let plan = StepPlan::of(scenario, users, n, known_ids, &target.gateway);
            let telemetry = self.recording.as_ref().map(|recording| recording.telemetry(&plan));
            let plan = StepPlan { telemetry, ..plan };
            let (mut step, mut examples) = self.step(cluster, &target, variant, repeat, n, &plan).await?;
            // Whether a step is valid says nothing of how the service fared, so measuring it again favours no result.
            while !step.valid && step.discarded.len() + 1 < attempts as usize {
                self.bar.inc_length((plan.warm_up_ms + plan.measure_ms) / 1000);
                if empties_cache {
                    cluster.flush_cache().await?;
                }
                let again = self.step(cluster, &target, variant, repeat, n, &plan).await?;
                (step, examples) = (again.0.after(step), again.1);
            }
            self.steps.push(step);
            for example in examples {
                if self.waterfalls.iter().all(|known| known.kind != example.kind) {
                    self.waterfalls.push(example);
                }
            }
        }
        if let Some(surge) = scenario.surge {
            let recovery = self.surge(cluster, &target, variant, repeat, surge, known_ids).await?;
            self.recoveries.push(recovery);
        }
        if let Some(planned) = scenario.outage {
            for server in outage::Server::ALL {
                let outage = self.outage(cluster, &target, variant, repeat, (planned, server), known_ids).await?;
                self.outages.push(outage);
            }
        }
        cluster.stop_replicas().await
    }

    async fn step(
        &mut self,
        cluster: &mut Cluster,
        target: &Target,
        variant: &Variant,
        repeat: u32,
        n: usize,
        plan: &StepPlan,
    ) -> anyhow::Result<(Step, Vec<Waterfall>)> {
        let (scenario, users) = (&self.order.scenario, plan.users);
        let mut samples = Vec::new();
        let mut show = self.show(&format!("{}, {users} users", variant.name));
        let watch = |now: &loadtest::plan::Progress| {
            let measured_s = now.elapsed_s.saturating_sub(scenario.warm_up_s);
            if self.order.soak && measured_s > 0 && measured_s.is_multiple_of(60) {
                samples.push(target.resources());
            }
            show(now);
        };
        let faults = scenario.faults_of(n);
        if let Some(recording) = &self.recording {
            recording.begin().await?;
        }
        let (mut step, outcome) = measure::step(&mut cluster.stack, target, plan, faults, watch).await?;
        self.done_s += (plan.warm_up_ms + plan.measure_ms) / 1000;
        if self.order.soak {
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
        loadtest::plan::write_hdr_log(&self.order.out.join(&hdr_log), &outcome)?;
        let modelled = outcome.repeated_ids == 0 && model_applies(self.order, variant, n);
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

    /// Not a step: what counts is when it is over.
    async fn surge(
        &mut self,
        cluster: &mut Cluster,
        target: &Target,
        variant: &Variant,
        repeat: u32,
        surge: Surge,
        known_ids: &Path,
    ) -> anyhow::Result<Recovery> {
        let scenario = &self.order.scenario;
        let plan = surge_plan(scenario, surge, known_ids, &target.gateway);
        let show = self.show(&format!("{}, surge to {} users", variant.name, surge.peak_users));
        let (step, outcome) = measure::step(&mut cluster.stack, target, &plan, Vec::new(), show).await?;
        self.done_s += surge_s(scenario, surge);
        let during = surge.before_s..surge.before_s + surge.for_s;
        let back = trend::back_to_normal(&outcome.series, during.clone());
        let good: u64 = outcome.series.iter().filter(|s| during.contains(&s.second)).map(|s| s.good).sum();
        Ok(Recovery {
            profile: variant.name.clone(),
            repeat,
            base_per_s: scenario.offered_per_s(surge.base_users),
            peak_per_s: scenario.offered_per_s(surge.peak_users),
            surge_from_s: during.start,
            surge_to_s: during.end,
            normal_p99_ms: back.normal_p99_ms,
            surge_good_per_s: good as f64 / f64::from(surge.for_s.max(1)),
            back_after_s: back.after_s,
            invalid_reasons: step.invalid_reasons,
            series: outcome.series,
        })
    }

    async fn outage(
        &mut self,
        cluster: &mut Cluster,
        target: &Target,
        variant: &Variant,
        repeat: u32,
        (planned, server): (scenario::Outage, outage::Server),
        known_ids: &Path,
    ) -> anyhow::Result<Outage> {
        let scenario = &self.order.scenario;
        let mut show = self.show(&format!("{}, {server} is killed", variant.name));
        let outage = outage::run(cluster, target, scenario, planned, server, known_ids, &mut show).await?;
        self.done_s += outage_s(scenario, planned);
        Ok(Outage { profile: variant.name.clone(), repeat, ..outage })
    }

    /// Moves the bar while a part of the load runs.
    fn show(&self, label: &str) -> impl FnMut(&loadtest::plan::Progress) + use<> {
        stage(&self.bar, label);
        let (bar, done_s, label) = (self.bar.clone(), self.done_s, label.to_owned());
        move |now| {
            bar.set_position(done_s + u64::from(now.elapsed_s));
            let what = if now.phase == Phase::WarmUp { "warm-up" } else { "measuring" };
            bar.set_message(format!("{label}: {what}, {}/s good", now.good));
        }
    }
}

fn target(cluster: &Cluster) -> anyhow::Result<Target> {
    Target::of(Some(cluster.stack.dir()), &launcher::Description::read(cluster.stack.dir())?)
}

fn remarks(order: &Order, cluster: &Cluster) -> Vec<String> {
    let policy = cluster.stack.policy();
    let mut remarks = vec![format!(
        "Load generator, nginx, {} api replicas, Redis, faultproxy and {} MySQL server(s) share this machine, all under \
         {}{}, the load generator at nice -10 where that is permitted, as it stands for \
         machines of its own; behind nginx they talk over Unix sockets. MySQL neither waits for the disk \
         nor writes its log at a commit (innodb_flush_log_at_trx_commit=0, which loses the last second when it is killed), which no figure \
         here depends on: the steps only read. Everywhere else it writes its log at each commit (1).",
        order.scenario.replicas,
        cluster.servers.len(),
        policy,
        if policy == "SCHED_BATCH" { " (who wakes up does not interrupt who runs)" } else { "" },
    )];
    if !order.sets.is_empty() {
        remarks.push(format!("Settings changed in every replica: {}.", order.sets.join(", ")));
    }
    remarks
}

/// As one more step, with the first one's share of unknown ids.
fn surge_plan(scenario: &Scenario, surge: Surge, known_ids: &Path, gateway: &str) -> StepPlan {
    let from_ms = u64::from(surge.before_s) * 1000;
    let to_ms = from_ms + u64::from(surge.for_s) * 1000;
    let users = surge.peak_users - surge.base_users;
    StepPlan {
        name: format!("{} surge", scenario.name),
        surge: Some(loadtest::plan::Surge { users, from_ms, to_ms }),
        measure_ms: to_ms + u64::from(surge.after_s) * 1000,
        seed: 1 + scenario.steps.len() as u64,
        ..StepPlan::of(scenario, surge.base_users, 0, known_ids, gateway)
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
        arrival_grid_ms: scenario.arrival_grid_ms,
        timeout_ms: scenario.timeout_ms,
        unknown_share: scenario.unknown_share.clone(),
        known: scenario.known.describe(),
    }
}

/// `reports/<time>-<scenario>`
pub fn default_out(created: SystemTime, scenario: &str) -> PathBuf {
    let stem = Path::new(scenario).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let time = rfc3339(created).trim_end_matches('Z').replace(':', "-");
    Path::new(crate::commands::REPORTS).join(format!("{time}-{stem}"))
}

/// `2026-01-31T12:00:00Z`
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use loadtest::scenario::KnownIds;

    use super::*;

    #[test]
    fn known_users_are_enough_for_a_step() {
        let scenario = Scenario::load("article").unwrap();
        let most = |warm_up: u32, measure: u32| scenario.steps.iter().max().unwrap() * (warm_up + measure) / 2;
        assert!(most(scenario.warm_up_s, scenario.measure_s) <= USERS);
        assert!(most(QUICK_WARM_UP_S, QUICK_MEASURE_S) <= QUICK_USERS);
        assert!(matches!(scenario.known, KnownIds::Once));
    }

    #[test]
    fn the_surge_is_a_plan_in_range() {
        let mut scenario = Scenario::load("overload").unwrap();
        for _ in 0..2 {
            let surge = scenario.surge.unwrap();
            let plan = surge_plan(&scenario, surge, Path::new("ids"), "http://127.0.0.1:80");
            plan.check().unwrap();
            assert_eq!(plan.all_users(), 2130);
            assert_eq!(surge_s(&scenario, surge), (plan.warm_up_ms + plan.measure_ms) / 1000);
            shorten(&mut scenario);
        }
    }
}
