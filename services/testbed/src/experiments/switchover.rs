//! Workers killed and stopped, again and again, and how long it takes until the majority has confirmed it, until the new primaries
//! work, and until clients that know nothing of it are sent on to them. All with writes of other clients beside it.

mod clients;
mod report;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use heartbeat::{assign::NodeId, transport::assignments::Assignments};
use launcher::{Signal, Stack, mariadb};
use monitor::config::VoteRule;
use rand::RngExt as _;
use stores::StoreConfig;
use tokio::time::{sleep, timeout};

use self::clients::{Load, Monitors};
use self::report::Kill;
pub use self::report::{EtcdAway, Report, Sample, Series, Strategy, verdicts};
use crate::{
    stack::control_plane::{self, Plane},
    stack::service,
};

/// A switch-over that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const WORKERS: usize = 3;
/// With three workers and level load, each has at least so many of the 16 partitions.
const LEAST_PRIMARIES: usize = 5;

/// Once etcd is back: monitors that waited for it would act by then.
const ETCD_IS_BACK: Duration = Duration::from_secs(10);

/// The interval of the beats, how often each way of dying is tried, and for how long etcd stands still afterwards, if at all. That
/// is tried with the majority's rule only.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub interval_ms: u64,
    pub kills: usize,
    pub etcd_away: Duration,
}

/// Runs all strategies at all intervals on one store.
///
/// # Errors
/// A server cannot be started, or a worker does not come back.
pub async fn run(strategies: &[Strategy], rounds: &[Round], told: &impl Fn(&str)) -> anyhow::Result<Vec<Series>> {
    let mut stack = Stack::create("switchover")?;
    let mysql = mariadb::start(&mut stack, "mysql-00", &mariadb::Options::default()).await?;
    let store = service::direct_store(&[format!("127.0.0.1:{}", mysql.port)]);
    stores::migrate(&store).await?;
    let mut all = Vec::new();
    for strategy in strategies {
        for round in rounds {
            told(&format!("{strategy}, a beat every {} ms", round.interval_ms));
            all.push(series(&mut stack, &store, *strategy, *round, told).await?);
        }
    }
    stack.stop().await?;
    Ok(all)
}

async fn series(
    stack: &mut Stack,
    store: &StoreConfig,
    strategy: Strategy,
    round: Round,
    told: &impl Fn(&str),
) -> anyhow::Result<Series> {
    let votes = if strategy == Strategy::Majority { VoteRule::Majority } else { VoteRule::One };
    let monitor_sets = strategy.sets().iter().map(|set| (*set).to_owned()).collect();
    let plan = control_plane::Plan {
        workers: WORKERS,
        interval_ms: round.interval_ms,
        votes,
        monitor_sets,
        ..control_plane::Plan::default()
    };
    let mut plane = Plane::start(stack, &plan, store).await?;
    let monitors = Monitors::follow(&plane, Duration::from_millis(round.interval_ms))?;
    let load = Load::start(&plane)?;
    let mut samples = Vec::new();
    let mut false_alarms = 0;
    for n in 0..2 * round.kills {
        let kill = if n % 2 == 0 { Kill::Kill } else { Kill::Stop };
        monitors.until("the workers share the partitions evenly", is_level).await?;
        // Not in step with the beats.
        sleep(Duration::from_millis(rand::rng().random_range(0..round.interval_ms))).await;
        let sample = switch(stack, &plane, &monitors, n / 2 % WORKERS, kill).await?;
        false_alarms += monitors.offline_besides(&sample.worker);
        told(&format!("  {}", sample.text()));
        samples.push(sample);
        let victim = &mut plane.workers[n / 2 % WORKERS];
        match kill {
            Kill::Kill => victim.restart(stack).await?,
            Kill::Stop => victim.kill(stack, Signal::SIGCONT)?,
        }
    }
    monitors.until("the last one is back", is_level).await?;
    let etcd_away = if strategy == Strategy::Majority && !round.etcd_away.is_zero() {
        let outcome = etcd_away(stack, &plane, &monitors, &load, round.etcd_away).await?;
        told(&format!("  {}", outcome.text()));
        Some(outcome)
    } else {
        None
    };
    let load = load.stop().await;
    plane.stop(stack).await?;
    Ok(Series {
        strategy,
        interval_ms: round.interval_ms,
        samples,
        false_alarms,
        writes: load.done,
        refused: load.refused,
        stale_writes: load.stale,
        etcd_away,
    })
}

/// All live, and the registry stands still.
async fn etcd_away(
    stack: &mut Stack,
    plane: &Plane,
    monitors: &Monitors,
    load: &Load,
    length: Duration,
) -> anyhow::Result<EtcdAway> {
    let (before, written) = (monitors.latest(), load.done());
    stack.kill(plane.etcd.child, Signal::SIGSTOP)?;
    sleep(length).await;
    let writes = load.done() - written;
    stack.kill(plane.etcd.child, Signal::SIGCONT)?;
    sleep(ETCD_IS_BACK).await;
    let after = monitors.latest();
    let pairs = before.table.partitions.iter().zip(&after.table.partitions);
    let moved = pairs.filter(|(before, after)| before.primary != after.primary).count();
    Ok(EtcdAway { seconds: length.as_secs(), offline: monitors.offline(), moved, writes })
}

fn is_level(seen: &Assignments) -> bool {
    let table = &seen.table;
    let primaries = |node: &NodeId| table.partitions.iter().filter(|a| a.primary.as_ref() == Some(node)).count();
    let online: Vec<&NodeId> =
        table.nodes.iter().filter(|(_, membership)| membership.online).map(|(id, _)| id).collect();
    online.len() == WORKERS && online.iter().all(|node| primaries(node) >= LEAST_PRIMARIES)
}

/// One worker's end, and what becomes of its partitions.
async fn switch(
    stack: &mut Stack,
    plane: &Plane,
    monitors: &Monitors,
    victim: usize,
    kill: Kill,
) -> anyhow::Result<Sample> {
    let (worker, before) = (&plane.workers[victim], monitors.latest());
    let name: NodeId = worker.name.as_str().into();
    let of_victim = |a: &heartbeat::assign::Assignment| a.primary.as_ref() == Some(&name);
    let table = &before.table;
    let lost: Vec<usize> = (0..table.partitions.len()).filter(|n| of_victim(&table.partitions[*n])).collect();
    let survivor = |n: usize| &plane.workers[(victim + 1 + n % (WORKERS - 1)) % WORKERS].http;
    // Each knows the address of one worker, and whether that is the one to ask, the worker says.
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
    let outcome = timeout(PATIENCE, async { tokio::join!(primaries, redirected) }).await;
    let (confirmed_ms, primary_ms, redirected_ms) = match outcome {
        Ok((primaries, redirected)) => {
            let (confirmed, primary) = primaries?;
            (Some(ms(confirmed)), Some(ms(primary)), Some(ms(redirected)))
        }
        Err(_) => (None, None, None),
    };
    Ok(Sample { kill, worker: Arc::clone(&name), partitions: lost.len(), confirmed_ms, primary_ms, redirected_ms })
}
