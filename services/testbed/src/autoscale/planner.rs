//! From readings of the replicas to the next count. Pure: a live autoscaler passes what it read and the machine's time, a simulation passes
//! its own.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

use anyhow::Context as _;
use autoscaler::{
    Manifest, Phase, Status,
    line::{Case, ContainerInput, Kind, PodInput, SampleInput, Session, StepAnswer, StepInput, UsageInput},
};
use launcher::Cores;

/// Between two decisions, on the nominal clock: Kubernetes' `--horizontal-pod-autoscaler-sync-period`.
pub const SYNC_PERIOD: Duration = Duration::from_secs(15);
/// A pod has one container.
pub(super) const CONTAINER: &str = "app";

/// What the planner is to keep.
#[derive(Debug, Clone)]
pub struct Rule {
    pub manifest: Manifest,
    /// CPU request of each replica; also its limit.
    pub request: Cores,
    /// How many times as fast as the machine's clock the planner's clock runs; at least 1.
    pub hurry: u32,
}

/// One decision: what the planner was given and what it answered. All of a run are a line of `testbed plan`.
#[derive(Debug, Clone)]
pub struct Step {
    pub input: StepInput,
    pub answer: StepAnswer,
    /// By number of the replica: used share of its request since the last decision, in percent. Without those that have just been started.
    pub utilization_pct: BTreeMap<usize, f64>,
}

/// A replica at a decision. Times on the machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Observed<Id> {
    /// Of its process: no other replica has had it.
    pub id: Id,
    /// Number of the replica, of those that run at a time.
    pub n: usize,
    /// Since its start.
    pub age: Duration,
    /// Since it was ready first. `None`: it has never been.
    pub ready_for: Option<Duration>,
    /// `None`: it cannot be read.
    pub reading: Option<Reading>,
}

/// CPU time that a replica has used.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Since the planner was started.
    pub at: Duration,
    /// Since the replica was started, in seconds.
    pub used_s: f64,
}

/// The planner's memory between two decisions.
pub struct Planner<Id> {
    rule: Rule,
    session: Session,
    /// On the nominal clock.
    decided_ms: i64,
    readings: HashMap<Id, Reading>,
}

/// Of one replica, since the reading before.
#[derive(Debug, Clone, Copy)]
struct Sample {
    window: Duration,
    used_s: f64,
}

impl Rule {
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

impl<Id: Copy + Eq + Hash> Planner<Id> {
    /// Begins with this count.
    ///
    /// # Errors
    /// The manifest does not decide such a case.
    pub fn new(rule: Rule, replicas: usize) -> anyhow::Result<Self> {
        let session = Session::start(&rule.case("", replicas)).context("cannot scale by this manifest")?;
        Ok(Self { rule, session, decided_ms: 0, readings: HashMap::new() })
    }

    /// `now`: since the planner was started. `given`: what else the step has, such as external metrics.
    ///
    /// # Errors
    /// The planner refuses what was observed.
    pub fn decide(&mut self, now: Duration, replicas: &[Observed<Id>], given: StepInput) -> anyhow::Result<Step> {
        let samples = self.sample(replicas);
        let now_ms = self.rule.nominal_ms(now);
        let pods = replicas.iter().map(|replica| self.pod(replica, samples.get(&replica.n))).collect();
        let input = StepInput { after_ms: now_ms - self.decided_ms, pods, ..given };
        let answer = self.session.step(&input).context("the planner refuses what was sampled")?;
        self.decided_ms = now_ms;
        let request = self.rule.request.get();
        let pct = |(n, sample): (&usize, &Sample)| (*n, 100.0 * sample.used_s / sample.window.as_secs_f64() / request);
        Ok(Step { input, answer, utilization_pct: samples.iter().map(pct).collect() })
    }

    /// Of the replicas that were there at the decision before, by number. Of a replica that is just starting, or was just killed, the
    /// metrics API knows nothing either.
    fn sample(&mut self, replicas: &[Observed<Id>]) -> BTreeMap<usize, Sample> {
        let (mut samples, mut readings) = (BTreeMap::new(), HashMap::new());
        for (replica, reading) in replicas.iter().filter_map(|replica| Some((replica, replica.reading?))) {
            if let Some(before) = self.readings.get(&replica.id) {
                let used_s = (reading.used_s - before.used_s).max(0.0);
                samples.insert(replica.n, Sample { window: reading.at - before.at, used_s });
            }
            readings.insert(replica.id, reading);
        }
        self.readings = readings;
        samples
    }

    fn pod(&self, replica: &Observed<Id>, sample: Option<&Sample>) -> PodInput {
        let ago = |duration: Duration| Some(self.rule.nominal_ms(duration));
        let milli = |cores: f64| Some((1_000.0 * cores).round() as i64);
        let metrics = sample.map(|sample| SampleInput {
            sampled_ms_ago: 0,
            window_ms: self.rule.nominal_ms(sample.window),
            containers: vec![UsageInput {
                name: CONTAINER.into(),
                usage_milli: milli(sample.used_s / sample.window.as_secs_f64()),
            }],
        });
        PodInput {
            name: format!("api-{}", replica.n),
            phase: Phase::Running,
            deleted: false,
            started_ms_ago: ago(replica.age),
            ready: Some(if replica.ready_for.is_some() { Status::True } else { Status::False }),
            ready_changed_ms_ago: ago(replica.ready_for.unwrap_or(replica.age)),
            containers: vec![ContainerInput {
                name: CONTAINER.into(),
                request_milli: milli(self.rule.request.get()),
                sidecar: false,
            }],
            metrics,
        }
    }
}
