//! Runs one step of a load test. goose starts the users and waits for them; this module is what a user does.
//!
//! Closed arrivals: each user sends at fixed instants, one request at a time. Instants that pass while it waits for a response are skipped
//! and counted. Open arrivals: the users are slots. A free slot takes the next arrival before its instant and sends it then; an arrival
//! whose instant passed while all slots were busy is dropped and counted. Latency starts at the planned instant, so it includes the delay of a late load
//! generator. A request with all its tries is in `tries`. goose measures nothing: its histograms are coarse, and its bookkeeping costs more than the request.

mod tries;

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use contract::http::{Criticality, Source};
use goose::{
    GooseAttack,
    client::GooseClientBuilder,
    config::GooseConfiguration,
    goose::{GooseUser, Scenario, Transaction},
};
use rand::{SeedableRng, rngs::SmallRng};
use runtime::telemetry::{Service, Telemetry};
use statistics::seed::mixed;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::Client,
    figures::RequestCounts,
    live::Live,
    open_instants::{Arrival, OpenInstants},
    paths::Paths,
    plan::{Progress, StepOutcome, StepPlan, stream},
    recorder::{Completed, Recorder, progress as second_of},
    retry::Retries,
    timetable::{Instants, Timetable},
};

/// Recorder shards, so that two threads rarely wait for each other. Each shard needs 10 kB per second of the step.
const SHARDS: usize = 2;
/// Users goose starts per second.
const USERS_PER_S: u32 = 5000;
/// Timeout for the start of all users, in addition to `users / USERS_PER_S`.
const START_SLACK: Duration = Duration::from_secs(30);
/// Delay from the last user's start to the common start, so that every user's task knows the start before it begins.
const COMMON_START_DELAY: Duration = Duration::from_millis(200);
/// goose checks twice a second whether its users have ended.
const END_SLACK: Duration = Duration::from_secs(10);
/// Timeout for sending the last spans.
const TELEMETRY_STOP_TIMEOUT: Duration = Duration::from_secs(2);
const FILES_BESIDES_CONNECTIONS: u64 = 100;

/// State that the users of a step share.
struct Step {
    plan: StepPlan,
    client: Client,
    paths: Paths,
    schedule: Schedule,
    /// `None`: each request has one try.
    retries: Option<Mutex<Retries>>,
    /// End of the step, in µs since the common start.
    end_us: u64,
    shards: [Mutex<Recorder>; SHARDS],
    /// `None`: the plan has no address for metrics.
    live: Option<Live>,
    ready: AtomicU32,
    start: watch::Sender<Option<Start>>,
    stop: AtomicBool,
    telemetry: Telemetry,
}

/// When requests are sent.
enum Schedule {
    Closed(Timetable),
    /// Arrivals that no slot has taken.
    Open(Mutex<OpenInstants>),
}

/// A request that ended.
struct Ended {
    /// In µs since the common start.
    at_us: u64,
    /// Source of a good response that names one, or the class of the error.
    result: Result<Option<Source>, Cow<'static, str>>,
}

/// What a request asks for.
#[derive(Clone, Copy)]
struct Ask<'a> {
    path: &'a str,
    known: bool,
    criticality: Option<Criticality>,
}

#[derive(Clone, Copy)]
struct Start {
    at: Instant,
    /// Unix time of the same instant.
    wall: Duration,
}

