//! `testbed up`: starts a supervisor that owns the stack, and waits until it is ready.

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use api::Profile;
use launcher::{Stack, prometheus};
use loadtest::scenario::Scenario;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use worker::config::Transport;

use crate::{
    cli::{LawChoice, UpArgs},
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
/// Where the load generator shows its counters while it runs, as Prometheus expects it: `address:port`.
pub const LOADGEN_METRICS: &str = "loadgen-metrics";

/// A monitor or worker that died is started again after so long.
const DEAD_FOR: Duration = Duration::from_secs(15);

/// What the supervisor is told.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
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
}

pub async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    for found in launcher::orphans::find()?.iter().filter(|found| found.name() == STACK) {
        if found.owner_alive {
            bail!("a stack is up already: ./testbed status shows it, ./testbed down ends it");
        }
        launcher::orphans::reap(found)?;
    }
    // What can be wrong with the words is said here, not in a log.
    let mut scenario = Scenario::load(&args.scenario)?;
    if let Some(law) = args.law {
        law.apply(&mut scenario)?;
    }
    let mut plan = Plan::new(STACK, &scenario);
    plan.instances = args.instances;
    plan.check(args.profile, &args.sets)?;
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
    let order = Order {
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
    };
    let home = launcher::home();
    std::fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    let (order_file, log_file) = (home.join("up.json"), home.join("up.log"));
    std::fs::write(&order_file, serde_json::to_vec_pretty(&order)?)?;
    let supervisor = Supervisor(Some(start(&order_file, &log_file)?));
    supervisor.wait_ready(&log_file).await
}

fn start(order: &Path, log: &Path) -> anyhow::Result<Child> {
    let log_file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    Command::new(service::own_program()?)
        .args(["serve", "supervisor"])
        .arg(order)
        .stdin(Stdio::null())
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        // Ctrl-C in this terminal is for `up`, and later for other commands; the stack goes on.
        .process_group(0)
        .spawn()
        .context("cannot start the supervisor")
}

/// Told to stop if `up` is interrupted before the stack is ready.
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
            let child = self.0.as_mut().context("the supervisor is gone")?;
            if let Some(status) = child.try_wait()? {
                self.0 = None;
                let reason: Vec<&str> = text.lines().filter(|line| !line.starts_with(STAGE)).collect();
                bail!("the stack did not start ({status}): {}", reason.join("\n"));
            }
            if let Ok(stack) = super::own_stack() {
                // It is to outlive this command.
                self.0 = None;
                println!("up: {}", stack.endpoints.get("gateway").map_or("?", String::as_str));
                println!(
                    "  try   curl '{}/recommendations?user_id=u000042'",
                    stack.endpoints.get("gateway").map_or("?", String::as_str)
                );
                println!("  docs  {}/docs/", stack.endpoints.get("gateway").map_or("?", String::as_str));
                println!("  load  ./testbed load smoke");
                println!("  look  ./testbed trace --slowest");
                match stack.endpoints.get("prometheus") {
                    Some(url) => println!("        {url}"),
                    None => println!("        (Prometheus is not installed: nothing keeps the metrics)"),
                }
                println!("        ./testbed status");
                println!("  end   ./testbed down");
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            // It ends its children in order; `wait` is bounded by the stack's own deadline.
            let told = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            if told.is_ok() {
                let _ = child.wait();
            }
        }
    }
}

const STAGE: &str = "stage: ";

/// The supervisor's life: start everything, then watch until told to stop.
pub fn supervise(order: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(order).with_context(|| format!("cannot read {}", order.display()))?;
    let order: Order = serde_json::from_str(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let stop = runtime::lifecycle::shutdown_on_signal()?;
        // The terminal in which `up` ran may close.
        let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        tokio::spawn(async move { while hang_up.recv().await.is_some() {} });
        tokio::select! {
            result = hold(order) => result,
            () = stop.cancelled() => Ok(()),
        }
    });
    runtime.shutdown_timeout(super::END_OF_THREADS);
    result
}

/// Ends only with an error; dropped, it ends the stack.
async fn hold(order: Order) -> anyhow::Result<()> {
    let mut scenario = Scenario::load(&order.scenario)?;
    if order.no_law {
        scenario.law = loadtest::scenario::Law::None;
    }
    println!("{STAGE}reading the data");
    let loaded = order.source.load().await?;
    println!("{STAGE}starting servers");
    let mut plan = Plan::new(STACK, &scenario);
    plan.instances = order.instances;
    plan.port = order.port;
    plan.sets = order.sets;
    plan.traces = true;
    // Of requests that bring no decision along, such as curl's; the load generator makes its own.
    plan.telemetry.sample_ratio = 0.1;
    let loadgen = SocketAddr::from(([127, 0, 0, 1], launcher::free_port()?));
    plan.prometheus = launcher::find_program(prometheus::PROGRAMS).map(|_| Monitoring::usual(loadgen));
    let mut cluster = ServiceStack::start(plan).await?;
    println!("{STAGE}importing {} events of {} users", loaded.dataset.events.len(), loaded.dataset.users.len());
    cluster.load(&loaded.dataset).await?;
    let known_ids = cluster.write_known_ids(&loaded.dataset)?;
    println!("{STAGE}starting {} replicas, profile {}", scenario.replicas, order.profile);
    cluster.start_replicas(order.profile, &[]).await?;
    let mut plane = match order.workers {
        0 => None,
        workers => {
            println!("{STAGE}starting etcd, {} monitors and {workers} workers", order.monitors);
            let (monitors, workers) = (order.monitors.into(), workers.into());
            let telemetry = cluster.telemetry().clone();
            let transport = order.beats;
            let plan =
                control_plane::Plan { monitors, workers, transport, telemetry, ..control_plane::Plan::default() };
            // The law is the replicas' store's; a takeover is not to be slower for it.
            let store = cluster.direct_store();
            let plane = ControlPlane::start(&mut cluster.stack, &plan, &store).await?;
            if let Some(prometheus) = &cluster.prometheus {
                plane.jobs().iter().try_for_each(|job| prometheus.add(job))?;
            }
            Some(plane)
        }
    };
    cluster.stack.set_endpoint(KNOWN_IDS, &known_ids.display().to_string())?;
    cluster.stack.set_endpoint(LOADGEN_METRICS, &loadgen.to_string())?;
    cluster.stack.set_endpoint("profile", &order.profile.to_string())?;
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?;
    cluster.stack.set_endpoint(READY, &now.as_millis().to_string())?;
    let mut dead_since = None;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // A stack with a dead part is not the stack that was asked for: it ends, and says why.
        cluster.stack.check()?;
        if let Some(plane) = &mut plane {
            restart_late(plane, &mut cluster.stack, &mut dead_since).await?;
        }
    }
}

/// Monitors and workers are there to be killed: whoever is dead stays so for a while, to be seen to be failed, and is then
/// started again.
async fn restart_late(
    plane: &mut ControlPlane,
    stack: &mut Stack,
    dead_since: &mut Option<Instant>,
) -> anyhow::Result<()> {
    if plane.members().all(|member| stack.pid(member.child).is_some()) {
        *dead_since = None;
    } else if dead_since.get_or_insert_with(Instant::now).elapsed() >= DEAD_FOR {
        plane.restart_dead(stack).await?;
    }
    Ok(())
}
