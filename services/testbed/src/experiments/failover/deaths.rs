//! Workers die in turns, and the others take their partitions over.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use contract::ShardId;
use launcher::Signal;
use rand::RngExt as _;
use tokio::time::{sleep, sleep_until};

use super::{
    Servers, WORKERS,
    judgement::{Death, Owners, Sample, Series, fresh_again_s, stalest_s},
    load::{Counted, Load},
    owners::{Monitors, is_level, of_worker},
    positions::Positions,
    row_lock::RowLock,
};
use crate::stack::control_plane::{self, ControlPlane};

/// With three workers that share the 16 partitions evenly, each has at least this many.
const LEAST_PARTITIONS: usize = 5;
const LEVEL_TIMEOUT: Duration = Duration::from_secs(120);
/// A failure that is not detected by then is none.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Events flow for this time before the next death.
const STEADY: Duration = Duration::from_secs(3);
/// Freshness is observed for this time after the partitions are consumed again.
const OBSERVED_AFTER: Duration = Duration::from_secs(6);

/// # Errors
/// A process cannot be started, or the workers do not share the partitions evenly before a death.
pub async fn series(servers: &mut Servers, interval_ms: u64, deaths_of_each: usize) -> anyhow::Result<Series> {
    let plan = control_plane::Plan {
        workers: WORKERS,
        interval_ms,
        // Before each death the workers share the partitions evenly again: that shall not take half a minute.
        monitor_sets: vec!["detect.rebalance_after_ms=1000".to_owned()],
        ..control_plane::Plan::default()
    };
    let mut plane = servers.stack.start_control_plane(&plan).await?;
    let owners = Owners::Workers { interval_ms };
    let samples = samples(servers, &mut plane, owners, deaths_of_each).await;
    plane.stop(&mut servers.stack.service.stack).await?;
    Ok(Series { owners, samples: samples? })
}

async fn samples(
    servers: &mut Servers,
    plane: &mut ControlPlane,
    owners: Owners,
    deaths_of_each: usize,
) -> anyhow::Result<Vec<Sample>> {
    let monitors = Monitors::follow(plane)?;
    let mut positions = Positions::open(&servers.stack.mysql()?, owners).await?;
    monitors.until("the workers share the partitions evenly", LEVEL_TIMEOUT, is_even).await?;
    let load = servers.load(true).await?;
    let mut samples = Vec::new();
    for n in 0..deaths_of_each * Death::ALL.len() {
        let (death, victim) = (Death::ALL[n % Death::ALL.len()], n % WORKERS);
        monitors.until("the workers share the partitions evenly", LEVEL_TIMEOUT, is_even).await?;
        // Not in step with the heartbeats.
        sleep(STEADY + Duration::from_millis(rand::rng().random_range(0..1_000))).await;
        let sample = one(servers, plane, (&monitors, &mut positions, &load), victim, death).await?;
        eprintln!("  {}", sample.text());
        samples.push(sample);
        let stack = &mut servers.stack.service.stack;
        match death {
            Death::Kill => plane.workers[victim].restart(stack).await?,
            Death::Stop | Death::StopInTransaction => plane.workers[victim].kill(stack, Signal::SIGCONT)?,
        }
    }
    Ok(samples)
}

fn is_even(table: &heartbeat::assign::Table) -> bool {
    is_level(table, WORKERS, LEAST_PARTITIONS)
}

async fn one(
    servers: &mut Servers,
    plane: &ControlPlane,
    (monitors, positions, load): (&Monitors, &mut Positions, &Load),
    victim: usize,
    death: Death,
) -> anyhow::Result<Sample> {
    let worker = &plane.workers[victim];
    let lost = of_worker(&monitors.newest(), &worker.name);
    let lock = match death {
        Death::Kill | Death::Stop => None,
        Death::StopInTransaction => {
            let first = lost.first().and_then(|first| ShardId::all().nth(*first));
            let shard = first.with_context(|| format!("{} has no partitions", worker.name))?;
            Some(RowLock::with_waiting_batch(&servers.stack.mysql()?, shard).await?)
        }
    };
    let signal = if death == Death::Kill { Signal::SIGKILL } else { Signal::SIGSTOP };
    let before = load.counted();
    let killed = Instant::now();
    load.mark(killed);
    worker.kill(&mut servers.stack.service.stack, signal)?;
    if let Some(lock) = lock {
        lock.release().await?;
    }
    let detected = async {
        let failed =
            monitors.until("the worker is offline", TIMEOUT, |table| !table.is_online(worker.name.as_str())).await;
        failed.ok().map(|()| killed.elapsed().as_secs_f64())
    };
    let (detected_s, consumed) = tokio::join!(detected, positions.consumed_again(&lost, load, killed, TIMEOUT));
    let consumed_s = consumed?;
    let observed_from = Duration::from_secs_f64(detected_s.unwrap_or_default().max(consumed_s.unwrap_or_default()));
    sleep_until((killed + observed_from + OBSERVED_AFTER).into()).await;
    let (fresh, waiting) = load.fresh();
    let [killed, end] = [killed, Instant::now()].map(|at| at - load.begun());
    let Counted { events, failed_events, reads, failed_reads } = load.counted();
    Ok(Sample {
        death,
        process: worker.name.clone(),
        partitions: lost.len(),
        detected_s,
        consumed_s,
        fresh_s: fresh_again_s(&fresh, &waiting, killed, end),
        stalest_s: stalest_s(&fresh, killed, end),
        reads: reads - before.reads,
        failed_reads: failed_reads - before.failed_reads,
        events: events - before.events,
        failed_events: failed_events - before.failed_events,
    })
}
