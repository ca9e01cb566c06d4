//! The autoscaler of a stack, for `up --autoscale` and `experiment autoscaling`: it samples the replicas' CPU, asks the planner
//! (`services/autoscaler`, pure), and starts replicas or lets some leave.
//!
//! The planner's clock is nominal: with `hurry` 10 it runs ten times as fast as the machine's, so that every window and period of the manifest
//! is a tenth of its length. Begin reading at [`Autoscaler::tick`].

mod controller;
mod cpu;
pub mod manifest;
mod metrics;
mod planner;
mod trace;

use std::time::{Duration, Instant};

use api::Profile;
use autoscaler::line::StepInput;
use launcher::ChildId;

pub use self::{
    controller::{AUTOSCALER, Controller},
    cpu::Meter,
    planner::{Observed, Planner, Reading, Rule, SYNC_PERIOD, Step},
};
use crate::stack::service::{Replica, ServiceStack};

/// The time from a replica's start until it is ready is known to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// CPU of a replica: the article's 2 CPU on a scale of 1:40, so that a machine of one core holds 20 replicas.
pub const REQUEST_CORES: f64 = 0.05;
/// CPU time of a request on that scale, in microseconds: 8 replicas hold 400 requests/s, 20 hold 1,000.
pub const WORK_US: u64 = 1_000;

/// What an autoscaler is to keep.
#[derive(Debug, Clone)]
pub struct Options {
    pub rule: Rule,
    /// For replicas that it starts.
    pub profile: Profile,
    pub sets: Vec<String>,
}

pub struct Autoscaler {
    options: Options,
    planner: Planner<ChildId>,
    started: Instant,
    due: Instant,
    desired: usize,
    meter: Meter,
}

impl Autoscaler {
    /// Begins with the replicas that run. The first decision comes after one period, when there are samples.
    ///
    /// # Errors
    /// The manifest does not decide such a case.
    pub fn new(options: Options, service: &ServiceStack) -> anyhow::Result<Self> {
        let (desired, now) = (service.replicas.len(), Instant::now());
        let planner = Planner::new(options.rule.clone(), desired)?;
        let due = now + SYNC_PERIOD / options.rule.hurry;
        Ok(Self { options, planner, started: now, due, desired, meter: Meter::new()? })
    }

    /// Pause between two ticks that sees each period several times.
    pub fn pause(&self) -> Duration {
        (SYNC_PERIOD / self.options.rule.hurry / 4).min(LONGEST_PAUSE)
    }

    /// The count of the last decision.
    pub fn desired(&self) -> usize {
        self.desired
    }

    /// To be called several times within a period. Sees which replicas are ready and which have ended, decides if it is time to, and starts
    /// replicas or lets some leave. Waits at most for the replicas' answers, not until they are ready.
    ///
    /// # Errors
    /// A replica cannot be started or does not end.
    pub async fn tick(&mut self, service: &mut ServiceStack) -> anyhow::Result<Option<Step>> {
        service.see_ready().await?;
        service.reap_left().await?;
        let step = if Instant::now() >= self.due { Some(self.decide(service).await?) } else { None };
        service.scale_to(self.desired, self.options.profile, &self.options.sets)?;
        Ok(step)
    }

    async fn decide(&mut self, service: &ServiceStack) -> anyhow::Result<Step> {
        let readings = self.read(service).await;
        let at = Instant::now();
        self.due = (self.due + SYNC_PERIOD / self.options.rule.hurry).max(at);
        let observed = |(replica, reading): (&Replica, Option<Reading>)| Observed {
            id: replica.child,
            n: replica.n,
            age: at.saturating_duration_since(replica.started),
            ready_for: replica.ready.map(|ready| at.saturating_duration_since(ready)),
            reading,
        };
        let observed: Vec<_> = service.replicas.iter().zip(readings).map(observed).collect();
        let step = self.planner.decide(at - self.started, &observed, StepInput::default())?;
        self.desired = usize::try_from(step.answer.replicas).unwrap_or_default();
        Ok(step)
    }

    /// In the order of the replicas. `None`: the replica has ended, or does not answer.
    async fn read(&self, service: &ServiceStack) -> Vec<Option<Reading>> {
        let read = service.replicas.iter().map(async |replica| {
            service.stack.pid(replica.child)?;
            let time = self.meter.read(service, replica).await.ok()?;
            Some(Reading { at: self.started.elapsed(), used_s: time.used_s })
        });
        futures::future::join_all(read).await
    }
}
