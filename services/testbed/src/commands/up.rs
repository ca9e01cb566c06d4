//! `testbed up`: starts a supervisor that owns the stack, and waits until it is ready.

mod scaling;

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use api::Profile;
use launcher::{Description, prometheus};
use loadtest::scenario::Scenario;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use worker::config::Transport;

use self::scaling::Scaling;
pub use self::scaling::{HURRY, QUOTA};
use crate::{
    autoscale::Controller,
    cli::{LawChoice, Part, UpArgs},
    data,
    stack::control_plane::{self, ControlPlane},
    stack::service::{self, Monitoring, Plan, ServiceStack},
};

/// Name of the stack, as `status` shows it.
pub const STACK: &str = "up";
/// Endpoint that is there once all of the stack is ready.
pub const READY: &str = "ready-since-ms";
/// Ids that the data has, for `load`.
pub const KNOWN_IDS: &str = "known-ids";
/// Items that the data has, for `load events`.
pub const KNOWN_ITEMS: &str = "known-items";
/// Where the load generator shows its counters while it runs, as Prometheus expects it: `address:port`.
pub const LOADGEN_METRICS: &str = "loadgen-metrics";

/// Time from the end of a worker, monitor, replica, Redis or Kafka to its restart: long enough to see that it has failed.
pub const DEAD_FOR: Duration = Duration::from_secs(15);
/// Between two looks at the processes.
const PAUSE: Duration = Duration::from_secs(1);
/// Checks of the size of the gateway's access log. At 10,000 requests/s it grows by 25 MB in this time.
const ACCESS_LOG_CHECK: Duration = Duration::from_secs(60);
const MAX_ACCESS_LOG_BYTES: u64 = 64 << 20;

/// Input of the supervisor.
#[derive(Debug, Serialize, Deserialize)]
struct StackPlan {
    profile: Profile,
    scenario: String,
    no_law: bool,
    source: data::Source,
    sets: Vec<String>,
    instances: u16,
    port: Option<u16>,
    monitors: u8,
    workers: u8,
    beats: Transport,
    events: bool,
    scaling: Option<Scaling>,
}

pub async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    for found in launcher::orphans::find()?.iter().filter(|found| found.name() == STACK) {
        if found.owner_alive {
            bail!("a stack is up already: ./testbed status shows it, ./testbed down stops it");
        }
        launcher::orphans::reap(found)?;
    }
    // Errors in the arguments are reported here, not in the supervisor's log.
    let mut scenario = Scenario::load(&args.scenario)?;
    if let Some(law) = args.law {
        law.apply(&mut scenario)?;
    }
    let mut plan = Plan::new(STACK, &scenario);
    plan.instances = args.instances;
    let scaling = Scaling::of(&args)?;
    if let Some(scaling) = &scaling {
        scaling.fill(&mut plan)?;
    }
    plan.check(args.profile, &args.sets)?;
    // Without workers nothing would consume the events.
    let events = args.without != Some(Part::Events) && args.workers > 0;
    if events && let Err(reason) = launcher::kafka::provide().await {
        bail!(
            "Kafka, which carries the events, is not available: {reason}; ./testbed up --without events starts the stack without it"
        );
    }
    let absolute =
        |path: PathBuf| std::path::absolute(&path).with_context(|| format!("cannot resolve {}", path.display()));
    let source = match args.data {
        Some(file) => {
            File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
            data::Source::File(absolute(file)?)
        }
        None => data::Source::Generator(args.users),
    };
    let scenario = if Path::new(&args.scenario).exists() {
        absolute(args.scenario.into())?.display().to_string()
    } else {
        args.scenario
    };
    let stack_plan = StackPlan {
        profile: args.profile,
        scenario,
        no_law: args.law == Some(LawChoice::None),
        source,
        sets: args.sets,
        instances: args.instances,
        port: args.port,
        monitors: args.monitors,
        workers: args.workers,
        beats: args.beats,
        events,
        scaling,
    };
    let home = launcher::home();
    std::fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    let (plan_file, log_file) = (home.join("up.json"), home.join("up.log"));
    std::fs::write(&plan_file, serde_json::to_vec_pretty(&stack_plan)?)?;
    let supervisor = Supervisor(Some(start(&plan_file, &log_file)?));
    supervisor.wait_ready(&log_file).await
}

