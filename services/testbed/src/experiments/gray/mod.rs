//! `experiment gray`: partial failures of one worker on real processes, one at a time, while clients write to all partitions. Measures when
//! and by which evidence the monitors act, whether users are served again, and whether healthy workers are left alone; then the same with
//! heartbeats alone.

mod clients;
mod faults;
mod judgement;
mod observation;
mod words;

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, FromArgMatches};
use heartbeat::{
    assign::{NodeId, PARTITIONS, Table},
    clock::wall_ms,
};
use launcher::{Stack, mariadb};
use stores::{Instance, StoreConfig};
use tokio::time::{Instant, sleep};

use self::{
    clients::Load,
    faults::GrayFault,
    judgement::{Defence, Measured, TableChange, Write},
    observation::Monitors,
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::stack::{
    control_plane::{self, ControlPlane},
    service,
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "gray",
    about: "Twelve kinds of partial failures of a worker: when the monitors act and by which evidence, users' errors, false removals; beside it \
            with heartbeats alone",
    examples: "Examples:
  ./testbed experiment gray                      all faults, with all evidence and with heartbeats alone (about 30 minutes)
  ./testbed experiment gray --quick              each fault once and short, with all evidence, not judged (about 5 minutes)
  ./testbed experiment gray --fault writes-stall --fault loss-in
  ./testbed experiment gray --evidence all --json | jq '.sections[0].measured[] | {fault, defence, served_after_s, tables}'",
    args: GrayArgs::augment_args,
    run: |matches| Box::pin(async move { run(GrayArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct GrayArgs {
    /// Only this fault (repeatable) [default: all]
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<GrayFault>,
    /// Only with this evidence [default: both, or all with --quick]
    #[arg(long, value_name = "EVIDENCE")]
    evidence: Option<Defence>,
    #[command(flatten)]
    run: RunArgs,
}

const WORKERS: usize = 3;
const INTERVAL_MS: u64 = 1_000;
/// With three workers that share the 16 partitions evenly, each has at least this many.
const LEAST_PRIMARIES: usize = 5;
const LEVEL_TIMEOUT: Duration = Duration::from_secs(120);
/// Writes before the fault: connections are open, and clients know their workers.
const WARM_UP: Duration = Duration::from_secs(3);
/// The end of it, in which no write may fail.
const JUDGED_BEFORE: Duration = Duration::from_secs(2);
/// Of a worker: a store that answers later counts as failed.
const STATEMENT_TIMEOUT_MS: u64 = 1_000;

async fn run(args: GrayArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let quick = args.run.quick;
    let faults = if args.faults.is_empty() { GrayFault::ALL.to_vec() } else { args.faults };
    let defences = match (args.evidence, quick) {
        (Some(one), _) => vec![one],
        (None, true) => vec![Defence::All],
        (None, false) => vec![Defence::All, Defence::Heartbeats],
    };
    let all = measure(&faults, &defences, quick).await?;
    let found = Found {
        what: format!(
            "Three monitors and {WORKERS} workers with a heartbeat every {INTERVAL_MS} ms, a faultproxy between all of them, and a client per \
             partition that writes every 100 ms and waits for {} ms. Each fault is imposed on one worker of a new control plane.",
            clients::TIMEOUT.as_millis()
        ),
        sections: vec![words::section(&all)?],
        verdicts: judgement::verdicts(&all, quick),
        judged_when_quick: true,
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

/// # Errors
/// A server cannot be started, or the workers do not share the partitions evenly before a fault.
async fn measure(faults: &[GrayFault], defences: &[Defence], quick: bool) -> anyhow::Result<Vec<Measured>> {
    let mut stack = Stack::create("gray")?;
    let mysql = mariadb::start(&mut stack, "mysql-00", &mariadb::Options::default()).await?;
    let store = store(&format!("127.0.0.1:{}", mysql.port));
    stores::migrate(&store).await?;
    let mut all = Vec::new();
    for &fault in faults {
        for &defence in defences {
            let name = format!("{}, evidence: {defence:?}", fault.text());
            let mut measured = one(&mut stack, &store, (fault, defence), quick).await.context(name.clone())?;
            eprintln!("{name}: {}", measured.text());
            if !measured.is_valid() {
                measured = one(&mut stack, &store, (fault, defence), quick).await.context(name.clone())?;
                eprintln!("{name}, again: {}", measured.text());
            }
            all.push(measured);
        }
    }
    stack.stop().await?;
    Ok(all)
}

/// One server as two instances, so that faults can name the path to a single shard.
fn store(address: &str) -> StoreConfig {
    let instance = |shards| Instance { address: address.to_owned(), shards };
    let config = service::direct_store(&[address.to_owned()]);
    StoreConfig {
        instances: vec![instance(vec![0]), instance((1..PARTITIONS as u8).collect())],
        statement_timeout_ms: STATEMENT_TIMEOUT_MS,
        ..config
    }
}

async fn one(
    stack: &mut Stack,
    store: &StoreConfig,
    (fault, defence): (GrayFault, Defence),
    quick: bool,
) -> anyhow::Result<Measured> {
    let monitor_sets = match defence {
        Defence::All => Vec::new(),
        Defence::Heartbeats => vec!["detect.evidence=heartbeats".to_owned()],
    };
    let plan = control_plane::Plan {
        workers: WORKERS,
        interval_ms: INTERVAL_MS,
        monitor_sets,
        links: true,
        ..control_plane::Plan::default()
    };
    let control_plane = ControlPlane::start(stack, &plan, store).await?;
    let monitors = Monitors::follow(&control_plane)?;
    monitors.until("the workers share the partitions evenly", LEVEL_TIMEOUT, is_level).await?;
    let load = Load::start(&control_plane)?;
    sleep(WARM_UP).await;
    let measured = under(fault, stack, &control_plane, &monitors, load, quick).await;
    drop(monitors);
    control_plane.stop(stack).await?;
    Ok(Measured { defence, ..measured? })
}

/// Imposes the fault and measures until its end.
async fn under(
    fault: GrayFault,
    stack: &mut Stack,
    control_plane: &ControlPlane,
    monitors: &Monitors,
    load: Load,
    quick: bool,
) -> anyhow::Result<Measured> {
    let links = control_plane.links.as_ref().context("the control plane has no links")?;
    let before = monitors.until("a table", LEVEL_TIMEOUT, |_| true).await?;
    // Of partition 0, so that a fault of shard 0 is one of this worker.
    let victim = before.partitions[0].primary.clone().context("partition 0 has no primary")?;
    let member = control_plane.workers.iter().find(|worker| *worker.name == *victim);
    let member = member.with_context(|| format!("{victim} is not a worker of this control plane"))?;
    let (begin, begin_ms) = (Instant::now(), wall_ms());
    fault.run((&links.client, stack, member), begin, quick).await?;
    let (end, tables, signs) = (Instant::now(), monitors.tables(), monitors.signs(begin_ms).await);
    let seconds = fault.lasts(quick).as_secs_f64();
    let loaded_before = begin.duration_since(load.begun());
    let all = load.stop().await;
    let is_before = |write: &&Write| (loaded_before.saturating_sub(JUDGED_BEFORE)..loaded_before).contains(&write.at);
    let writes = during(&all, loaded_before, fault.lasts(quick));
    let seen: Vec<_> = tables.iter().filter(|(at, _)| (begin..end).contains(at)).collect();
    let former = std::iter::once(&before).chain(seen.iter().map(|(_, table)| table));
    let changes = seen
        .iter()
        .zip(former)
        .map(|((at, table), former)| TableChange::between(at.duration_since(begin).as_secs_f64(), former, table));
    let moved = seen.last().map_or(0, |(_, after)| judgement::moved(&before, after));
    Ok(Measured {
        fault,
        defence: Defence::All,
        seconds,
        detected: signs.get(&victim).copied().filter(|sign| sign.after_s <= seconds),
        served_after_s: judgement::served_after_s(&writes, seconds),
        false_removals: judgement::false_removals(&signs, &victim, fault.expected()),
        tables: changes.collect(),
        moved,
        writes: writes.len(),
        planned: (PARTITIONS as f64 * seconds / clients::PAUSE.as_secs_f64()) as usize,
        errors_before: all.iter().filter(is_before).filter(|write| !write.succeeded).count(),
        errors: writes.iter().filter(|write| !write.succeeded).count(),
        error_seconds: judgement::error_seconds(&writes),
    })
}

/// The writes that began during the fault, by time since its begin.
fn during(writes: &[Write], before: Duration, lasts: Duration) -> Vec<Write> {
    let within = writes.iter().filter(|write| (before..before + lasts).contains(&write.at));
    within.map(|write| Write { at: write.at - before, ..*write }).collect()
}

fn is_level(table: &Table) -> bool {
    let primaries = |node: &NodeId| table.partitions.iter().filter(|a| a.primary.as_ref() == Some(node)).count();
    let online: Vec<&NodeId> =
        table.nodes.iter().filter(|(_, membership)| membership.online).map(|(node, _)| node).collect();
    online.len() == WORKERS && online.iter().all(|node| primaries(node) >= LEAST_PRIMARIES)
}
