//! `experiment switchover`: workers are killed and stopped, while other clients write. Measures the time until the majority has confirmed the
//! failure, until the new primaries work, and until clients that know nothing of it are redirected to them.

mod clients;
mod judgement;
mod words;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, FromArgMatches};
use heartbeat::{assign::NodeId, transport::assignments::Assignments};
use launcher::{Signal, Stack, mariadb};
use monitor::config::VoteRule;
use rand::RngExt as _;
use stores::StoreConfig;
use tokio::time::{sleep, timeout};

use self::{
    clients::{Load, Monitors},
    judgement::{EtcdAway, Kill, Sample, Series, Strategy},
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::{
    stack::control_plane::{self, ControlPlane},
    stack::service,
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "switchover",
    about: "Workers killed and stopped in turns: time until the majority confirms it, new primaries work and clients are redirected; then \
            etcd stopped, which must have no effect",
    examples: "Examples:
  ./testbed experiment switchover            fixed, dynamic and majority, 20 deaths of each kind at 1 s and 100 ms beats (about 22 minutes)
  ./testbed experiment switchover --quick    3 of each kind, by majority, judged for stale writes only
  ./testbed experiment switchover --strategy majority --beat-ms 100
  ./testbed experiment switchover --json | jq '.sections[0].measured[] | {strategy, interval_ms, false_alarms}'",
    args: SwitchoverArgs::augment_args,
    run: |matches| Box::pin(async move { run(SwitchoverArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct SwitchoverArgs {
    /// Only this strategy (repeatable) [default: all, or majority with --quick]
    #[arg(long = "strategy", value_name = "STRATEGY")]
    strategies: Vec<Strategy>,
    /// Only this interval of the heartbeats (repeatable) [default: 1000 and 100]
    #[arg(long = "beat-ms", value_name = "MS", value_parser = clap::value_parser!(u64).range(50..=10_000))]
    beats_ms: Vec<u64>,
    /// Deaths of each kind [default: 20, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    kills: Option<u16>,
    /// Afterwards etcd is stopped for this many seconds, under the majority rule; 0: not at all [default: 60, or 5 with --quick]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u16).range(0..=3_600))]
    etcd_away_s: Option<u16>,
    #[command(flatten)]
    run: RunArgs,
}

/// Deaths of each kind.
const KILLS: u16 = 20;
const QUICK_KILLS: u16 = 3;
const BEATS_MS: [u64; 2] = [1_000, 100];
const ETCD_AWAY_S: u16 = 60;
const QUICK_ETCD_AWAY_S: u16 = 5;
/// A switch-over that is not over by then has failed.
const TIMEOUT: Duration = Duration::from_secs(30);
const WORKERS: usize = 3;
/// With three workers that share the 16 partitions evenly, each has at least this many.
const LEAST_PRIMARIES: usize = 5;

/// After etcd is back: by then monitors that waited for it would have acted.
const ETCD_IS_BACK: Duration = Duration::from_secs(10);

/// One series of switch-overs.
#[derive(Debug, Clone, Copy)]
struct Variant {
    strategy: Strategy,
    /// Of the heartbeats.
    interval_ms: u64,
    /// Deaths of each kind.
    kills: usize,
    /// How long etcd is stopped afterwards. Only tried under the majority rule.
    etcd_away: Duration,
}

async fn run(args: SwitchoverArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let quick = args.run.quick;
    let strategies = match (args.strategies.is_empty(), quick) {
        (false, _) => args.strategies,
        (true, true) => vec![Strategy::Majority],
        (true, false) => Strategy::ALL.to_vec(),
    };
    let intervals_ms = if args.beats_ms.is_empty() { BEATS_MS.to_vec() } else { args.beats_ms };
    let kills = args.kills.unwrap_or(if quick { QUICK_KILLS } else { KILLS }).into();
    let etcd_away_s = args.etcd_away_s.unwrap_or(if quick { QUICK_ETCD_AWAY_S } else { ETCD_AWAY_S });
    let etcd_away = Duration::from_secs(etcd_away_s.into());
    let variant =
        |strategy| intervals_ms.iter().map(move |&interval_ms| Variant { strategy, interval_ms, kills, etcd_away });
    let variants: Vec<Variant> = strategies.into_iter().flat_map(variant).collect();
    let all = measure(&variants).await?;
    let found = Found {
        what: format!(
            "Three monitors and {WORKERS} workers. Workers are killed (SIGKILL) and stopped (SIGSTOP) in turns, {kills} times each, while \
             clients write through all workers."
        ),
        sections: vec![words::section(&all)?],
        verdicts: judgement::verdicts(&all, quick),
        judged_when_quick: true,
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

/// Runs all variants on one store.
///
/// # Errors
/// A server cannot be started, or a worker does not come back.
async fn measure(variants: &[Variant]) -> anyhow::Result<Vec<Series>> {
    let mut stack = Stack::create("switchover")?;
    let mysql = mariadb::start(&mut stack, "mysql-00", &mariadb::Options::default()).await?;
    let store = service::direct_store(&[format!("127.0.0.1:{}", mysql.port)]);
    stores::migrate(&store).await?;
    let mut all = Vec::new();
    for variant in variants {
        eprintln!("{}, a heartbeat every {} ms", variant.strategy, variant.interval_ms);
        all.push(series(&mut stack, &store, *variant).await?);
    }
    stack.stop().await?;
    Ok(all)
}

async fn series(stack: &mut Stack, store: &StoreConfig, variant: Variant) -> anyhow::Result<Series> {
    let strategy = variant.strategy;
    let votes = if strategy == Strategy::Majority { VoteRule::Majority } else { VoteRule::One };
    let monitor_sets = strategy.sets().iter().map(|set| (*set).to_owned()).collect();
    let plan = control_plane::Plan {
        workers: WORKERS,
        interval_ms: variant.interval_ms,
        votes,
        monitor_sets,
        ..control_plane::Plan::default()
    };
    let mut control_plane = ControlPlane::start(stack, &plan, store).await?;
    let monitors = Monitors::follow(&control_plane, Duration::from_millis(variant.interval_ms))?;
    let load = Load::start(&control_plane)?;
    let mut samples = Vec::new();
    let mut false_alarms = 0;
    for n in 0..2 * variant.kills {
        let kill = if n % 2 == 0 { Kill::Kill } else { Kill::Stop };
        monitors.until("the workers share the partitions evenly", is_level).await?;
        // Not in step with the beats.
        sleep(Duration::from_millis(rand::rng().random_range(0..variant.interval_ms))).await;
        let sample = switch(stack, &control_plane, &monitors, n / 2 % WORKERS, kill).await?;
        false_alarms += monitors.others_offline(&sample.worker);
        eprintln!("  {}", sample.text());
        samples.push(sample);
        let victim = &mut control_plane.workers[n / 2 % WORKERS];
        match kill {
            Kill::Kill => victim.restart(stack).await?,
            Kill::Stop => victim.kill(stack, Signal::SIGCONT)?,
        }
    }
    monitors.until("the last one is back", is_level).await?;
    let etcd_away = if strategy == Strategy::Majority && !variant.etcd_away.is_zero() {
        let outcome = etcd_away(stack, &control_plane, &monitors, &load, variant.etcd_away).await?;
        eprintln!("  {}", outcome.text());
        Some(outcome)
    } else {
        None
    };
    let load = load.stop().await;
    control_plane.stop(stack).await?;
    Ok(Series {
        strategy,
        interval_ms: variant.interval_ms,
        samples,
        false_alarms,
        writes: load.done,
        refused: load.refused,
        stale_writes: load.stale,
        etcd_away,
    })
}

/// Stops the registry while all workers live.
async fn etcd_away(
    stack: &mut Stack,
    control_plane: &ControlPlane,
    monitors: &Monitors,
    load: &Load,
    length: Duration,
) -> anyhow::Result<EtcdAway> {
    let (before, written) = (monitors.latest(), load.done());
    stack.kill(control_plane.etcd.child, Signal::SIGSTOP)?;
    sleep(length).await;
    let writes = load.done() - written;
    stack.kill(control_plane.etcd.child, Signal::SIGCONT)?;
    sleep(ETCD_IS_BACK).await;
    let after = monitors.latest();
    let pairs = before.table.partitions.iter().zip(&after.table.partitions);
    let moved = pairs.filter(|(before, after)| before.primary != after.primary).count();
    Ok(EtcdAway { seconds: length.as_secs(), offline: monitors.offline(), moved, writes })
}

fn is_level(seen: &Assignments) -> bool {
    let table = &seen.table;
    let primaries = |node: &NodeId| table.partitions.iter().filter(|a| a.primary.as_ref() == Some(node)).count();
    let online: Vec<&NodeId> = table.nodes.iter().filter(|(_, standing)| standing.online).map(|(id, _)| id).collect();
    online.len() == WORKERS && online.iter().all(|node| primaries(node) >= LEAST_PRIMARIES)
}

/// Ends one worker and waits until its partitions have new primaries.
async fn switch(
    stack: &mut Stack,
    control_plane: &ControlPlane,
    monitors: &Monitors,
    victim: usize,
    kill: Kill,
) -> anyhow::Result<Sample> {
    let (worker, before) = (&control_plane.workers[victim], monitors.latest());
    let name: NodeId = worker.name.as_str().into();
    let of_victim = |a: &heartbeat::assign::Assignment| a.primary.as_ref() == Some(&name);
    let table = &before.table;
    let lost: Vec<usize> = (0..table.partitions.len()).filter(|n| of_victim(&table.partitions[*n])).collect();
    let survivor = |n: usize| &control_plane.workers[(victim + 1 + n % (WORKERS - 1)) % WORKERS].http;
    // Each client knows one worker's address; that worker redirects it if necessary.
    let asking: Vec<_> = lost.iter().map(|&partition| (partition, survivor(partition).clone())).collect();
    let signal = match kill {
        Kill::Kill => Signal::SIGKILL,
        Kill::Stop => Signal::SIGSTOP,
    };
    worker.kill(stack, signal)?;
    let killed = Instant::now();
    let ms = |at: Instant| at.duration_since(killed).as_secs_f64() * 1e3;

    let confirmed = async {
        let seen = monitors.wait_for(|seen| !seen.table.is_online(&name)).await?;
        anyhow::Ok((Instant::now(), seen))
    };
    let primaries = async {
        let (confirmed, seen) = confirmed.await?;
        let heirs = lost.iter().map(|&partition| {
            let assignment = &seen.table.partitions[partition];
            let heir = assignment.primary.as_ref().and_then(|heir| seen.addresses.get(heir));
            let heir = heir.cloned().with_context(|| format!("partition {partition} has no primary"));
            async move { anyhow::Ok(monitors.counting(partition, &heir?).await) }
        });
        futures::future::try_join_all(heirs).await?;
        anyhow::Ok((confirmed, Instant::now()))
    };
    let redirected = async {
        let asking = asking.iter().map(|(partition, address)| monitors.counting(*partition, address));
        futures::future::join_all(asking).await;
        Instant::now()
    };
    let outcome = timeout(TIMEOUT, async { tokio::join!(primaries, redirected) }).await;
    let (confirmed_ms, primary_ms, redirected_ms) = match outcome {
        Ok((primaries, redirected)) => {
            let (confirmed, primary) = primaries?;
            (Some(ms(confirmed)), Some(ms(primary)), Some(ms(redirected)))
        }
        Err(_) => (None, None, None),
    };
    Ok(Sample { kill, worker: Arc::clone(&name), partitions: lost.len(), confirmed_ms, primary_ms, redirected_ms })
}