fn start(stack_plan: &Path, log: &Path) -> anyhow::Result<Child> {
    let log_file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    Command::new(service::own_program()?)
        .args(["serve", "supervisor"])
        .arg(stack_plan)
        .stdin(Stdio::null())
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        // Ctrl-C in this terminal must not reach the supervisor.
        .process_group(0)
        .spawn()
        .context("cannot start the supervisor")
}

/// Stopped when dropped, unless the stack is ready.
struct Supervisor(Option<Child>);

impl Supervisor {
    async fn wait_ready(mut self, log: &Path) -> anyhow::Result<ExitCode> {
        let mut shown = 0;
        loop {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let stages: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(STAGE)).collect();
            for stage in &stages[shown..] {
                eprintln!("{stage}");
            }
            shown = stages.len();
            let child = self.0.as_mut().context("the supervisor was not started")?;
            if let Some(status) = child.try_wait()? {
                self.0 = None;
                let reason: Vec<&str> = text.lines().filter(|line| !line.starts_with(STAGE)).collect();
                bail!("the stack did not start ({status}): {}", reason.join("\n"));
            }
            if let Ok(stack) = super::own_stack() {
                // The supervisor outlives this command.
                self.0 = None;
                print_next_steps(&stack);
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn print_next_steps(stack: &Description) {
    let gateway = stack.endpoints.get("gateway").map_or("?", String::as_str);
    let metrics = stack.endpoints.get("prometheus").map_or("(Prometheus is not installed)", String::as_str);
    println!("up: {gateway}");
    println!("  request  curl '{gateway}/recommendations?user_id=u000042'");
    println!("  API      {gateway}/docs/");
    println!("  load     ./testbed load --users 200 --for 30s");
    println!("  events   ./testbed load events --rate 200");
    println!("  traces   ./testbed trace --slowest");
    println!("  metrics  {metrics}");
    println!("  break    ./testbed fault redis kill");
    println!("  status   ./testbed status");
    println!("  stop     ./testbed down");
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            // The supervisor stops its children in order; the stack's own deadline bounds `wait`.
            let sent = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            if sent.is_ok() {
                let _ = child.wait();
            }
        }
    }
}

const STAGE: &str = "stage: ";

/// The `main` of the supervisor: starts the stack and watches it until SIGTERM or SIGINT.
pub fn supervise(stack_plan: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(stack_plan).with_context(|| format!("cannot read {}", stack_plan.display()))?;
    let stack_plan: StackPlan = serde_json::from_str(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let stop = runtime::lifecycle::shutdown_on_signal()?;
        // The terminal of `up` may be closed.
        let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        tokio::spawn(async move { while hang_up.recv().await.is_some() {} });
        tokio::select! {
            result = run_stack(stack_plan) => result,
            () = stop.cancelled() => Ok(()),
        }
    });
    runtime.shutdown_timeout(super::END_OF_THREADS);
    result
}

