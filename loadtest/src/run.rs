//! One step of a load test. goose brings the users to life and waits for them; what they do is here.
//!
//! Each user sends at fixed instants, one request at a time; instants that pass while it waits are skipped and counted. Latency
//! runs from the planned instant, so a late load generator or a slow answer cannot hide. goose measures nothing: its histograms
//! are coarse, and its bookkeeping would cost more than the request.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use goose::{
    GooseAttack,
    client::GooseClientBuilder,
    config::GooseConfiguration,
    goose::{GooseUser, Scenario, Transaction},
};
use rand::{SeedableRng, rngs::SmallRng};
use runtime::telemetry::{Context as TraceContext, Service, TRACEPARENT, Telemetry};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{class, class_of, class_of_failure, source_of},
    client::Client,
    ids::Ids,
    live::Live,
    plan::{Progress, StepOutcome, StepPlan},
    recorder::{Ended, Recorder, progress as second_of},
    schedule,
    trace::{self, Asked},
};

/// The shards keep two threads from waiting for each other; each costs 10 kB a second of the step.
const SHARDS: usize = 2;
/// Users goose starts per second.
const USERS_PER_S: u32 = 5000;
/// Beyond the time that starting should take.
const START_SLACK: Duration = Duration::from_secs(30);
/// From the last user's start to the common start: all of them have to hear of it.
const HEADWAY: Duration = Duration::from_millis(200);
/// goose looks twice a second whether its users have left.
const END_SLACK: Duration = Duration::from_secs(10);
/// For the last spans to be taken.
const TELEMETRY_PATIENCE: Duration = Duration::from_secs(2);
const PATH: &str = "/recommendations?user_id=";
const FILES_BESIDES_CONNECTIONS: u64 = 100;

/// What the users of a step share.
struct Step {
    plan: StepPlan,
    client: Client,
    /// Everything of a request's URL but the id.
    ids: Ids,
    /// By user: first planned instant and end, µs since the common start.
    presence: Vec<(u64, u64)>,
    /// Of the step.
    end_us: u64,
    shards: [Mutex<Recorder>; SHARDS],
    /// `None`: nobody asked for it.
    live: Option<Live>,
    ready: AtomicU32,
    start: watch::Sender<Option<Start>>,
    stop: AtomicBool,
    telemetry: Telemetry,
}

#[derive(Clone, Copy)]
struct Start {
    at: Instant,
    /// Unix time of the same instant.
    wall: Duration,
}

