//! A series of switch-overs: workers are killed and stopped in turns, and each time the others take their partitions over.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use heartbeat::assign::NodeId;
use launcher::{Signal, Stack};
use monitor::config::VoteRule;
use rand::RngExt as _;
use runtime::telemetry::TelemetryConfig;
use stores::{Store, StoreConfig};
use tokio::time::{sleep, timeout};

use super::{
    WORKERS,
    clients::{Load, Monitors, is_level, of_primary},
    judgement::{EtcdAway, Kill, Sample, Series, Strategy},
    recorder::{Recorder, rows},
    traces::{Death, Slowest, pauses, trace_id},
};
use crate::{
    instruments::clock_watch::ClockWatch,
    stack::control_plane::{ControlPlane, Plan},
};

/// A switch-over that is not over by then has failed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// After etcd is back: by then monitors that waited for it would have acted.
const ETCD_IS_BACK: Duration = Duration::from_secs(10);

/// One series of switch-overs.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    pub strategy: Strategy,
    /// Of the heartbeats.
    pub interval_ms: u64,
    /// Deaths of each kind.
    pub kills: usize,
    /// How long etcd is stopped afterwards. Only tried under the majority rule.
    pub etcd_away: Duration,
}

/// What all series share.
pub struct Servers<'a> {
    pub config: &'a StoreConfig,
    pub store: &'a Store,
    /// Exports to the receiver of traces.
    pub telemetry: &'a TelemetryConfig,
    pub traces: &'a tracestore::Client,
}

/// Runs one series on a store that no other process uses.
///
/// # Errors
/// A process cannot be started, or a worker does not come back.
pub async fn series(stack: &mut Stack, servers: &Servers<'_>, variant: Variant) -> anyhow::Result<Series> {
    let strategy = variant.strategy;
    let votes = if strategy == Strategy::Majority { VoteRule::Majority } else { VoteRule::One };
    // Before each death the workers share the partitions evenly again: that shall not take half a minute.
    let sets = strategy.sets().iter().chain(&["detect.rebalance_after_ms=1000"]);
    let monitor_sets = sets.map(|set| (*set).to_owned()).collect();
    let plan = Plan {
        workers: WORKERS,
        interval_ms: variant.interval_ms,
        votes,
        monitor_sets,
        telemetry: servers.telemetry.clone(),
        ..Plan::default()
    };
    let first = rows(servers.store).await?;
    let mut control_plane = ControlPlane::start(stack, &plan, servers.config).await?;
    let recorder = Arc::new(Recorder::start());
    let monitors = Monitors::follow(&control_plane, &recorder, Duration::from_millis(variant.interval_ms))?;
    let load = Load::start(&control_plane, &recorder)?;
    let watch = ClockWatch::start()?;
    let mut samples = Vec::new();
    let mut false_alarms = 0;
    let (mut unread, mut slowest) = (VecDeque::<Death>::new(), None);
    for n in 0..2 * variant.kills {
        let kill = if n % 2 == 0 { Kill::Kill } else { Kill::Stop };
        monitors.until("the workers share the partitions evenly", is_level).await?;
        while let Some(death) = unread.pop_front_if(|death| death.is_complete()) {
            read(death, servers.traces, &mut samples, &mut slowest).await;
        }
        // Not in step with the beats.
        sleep(Duration::from_millis(rand::rng().random_range(0..variant.interval_ms))).await;
        let (sample, death) = switch(stack, &control_plane, &monitors, n / 2 % WORKERS, kill).await?;
        false_alarms += monitors.others_offline(&sample.worker);
        unread.extend(death.map(|death| Death { sample: n, ..death }));
        eprintln!("  {}", sample.text());
        samples.push(sample);
        let victim = &mut control_plane.workers[n / 2 % WORKERS];
        match kill {
            Kill::Kill => victim.restart(stack).await?,
            Kill::Stop => victim.kill(stack, Signal::SIGCONT)?,
        }
    }
    monitors.until("the last one is back", is_level).await?;
    for death in unread {
        read(death, servers.traces, &mut samples, &mut slowest).await;
    }
    let etcd_away = if strategy == Strategy::Majority && !variant.etcd_away.is_zero() {
        let outcome = etcd_away(stack, &control_plane, &monitors, &load, variant.etcd_away).await?;
        eprintln!("  {}", outcome.text());
        Some(outcome)
    } else {
        None
    };
    let validity = watch.finish();
    let load = load.stop().await;
    control_plane.stop(stack).await?;
    let check = recorder.check(&first, &rows(servers.store).await?);
    Ok(Series {
        strategy,
        interval_ms: variant.interval_ms,
        samples,
        false_alarms,
        writes: load.done,
        refused: load.refused,
        stale_writes: load.stale,
        etcd_away,
        check,
        slowest,
        validity,
    })
}

async fn read(death: Death, traces: &tracestore::Client, samples: &mut [Sample], slowest: &mut Option<Slowest>) {
    let (parts, candidate) = death.read(traces).await;
    samples[candidate.sample].parts = parts;
    if slowest.as_ref().is_none_or(|known| known.confirmed_ms < candidate.confirmed_ms) {
        *slowest = Some(candidate);
    }
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

/// Ends one worker and waits until its partitions have new primaries.
async fn switch(
    stack: &mut Stack,
    control_plane: &ControlPlane,
    monitors: &Monitors,
    victim: usize,
    kill: Kill,
) -> anyhow::Result<(Sample, Option<Death>)> {
    let (worker, before) = (&control_plane.workers[victim], monitors.latest());
    let name: NodeId = worker.name.as_str().into();
    let lost = of_primary(&before.table, &name);
    let survivor = |n: usize| &control_plane.workers[(victim + 1 + n % (WORKERS - 1)) % WORKERS].http;
    // Each client knows one worker's address; that worker redirects it if necessary.
    let asking: Vec<_> = lost.iter().map(|&partition| (partition, survivor(partition).clone())).collect();
    let signal = match kill {
        Kill::Kill => Signal::SIGKILL,
        Kill::Stop => Signal::SIGSTOP,
    };
    worker.kill(stack, signal)?;
    let (killed, killed_at) = (Instant::now(), SystemTime::now());
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
            async move { anyhow::Ok(monitors.counting(partition, &heir?, &worker.http).await) }
        });
        futures::future::try_join_all(heirs).await?;
        anyhow::Ok((confirmed, Instant::now(), trace_id(&seen)))
    };
    let redirected = async {
        let asking = asking.iter().map(|(partition, address)| monitors.counting(*partition, address, &worker.http));
        futures::future::join_all(asking).await;
        Instant::now()
    };
    let outcome = timeout(TIMEOUT, async { tokio::join!(primaries, redirected) }).await;
    let (mut sample, mut death) = (Sample::of(kill, Arc::clone(&name), lost.len()), None);
    if let Ok((primaries, redirected)) = outcome {
        let (confirmed, primary, trace) = primaries?;
        let confirmed_ms = ms(confirmed);
        sample.confirmed_ms = Some(confirmed_ms);
        (sample.primary_ms, sample.redirected_ms) = (Some(ms(primary)), Some(ms(redirected)));
        let pauses = pauses(control_plane, killed_at, confirmed_ms).await;
        sample.longest_pause_ms = pauses.iter().map(|pause| pause.duration_ms).fold(0.0, f64::max);
        let worker = name.to_string();
        death = Some(Death { sample: 0, worker, killed, killed_at, confirmed_ms, trace, pauses });
    }
    Ok((sample, death))
}