/// Starts the stack and watches it. Returns only with an error; dropping the future stops the stack.
async fn run_stack(stack_plan: StackPlan) -> anyhow::Result<()> {
    let mut scenario = Scenario::load(&stack_plan.scenario)?;
    if stack_plan.no_law {
        scenario.law = loadtest::scenario::Law::None;
    }
    println!("{STAGE}reading the data");
    let loaded = stack_plan.source.load().await?;
    println!("{STAGE}starting servers");
    let mut plan = Plan::new(STACK, &scenario);
    plan.instances = stack_plan.instances;
    plan.port = stack_plan.port;
    let replica_sets = stack_plan.sets.clone();
    plan.sets = stack_plan.sets;
    plan.traces = true;
    plan.events = stack_plan.events;
    if let Some(scaling) = &stack_plan.scaling {
        scaling.fill(&mut plan)?;
    }
    let replicas = plan.replicas;
    // For requests without a sampling decision, such as curl's. The load generator sends its own decision.
    plan.telemetry.sample_ratio = 0.1;
    let loadgen = SocketAddr::from(([127, 0, 0, 1], launcher::free_port()?));
    plan.prometheus = launcher::find_program(prometheus::PROGRAMS).map(|_| Monitoring::usual(loadgen));
    let mut cluster = ServiceStack::start(plan).await?;
    println!("{STAGE}importing {} events of {} users", loaded.dataset.events.len(), loaded.dataset.users.len());
    cluster.load(&loaded.dataset).await?;
    let known_ids = cluster.write_known_ids(&loaded.dataset)?;
    let known_items = cluster.write_known_items(&loaded.dataset)?;
    let mut plane = match stack_plan.workers {
        0 => None,
        workers => {
            println!("{STAGE}starting etcd, {} monitors and {workers} workers", stack_plan.monitors);
            let (monitors, workers) = (stack_plan.monitors.into(), workers.into());
            let telemetry = cluster.telemetry().clone();
            let plan = control_plane::Plan {
                monitors,
                workers,
                transport: stack_plan.beats,
                telemetry,
                worker_sets: worker_sets(&cluster, &replica_sets),
                segments: true,
                ..control_plane::Plan::default()
            };
            // Workers use the store without its law: the law must not slow down a takeover.
            let store = cluster.direct_store();
            let plane = ControlPlane::start(&mut cluster.stack, &plan, &store).await?;
            if let Some(prometheus) = &cluster.prometheus {
                plane.jobs().iter().try_for_each(|job| prometheus.add(job))?;
            }
            Some(plane)
        }
    };
    if let Some(plane) = &plane {
        // Before the user's own settings: with `--set model.source=store` replicas and workers keep the model of the catalogue.
        cluster.default_sets(plane.segment_sets());
    }
    let quota = cluster.stack.quotas().map_or_else(String::new, |quota| format!(", CPU quota: {quota}"));
    println!("{STAGE}starting {replicas} replicas, profile {}{quota}", stack_plan.profile);
    cluster.start_replicas(stack_plan.profile, &[]).await?;
    cluster.stack.set_endpoint(KNOWN_IDS, &known_ids.display().to_string())?;
    cluster.stack.set_endpoint(KNOWN_ITEMS, &known_items.display().to_string())?;
    cluster.stack.set_endpoint(LOADGEN_METRICS, &loadgen.to_string())?;
    cluster.stack.set_endpoint("profile", &stack_plan.profile.to_string())?;
    let mut scaling = match &stack_plan.scaling {
        Some(scaling) => Some(scaling.start(stack_plan.profile, &mut cluster).await?),
        None => None,
    };
    let pause = scaling.as_ref().map_or(PAUSE, Controller::pause);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    // Before the stack is announced as ready: `fault` may follow at once.
    cluster.allow_ends();
    cluster.stack.set_endpoint(READY, &now.as_millis().to_string())?;
    let (mut serving, mut heartbeats) = (Restart::default(), Restart::default());
    let mut access_log_checked = Instant::now();
    loop {
        tokio::time::sleep(pause).await;
        if access_log_checked.elapsed() >= ACCESS_LOG_CHECK {
            access_log_checked = Instant::now();
            // The stack works without the rotation: it is tried again.
            if let Err(error) = cluster.bound_access_log(MAX_ACCESS_LOG_BYTES) {
                eprintln!("cannot rotate the access log of the gateway: {error:#}");
            }
        }
        // Fails if a process has ended that is not restarted below.
        cluster.stack.check()?;
        if let Some(scaling) = &mut scaling
            && let Some(step) = scaling.tick(&mut cluster).await?
            && let Some(line) = scaling::line(&step, SystemTime::now())
        {
            println!("{line}");
        }
        if serving.is_due(cluster.all_run()) {
            cluster.restart_dead(stack_plan.profile).await?;
        }
        if let Some(plane) = &mut plane
            && heartbeats.is_due(plane.members().all(|member| cluster.stack.pid(member.child).is_some()))
        {
            plane.restart_dead(&mut cluster.stack).await?;
        }
    }
}

/// Workers rank lists by the same model as the replicas.
fn worker_sets(cluster: &ServiceStack, replica_sets: &[String]) -> Vec<String> {
    let by_store = replica_sets.iter().any(|set| set.replace([' ', '"'], "") == "model.source=store");
    let by_segments = (!by_store).then(|| control_plane::LISTS_BY_SEGMENTS.to_owned());
    cluster.worker_event_sets().into_iter().chain(by_segments).collect()
}

/// Delays restarts by `DEAD_FOR`.
#[derive(Default)]
struct Restart {
    dead_since: Option<Instant>,
}

impl Restart {
    fn is_due(&mut self, all_run: bool) -> bool {
        if all_run {
            self.dead_since = None;
            return false;
        }
        let due = self.dead_since.get_or_insert_with(Instant::now).elapsed() >= DEAD_FOR;
        if due {
            self.dead_since = None;
        }
        due
    }
}