/// Users are tasks of goose's own: they outlive a dropped `run_step` unless they are told.
struct StopOnDrop(Arc<Step>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs one step; `progress` is called once a second. Takes warm-up and measured time, plus about two seconds to start and at
/// most the request timeout to end.
///
/// # Errors
/// The plan is out of range, its ids cannot be read, the process may not open enough files, the users did not start or end in
/// time, or SIGINT arrived.
pub async fn run_step(plan: StepPlan, progress: impl Fn(Progress)) -> Result<StepOutcome> {
    plan.check()?;
    check_open_files(plan.all_users())?;
    let step = Arc::new(Step::new(plan).await?);
    let _stop = StopOnDrop(Arc::clone(&step));
    let unwatched = CancellationToken::new();
    let _unwatch = unwatched.clone().drop_guard();
    if let Some((live, address)) = step.live.as_ref().zip(step.plan.metrics) {
        live.serve(address, unwatched).await?;
    }
    let attack = attack(&step)?;
    let length = Duration::from_micros(step.end_us);
    let starting = START_SLACK + Duration::from_secs(u64::from(step.plan.all_users() / USERS_PER_S));
    let ending = Duration::from_millis(step.plan.timeout_ms + step.plan.interval_ms) + END_SLACK;
    tokio::select! {
        ended = timeout(starting + length + ending, attack.execute()) => {
            ended.context("the users did not end in time")?.context("goose")?;
        }
        failed = watch_over(&step, starting, progress) => return Err(failed),
        () = killed() => bail!("stopped by a signal"),
    }
    let start = (*step.start.borrow()).context("the users ended before they all had started")?;
    let mut merged = Recorder::new(&step.plan)?;
    for shard in &step.shards {
        merged = merged.merge(&lock(shard))?;
    }
    step.telemetry.stop(TELEMETRY_PATIENCE).await;
    merged.outcome(&step.plan, start.wall, step.ids.repeated())
}

fn check_open_files(users: u32) -> Result<()> {
    let (limit, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    let needed = u64::from(users) + FILES_BESIDES_CONNECTIONS;
    ensure!(limit >= needed, "{users} users need {needed} open files, the limit is {limit}: see `ulimit -n`");
    Ok(())
}

/// goose for nothing but users: each calls the transaction once, which lasts for the whole step.
fn attack(step: &Arc<Step>) -> Result<GooseAttack> {
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(step.plan.base_url.clone());
    configuration.users = Some(step.plan.all_users() as usize);
    configuration.increase_rate = Some(USERS_PER_S.to_string());
    configuration.iterations = Some(1);
    configuration.no_metrics = true;
    // Else every run listens on port 5116.
    configuration.no_telnet = true;
    configuration.quiet = 2;
    let step = Arc::clone(step);
    let transaction = Transaction::new(Arc::new(move |user: &mut GooseUser| {
        let step = Arc::clone(&step);
        let number = user.weighted_users_index;
        Box::pin(async move {
            step.user(number).await;
            Ok(())
        })
    }));
    Ok(GooseAttack::initialize_with_config(configuration)?
        // Else goose builds a client per user, at 2 ms of CPU each. Nobody uses this one (see `client.rs`): with a check of certificates
        // goose would read those of the system, and fail where there are none.
        .set_client_builder_without_cookies(GooseClientBuilder::new().without_cookies().accept_invalid_certs(true))?
        .register_scenario(Scenario::new("step").register_transaction(transaction)))
}

/// Reports each second once it has passed; returns only when the users do not start.
async fn watch_over(step: &Step, starting: Duration, progress: impl Fn(Progress)) -> anyhow::Error {
    let mut started = step.start.subscribe();
    let start = match timeout(starting, started.wait_for(Option::is_some)).await {
        Ok(Ok(start)) => *start,
        _ => None,
    };
    let Some(start) = start else {
        let ready = step.ready.load(Ordering::Relaxed);
        return anyhow::anyhow!("only {ready} of {} users started within {starting:?}", step.plan.all_users());
    };
    for second in 0..step.end_us.div_ceil(1_000_000) as u32 {
        sleep_until(start.at + Duration::from_secs(u64::from(second) + 1)).await;
        match second_of(&step.plan, second, step.shards.iter().map(lock)) {
            Ok(figures) => progress(figures),
            Err(error) => return error,
        }
    }
    std::future::pending().await
}

/// goose puts a SIGINT handler of its own into the process, which only sets this flag.
async fn killed() {
    while !goose::is_killswitch_triggered() {
        sleep(Duration::from_millis(100)).await;
    }
}

fn lock(shard: &Mutex<Recorder>) -> MutexGuard<'_, Recorder> {
    // Recording does not panic halfway.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Step {
    async fn new(plan: StepPlan) -> Result<Self> {
        let path = &plan.known_ids;
        let known = tokio::fs::read_to_string(path).await;
        let known = known.with_context(|| format!("known ids in {}", path.display()))?;
        let client = Client::new(&plan.base_url, Duration::from_millis(plan.timeout_ms)).await?;
        Ok(Self {
            client,
            ids: Ids::new(&plan, &known)?,
            presence: presence(&plan),
            end_us: (plan.warm_up_ms + plan.measure_ms) * 1000,
            shards: [Mutex::new(Recorder::new(&plan)?), Mutex::new(Recorder::new(&plan)?)],
            live: plan.metrics.map(|_| Live::new(&plan)).transpose()?,
            ready: AtomicU32::new(0),
            start: watch::Sender::new(None),
            stop: AtomicBool::new(false),
            telemetry: telemetry(&plan)?,
            plan,
        })
    }

    async fn user(&self, number: usize) {
        let start = self.all_ready().await;
        let now_us = || start.elapsed().as_micros() as u64;
        let shard = &self.shards[number % SHARDS];
        let interval_us = self.plan.interval_ms * 1000;
        let mut random = SmallRng::seed_from_u64(self.plan.seed.wrapping_add(number as u64));
        let mut path = PATH.to_owned();
        let (mut planned_us, end_us) = self.presence[number];
        while planned_us < end_us {
            sleep_until(start + Duration::from_micros(planned_us)).await;
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            path.truncate(PATH.len());
            let known = self.ids.append(&mut random, &mut path);
            let sent_us = now_us();
            lock(shard).sent(planned_us, sent_us);
            if let Some(live) = &self.live {
                live.sent(Duration::from_micros(sent_us.saturating_sub(planned_us)));
            }
            let (asked_at, departure) = (std::time::Instant::now(), self.telemetry.start_trace());
            let asked = ask(&self.client, &path, departure).await;
            let url = || format!("{}{path}", self.plan.base_url.trim_end_matches('/'));
            trace::tell(&self.telemetry, departure, asked_at, url, &asked);
            let result = asked.result;
            let ended_us = now_us();
            let (next_us, skipped) = schedule::next_planned(planned_us, ended_us, interval_us);
            if let Some(live) = &self.live {
                live.ended(Duration::from_micros(ended_us.saturating_sub(planned_us)), result.as_ref().err(), skipped);
            }
            let mut recorder = lock(shard);
            recorder.ended(Ended { planned_us, ended_us, known, result });
            recorder.skipped((1..=skipped).map(|instant| planned_us + instant * interval_us));
            drop(recorder);
            planned_us = next_us;
        }
    }

    /// The common start, set by the last user to be ready.
    async fn all_ready(&self) -> Instant {
        let mut start = self.start.subscribe();
        if self.ready.fetch_add(1, Ordering::Relaxed) + 1 == self.plan.all_users() {
            let at = Instant::now() + HEADWAY;
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + HEADWAY;
            self.start.send_replace(Some(Start { at, wall }));
        }
        loop {
            if let Some(start) = *start.borrow_and_update() {
                return start.at;
            }
            // The sender lives in `self`: it cannot be gone.
            let _ = start.changed().await;
        }
    }
}

/// When each user sends first, and until when: those of the surge come last.
fn presence(plan: &StepPlan) -> Vec<(u64, u64)> {
    let interval_us = plan.interval_ms * 1000;
    let warm_up_us = plan.warm_up_ms * 1000;
    let end_us = warm_up_us + plan.measure_ms * 1000;
    let phases = |users: u32| schedule::phases(users as usize, interval_us, plan.arrival_grid_ms * 1000, plan.seed);
    let mut presence: Vec<_> = phases(plan.users).into_iter().map(|phase| (phase, end_us)).collect();
    if let Some(surge) = plan.surge {
        let (from_us, to_us) = (warm_up_us + surge.from_ms * 1000, warm_up_us + surge.to_ms * 1000);
        presence.extend(phases(surge.users).into_iter().map(|phase| (from_us + phase, to_us)));
    }
    presence
}

fn telemetry(plan: &StepPlan) -> Result<Telemetry> {
    let Some(config) = &plan.telemetry else { return Ok(Telemetry::default()) };
    // Nobody scrapes this process for what it could not send: it says so at its end.
    Telemetry::start(config, Service { name: "loadgen", listen: plan.name.clone() }, &prometheus::Registry::new())
}

/// Reads the whole answer; an error is its class.
async fn ask(client: &Client, path: &str, departure: Option<TraceContext>) -> Asked<Cow<'static, str>> {
    let context = departure.map(|context| context.to_string());
    let header = context.as_deref().map(|context| (TRACEPARENT, context));
    let answer = match client.get(path, header).await {
        Ok(answer) => answer,
        Err(failure) => return Asked { status: None, result: Err(class_of_failure(failure).into()) },
    };
    let result = match answer.status {
        200..=299 => source_of(&answer.body).ok_or(Cow::Borrowed(class::BAD_BODY)),
        status => Err(class_of(status, &answer.body)),
    };
    Asked { status: Some(answer.status), result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Surge, scenario::Known};

    #[test]
    fn users_of_a_surge_come_and_go() {
        let plan = StepPlan {
            name: "test".into(),
            base_url: String::new(),
            users: 2,
            surge: Some(Surge { users: 4, from_ms: 2000, to_ms: 5000 }),
            interval_ms: 1000,
            arrival_grid_ms: 0,
            timeout_ms: 1000,
            warm_up_ms: 3000,
            measure_ms: 9000,
            unknown_share: 0.0,
            known: Known::Once,
            known_ids: "-".into(),
            seed: 1,
            worker_threads: 1,
            metrics: None,
            telemetry: None,
        };
        let mut presence = presence(&plan);
        assert!(presence[..2].iter().all(|(first, end)| *first < 1_000_000 && *end == 12_000_000));
        presence.drain(..2);
        presence.sort_unstable();
        let quarter = |n: u64| (5_000_000 + n * 250_000, 8_000_000);
        assert_eq!(presence, [0, 1, 2, 3].map(quarter));
    }
}
