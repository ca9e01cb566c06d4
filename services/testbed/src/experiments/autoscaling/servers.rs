//! The stack of the experiment: up to twenty replicas with a CPU quota each, and lists that are warm.

use std::path::PathBuf;

use anyhow::Context as _;
use api::Profile;
use launcher::{Cores, Description, QuotaChoice};
use loadtest::{
    plan::StepPlan,
    scenario::{self, Scenario},
};

use super::rules::{self, Limits};
use crate::{
    autoscale::{Options, REQUEST_CORES, WORK_US},
    data,
    instruments::target::Target,
    stack::service::{Plan, Quota, ServiceStack},
};

/// The article's replica has 2 CPU.
pub const SCALE: u32 = 40;
pub const FEW: u32 = 8;
pub const MANY: u32 = 20;
const USERS: u32 = 2_000;
/// Between two requests of a user.
pub const INTERVAL_MS: u64 = 1_000;
const TIMEOUT_MS: u64 = 3_000;
/// An answer within it is in time.
pub const SLO_MS: u64 = 250;

pub struct Servers {
    pub service: ServiceStack,
    pub target: Target,
    /// How the quotas hold.
    pub quota: String,
    known_ids: PathBuf,
    /// Plans so far: each has a seed of its own.
    plans: u64,
}

impl Servers {
    /// # Errors
    /// A server cannot be started, or the kernel does not enforce quotas and `choice` asks for it.
    pub async fn start(choice: QuotaChoice) -> anyhow::Result<Self> {
        let mut scenario = Scenario::load("smoke")?;
        scenario.law = scenario::Law::None;
        Self::start_with(&scenario, choice, WORK_US, &[]).await
    }

    /// As `start`, with the scenario's law and pool, and settings of all replicas.
    pub async fn start_with(
        scenario: &Scenario,
        choice: QuotaChoice,
        work_us: u64,
        sets: &[&str],
    ) -> anyhow::Result<Self> {
        let mut plan = Plan::new("autoscaling", scenario);
        plan.replicas = FEW;
        plan.slots = Some(MANY);
        plan.quota = Some(Quota { choice, cores: Cores::new(REQUEST_CORES)?, work_us });
        plan.sets = sets.iter().map(|set| (*set).to_owned()).collect();
        plan.only_read = true;
        plan.check(Profile::Protected, &[])?;
        let mut service = ServiceStack::start(plan).await?;
        let quota = service.stack.quotas().context("the stack has no quotas")?.to_string();
        let dataset = data::Source::Generator(USERS).load().await?.dataset;
        service.load(&dataset).await?;
        let known_ids = service.write_known_ids(&dataset)?;
        service.start_replicas(Profile::Protected, &[]).await?;
        // Replicas come and go, so none of them is a part of every snapshot.
        let mut described = Description::read(service.stack.dir())?;
        described.endpoints.retain(|name, _| !name.starts_with("api-"));
        let target = Target::of(None, &described)?;
        Ok(Self { service, target, quota, known_ids, plans: 0 })
    }

    /// Until exactly `count` replicas are ready and no other one is left.
    pub async fn scale_to(&mut self, count: u32) -> anyhow::Result<()> {
        self.service.wait_left().await?;
        self.service.scale_to(count as usize, Profile::Protected, &[])?;
        self.service.wait_replicas().await?;
        self.service.wait_left().await
    }

    /// A plan of this many users.
    pub fn plan(&mut self, users: u32, warm_up_ms: u64, measure_ms: u64) -> StepPlan {
        self.plans += 1;
        StepPlan {
            name: format!("autoscaling {}", self.plans),
            base_url: self.target.gateway.clone(),
            users,
            curve: None,
            interval_ms: INTERVAL_MS,
            arrival_grid_ms: 0,
            timeout_ms: TIMEOUT_MS,
            retry: None,
            criticality: None,
            slo_ms: Some(SLO_MS),
            warm_up_ms,
            measure_ms,
            unknown_share: 0.0,
            known: scenario::KnownIds::Once,
            known_ids: self.known_ids.clone(),
            seed: self.plans,
            worker_threads: 1,
            metrics: None,
            telemetry: None,
            arrivals: loadtest::arrivals::Arrivals::Closed,
            target: None,
        }
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.service.stack.stop().await
    }
}

/// The article's rule between these limits. With equal limits the count is fixed.
///
/// # Errors
/// As [`rules::article`].
pub fn options(min: u32, max: u32, hurry: u32) -> anyhow::Result<Options> {
    Ok(Options { rule: rules::article(Limits { min, max }, hurry)?, profile: Profile::Protected, sets: Vec::new() })
}