/// The users' tasks belong to goose and outlive a dropped `run_step`; this flag ends them.
struct StopOnDrop(Arc<Step>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs one step and calls `progress` once a second. The duration is warm-up plus measured part, about two seconds to start, and at most
/// the request timeout to end.
///
/// # Errors
/// The plan is out of range, its ids cannot be read, the limit of open files is too low, the users did not start or end before their
/// timeout, or the process received SIGINT.
pub async fn run_step(plan: StepPlan, progress: impl Fn(Progress)) -> Result<StepOutcome> {
    run_step_until(plan, std::future::pending(), progress).await
}

/// As [`run_step`], but the step is over when `end` is. The outcome is then that of the measured part until that instant, its `series` has only
/// the whole seconds, and it has no `requests`: some are still under way.
///
/// # Errors
/// As [`run_step`], or the measured part has not begun at the end.
pub async fn run_step_until(
    plan: StepPlan,
    end: impl Future<Output = ()>,
    progress: impl Fn(Progress),
) -> Result<StepOutcome> {
    plan.check()?;
    check_open_files(plan.all_users())?;
    let step = Arc::new(Step::new(plan).await?);
    let _stop = StopOnDrop(Arc::clone(&step));
    let step_ended = CancellationToken::new();
    let _end_step = step_ended.clone().drop_guard();
    if let Some((live, address)) = step.live.as_ref().zip(step.plan.metrics) {
        live.serve(address, step_ended).await?;
    }
    let attack = attack(&step)?;
    let length = Duration::from_micros(step.end_us);
    let starting = START_SLACK + Duration::from_secs(u64::from(step.plan.all_users() / USERS_PER_S));
    let ending = Duration::from_millis(step.plan.timeout_ms + step.plan.interval_ms) + END_SLACK;
    let is_cut_short = tokio::select! {
        ended = timeout(starting + length + ending, attack.execute()) => {
            ended.context("the users did not end in time")?.context("goose")?;
            false
        }
        () = end => true,
        failed = report_seconds(&step, starting, progress) => return Err(failed),
        () = interrupted() => bail!("stopped by a signal"),
    };
    let start = (*step.start.borrow()).context("the users ended before all of them had started")?;
    let mut merged = Recorder::new(&step.plan)?;
    for shard in &step.shards {
        merged = merged.merge(&lock(shard))?;
    }
    if is_cut_short {
        merged.cut(micros_since(start.at))?;
    }
    step.telemetry.stop(TELEMETRY_STOP_TIMEOUT).await;
    let tries = step.plan.retry.as_ref().map(|_| merged.tries());
    let outcome = merged.outcome(&step.plan, start.wall, step.paths.repeated_ids())?;
    if is_cut_short {
        return Ok(outcome);
    }
    // All users have ended, so every request has.
    Ok(StepOutcome { requests: Some(RequestCounts { tries, ..step.client.counts() }), ..outcome })
}

fn check_open_files(users: u32) -> Result<()> {
    let (limit, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    let needed = u64::from(users) + FILES_BESIDES_CONNECTIONS;
    ensure!(
        limit >= needed,
        "{users} users or slots need {needed} open files, but the limit is {limit}: raise it (ulimit -n), or use fewer users or a lower max_in_flight"
    );
    Ok(())
}

/// The goose attack: each user runs the transaction once, and it lasts for the whole step.
fn attack(step: &Arc<Step>) -> Result<GooseAttack> {
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(step.plan.base_url.clone());
    configuration.users = Some(step.plan.all_users() as usize);
    configuration.increase_rate = Some(USERS_PER_S.to_string());
    configuration.iterations = Some(1);
    configuration.no_metrics = true;
    // Otherwise every run listens on port 5116.
    configuration.no_telnet = true;
    configuration.quiet = 2;
    let step = Arc::clone(step);
    let transaction = Transaction::new(Arc::new(move |user: &mut GooseUser| {
        let step = Arc::clone(&step);
        let number = user.weighted_users_index;
        Box::pin(async move {
            step.run(number).await;
            Ok(())
        })
    }));
    Ok(GooseAttack::initialize_with_config(configuration)?
        // Otherwise goose builds a client per user, at 2 ms of CPU each. This one is never used (see `client.rs`). With certificate checks
        // goose would read the system's certificates, and fail on a system without any.
        .set_client_builder_without_cookies(GooseClientBuilder::new().without_cookies().accept_invalid_certs(true))?
        .register_scenario(Scenario::new("step").register_transaction(transaction)))
}

/// Reports each second after its end. Returns only if the users do not start in time.
async fn report_seconds(step: &Step, starting: Duration, progress: impl Fn(Progress)) -> anyhow::Error {
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
        if let Some(live) = &step.live {
            live.users(&step.plan, (u64::from(second) + 1) * 1000);
        }
        match second_of(&step.plan, second, step.shards.iter().map(lock)) {
            Ok(figures) => progress(figures),
            Err(error) => return error,
        }
    }
    std::future::pending().await
}

/// goose installs its own SIGINT handler, which only sets this flag.
async fn interrupted() {
    while !goose::is_killswitch_triggered() {
        sleep(Duration::from_millis(100)).await;
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Neither recording nor counting instants panics halfway.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Step {
    async fn new(plan: StepPlan) -> Result<Self> {
        let timeout = Duration::from_millis(plan.timeout_ms);
        let client = match &plan.target {
            None => Client::new(&plan.base_url, timeout).await?,
            Some(target) => Client::to(target.addresses.clone(), target.host(&plan.base_url), timeout),
        };
        Ok(Self {
            client,
            paths: Paths::of(&plan).await?,
            schedule: match plan.arrivals.open() {
                None => Schedule::Closed(Timetable::of(&plan)),
                Some(open) => Schedule::Open(Mutex::new(OpenInstants::of(&plan, open))),
            },
            retries: plan.retry.as_ref().map(|retry| Mutex::new(Retries::new(retry))),
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

    /// The whole step of one user or slot.
    async fn run(&self, number: usize) {
        let shard = &self.shards[number % SHARDS];
        let start = match &self.schedule {
            Schedule::Closed(timetable) => {
                // Before the common start: a curve may have a thousand points.
                let instants = timetable.user(number);
                let start = self.all_ready().await;
                self.user(number, start, instants, shard).await;
                start
            }
            Schedule::Open(arrivals) => {
                let start = self.all_ready().await;
                self.slot(start, arrivals, shard).await;
                start
            }
        };
        if number == 0 && !self.stop.load(Ordering::Relaxed) {
            // The step lasts until its end, even if no user is left.
            sleep_until(start + Duration::from_micros(self.end_us)).await;
        }
    }

    async fn user(&self, number: usize, start: Instant, instants: Instants, shard: &Mutex<Recorder>) {
        let mut instants = instants.peekable();
        let mut random = SmallRng::seed_from_u64(mixed(self.plan.seed, &stream::user(number)));
        let mut path = String::new();
        while let Some(planned_us) = instants.next() {
            sleep_until(start + Duration::from_micros(planned_us)).await;
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let ask = self.ask(&mut random, &mut path);
            let ended = self.send(start, (number as u64, planned_us), ask, shard).await;
            let skipped = std::iter::from_fn(|| instants.next_if(|instant| *instant < ended.at_us));
            let skipped = lock(shard).skipped(skipped, ended.at_us);
            self.completed(planned_us, ask, ended, skipped, shard);
        }
    }

    /// Sends one request at a time. The ids belong to the arrival, so that they do not depend on which slot is free.
    async fn slot(&self, start: Instant, arrivals: &Mutex<OpenInstants>, shard: &Mutex<Recorder>) {
        let mut path = String::new();
        while let Some(Arrival { number, planned_us }) = self.next_arrival(start, arrivals, shard) {
            sleep_until(start + Duration::from_micros(planned_us)).await;
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let mut random = SmallRng::seed_from_u64(mixed(self.plan.seed, &stream::arrival(number)));
            let ask = self.ask(&mut random, &mut path);
            let ended = self.send(start, (number, planned_us), ask, shard).await;
            self.completed(planned_us, ask, ended, 0, shard);
        }
    }

    /// The criticality is drawn after the id: open arrivals have the same ids with and without one.
    fn ask<'a>(&self, random: &mut SmallRng, path: &'a mut String) -> Ask<'a> {
        let known = self.paths.next(random, path);
        let criticality = self.plan.criticality.map(|mix| mix.pick(random));
        Ask { path, known, criticality }
    }

    /// Takes the next arrival whose instant is still to come. Arrivals are taken in their order and free slots hold theirs in advance, so
    /// one that is past when it is taken found all slots busy: it is dropped. A slot that holds an arrival and wakes up late is not this
    /// case: it sends, and the delay is send lag.
    fn next_arrival(&self, start: Instant, arrivals: &Mutex<OpenInstants>, shard: &Mutex<Recorder>) -> Option<Arrival> {
        let mut arrivals = lock(arrivals);
        let now_us = micros_since(start);
        let mut dropped = 0;
        let next = loop {
            match arrivals.next() {
                Some(past) if past.planned_us < now_us => {
                    lock(shard).dropped(past.planned_us);
                    dropped += 1;
                }
                next => break next,
            }
        };
        if let Some(live) = &self.live {
            live.dropped(dropped);
        }
        next
    }

    fn completed(&self, planned_us: u64, ask: Ask<'_>, ended: Ended, skipped: u64, shard: &Mutex<Recorder>) {
        let Ended { at_us: ended_us, result } = ended;
        if let Some(live) = &self.live {
            let latency = Duration::from_micros(ended_us.saturating_sub(planned_us));
            live.completed(latency, result.as_ref().err(), skipped);
        }
        let Ask { known, criticality, .. } = ask;
        lock(shard).completed(Completed { planned_us, ended_us, known, criticality, result });
    }

    /// Waits for the common start, which the last user sets.
    async fn all_ready(&self) -> Instant {
        let mut start = self.start.subscribe();
        if self.ready.fetch_add(1, Ordering::Relaxed) + 1 == self.plan.all_users() {
            let at = Instant::now() + COMMON_START_DELAY;
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + COMMON_START_DELAY;
            self.start.send_replace(Some(Start { at, wall }));
        }
        loop {
            if let Some(start) = *start.borrow_and_update() {
                return start.at;
            }
            // Cannot fail: `self` owns the sender.
            let _ = start.changed().await;
        }
    }
}

fn micros_since(start: Instant) -> u64 {
    start.elapsed().as_micros() as u64
}

fn telemetry(plan: &StepPlan) -> Result<Telemetry> {
    let Some(config) = &plan.telemetry else { return Ok(Telemetry::default()) };
    // These metrics are not scraped; `stop` logs the number of spans that were not sent.
    Telemetry::start(config, Service { name: "loadgen", listen: plan.name.clone() }, &prometheus::Registry::new())
}
