//! The autoscaler of a stack, for `up --autoscale` and `experiment autoscaling`: it samples the replicas' CPU, asks the planner
//! (`services/autoscaler`, pure), and starts replicas or lets some leave.
//!
//! The planner's clock is nominal: with `hurry` 10 it runs ten times as fast as the machine's, so that every window and period of the manifest
//! is a tenth of its length. Begin reading at [`Autoscaler::tick`].

mod controller;
mod cpu;
pub mod manifest;
mod metrics;
mod trace;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use api::Profile;
use autoscaler::{
    Manifest, Phase, Status,
    line::{Case, ContainerInput, Kind, PodInput, SampleInput, Session, StepAnswer, StepInput, UsageInput},
};
use launcher::{ChildId, Cores};

pub use self::{
    controller::{AUTOSCALER, Controller},
    cpu::{CpuTime, Meter},
};
use crate::stack::service::{Replica, ServiceStack};

/// Between two decisions, on the nominal clock: Kubernetes' `--horizontal-pod-autoscaler-sync-period`.
pub const SYNC_PERIOD: Duration = Duration::from_secs(15);
/// The time from a replica's start until it is ready is known to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// A pod has one container.
const CONTAINER: &str = "app";

/// CPU of a replica: the article's 2 CPU on a scale of 1:40, so that a machine of one core holds 20 replicas.
pub const REQUEST_CORES: f64 = 0.05;
/// CPU time of a request on that scale, in microseconds: 8 replicas hold 400 requests/s, 20 hold 1,000.
pub const WORK_US: u64 = 1_000;

/// What an autoscaler is to keep.
#[derive(Debug, Clone)]
pub struct Options {
    pub manifest: Manifest,
    /// CPU request of each replica; also its limit.
    pub request: Cores,
    /// How many times as fast as the machine's clock the planner's clock runs; at least 1.
    pub hurry: u32,
    /// For replicas that it starts.
    pub profile: Profile,
    pub sets: Vec<String>,
}

/// One decision: what the planner was given and what it answered. All of a run are a line of `testbed plan`.
#[derive(Debug, Clone)]
pub struct Step {
    pub input: StepInput,
    pub answer: StepAnswer,
    /// By number of the replica: used share of its request since the last decision, in percent. Without those that have just been started.
    pub utilization_pct: BTreeMap<usize, f64>,
}

pub struct Autoscaler {
    options: Options,
    session: Session,
    started: Instant,
    /// On the nominal clock, in milliseconds since `started`.
    decided_ms: i64,
    due: Instant,
    desired: usize,
    meter: Meter,
    readings: HashMap<ChildId, Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    time: CpuTime,
}

/// Of one replica, since the reading before.
#[derive(Debug, Clone, Copy)]
struct Sample {
    window: Duration,
    used_s: f64,
}

impl Options {
    /// The case of a run that begins with `replicas`, without its steps.
    pub fn case(&self, id: &str, replicas: usize) -> Case {
        let mut case = Case {
            id: id.to_owned(),
            kind: Kind::Reconcile,
            current_replicas: Some(i32::try_from(replicas).unwrap_or(i32::MAX)),
            ..Case::default()
        };
        self.manifest.fill(&mut case);
        case
    }

    fn nominal_ms(&self, duration: Duration) -> i64 {
        i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).saturating_mul(self.hurry.into())
    }
}

impl Autoscaler {
    /// Begins with the replicas that run. The first decision comes after one period, when there are samples.
    ///
    /// # Errors
    /// The manifest does not decide such a case.
    pub fn new(options: Options, service: &ServiceStack) -> anyhow::Result<Self> {
        let (desired, now) = (service.replicas.len(), Instant::now());
        let session = Session::start(&options.case("", desired)).context("cannot scale by this manifest")?;
        let due = now + SYNC_PERIOD / options.hurry;
        Ok(Self {
            options,
            session,
            started: now,
            decided_ms: 0,
            due,
            desired,
            readings: HashMap::new(),
            meter: Meter::new()?,
        })
    }

    /// Pause between two ticks that sees each period several times.
    pub fn pause(&self) -> Duration {
        (SYNC_PERIOD / self.options.hurry / 4).min(LONGEST_PAUSE)
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
        let samples = self.sample(service).await?;
        let at = Instant::now();
        self.due = (self.due + SYNC_PERIOD / self.options.hurry).max(at);
        let now_ms = self.options.nominal_ms(at - self.started);
        let pods = service.replicas.iter().map(|replica| self.pod(replica, samples.get(&replica.n), at)).collect();
        let input = StepInput { after_ms: now_ms - self.decided_ms, pods, ..StepInput::default() };
        let answer = self.session.step(&input).context("the planner refuses what was sampled")?;
        self.decided_ms = now_ms;
        self.desired = usize::try_from(answer.replicas).unwrap_or_default();
        let request = self.options.request.get();
        let pct = |(n, sample): (&usize, &Sample)| (*n, 100.0 * sample.used_s / sample.window.as_secs_f64() / request);
        Ok(Step { input, answer, utilization_pct: samples.iter().map(pct).collect() })
    }

    /// Of the replicas that were there at the decision before, by number.
    async fn sample(&mut self, service: &ServiceStack) -> anyhow::Result<BTreeMap<usize, Sample>> {
        let running = service.replicas.iter().filter(|replica| service.stack.pid(replica.child).is_some());
        let read = running.map(async |replica| {
            let time = self.meter.read(service, replica).await;
            time.map(|time| (replica, Reading { at: Instant::now(), time }))
        });
        let read = futures::future::join_all(read).await;
        let (mut samples, mut readings) = (BTreeMap::new(), HashMap::new());
        // Of a replica that is just starting, or was just killed, the metrics API knows nothing either.
        for (replica, reading) in read.into_iter().flatten() {
            if let Some(before) = self.readings.get(&replica.child) {
                let used_s = (reading.time.used_s - before.time.used_s).max(0.0);
                samples.insert(replica.n, Sample { window: reading.at - before.at, used_s });
            }
            readings.insert(replica.child, reading);
        }
        self.readings = readings;
        Ok(samples)
    }

    fn pod(&self, replica: &Replica, sample: Option<&Sample>, now: Instant) -> PodInput {
        let ago = |then: Instant| Some(self.options.nominal_ms(now.saturating_duration_since(then)));
        let milli = |cores: f64| Some((1_000.0 * cores).round() as i64);
        let metrics = sample.map(|sample| SampleInput {
            sampled_ms_ago: 0,
            window_ms: self.options.nominal_ms(sample.window),
            containers: vec![UsageInput {
                name: CONTAINER.into(),
                usage_milli: milli(sample.used_s / sample.window.as_secs_f64()),
            }],
        });
        PodInput {
            name: format!("api-{}", replica.n),
            phase: Phase::Running,
            deleted: false,
            started_ms_ago: ago(replica.started),
            ready: Some(if replica.ready.is_some() { Status::True } else { Status::False }),
            ready_changed_ms_ago: ago(replica.ready.unwrap_or(replica.started)),
            containers: vec![ContainerInput {
                name: CONTAINER.into(),
                request_milli: milli(self.options.request.get()),
                sidecar: false,
            }],
            metrics,
        }
    }
}
