//! `experiment exactly-once`: events flow through Kafka while workers, the broker, MySQL and monitors are killed and stopped. Afterwards the
//! store must contain what one thread computes from the topic: each event once.
//!
//! Begin with [`measure`]. `clients` and `poison` send what `workload` defines, `faults` kills and stops. `observed` reads the topics and the
//! store, `cached` the lists in Redis; `oracle` recomputes and compares. `workload`, `oracle`, `judgement` and `words` are pure.

mod cached;
mod clients;
mod faults;
mod judgement;
mod observed;
mod oracle;
mod poison;
mod stalls;
mod words;
mod workload;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, ensure};
use api::Profile;
use clap::{Args, FromArgMatches};
use contract::{SHARDS, ShardId};
use heartbeat::clock::wall_ms;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use self::{
    clients::Ledger,
    faults::Counts,
    judgement::{LEAST_VERSIONS, Measured},
    observed::{Tables, Topics},
    oracle::State,
    poison::Delivered,
    workload::Workload,
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::{
    data,
    instruments::{file_readers::FileReaders, segment_files::Oracle},
    stack::{
        control_plane::{self, ControlPlane},
        event_stack::{self, EventStack},
    },
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "exactly-once",
    about: "Events through Kafka while workers, the broker, MySQL and a monitor are killed and stopped: log, features, counts, positions and dead \
            letters equal a recomputation on one thread",
    examples: "Examples:
  ./testbed experiment exactly-once            1,000,000 events, 24 faults (about 8 minutes)
  ./testbed experiment exactly-once --quick    20,000 events, 9 faults, judged as the long run (under a minute)
  ./testbed experiment exactly-once --events 200000 --rate 2000
  ./testbed experiment exactly-once --json | jq '.sections[0].measured | {topic, longest_gap_s, longest_stall_s}'",
    args: ExactlyOnceArgs::augment_args,
    run: |matches| Box::pin(async move { run(ExactlyOnceArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct ExactlyOnceArgs {
    /// Different events that clients send [default: 1000000, or 20000 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    events: Option<u64>,
    /// Events per second [default: 5000, or 2000 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    rate: Option<u32>,
    #[command(flatten)]
    run: RunArgs,
}

/// Size of a run.
struct Plan {
    events: u64,
    rate: u32,
    users: u32,
    items: u32,
    /// Of the heartbeats.
    beat: Duration,
    faults: Counts,
    /// Lists that are compared with the answer of a miss.
    sample: usize,
}

const SEED: u64 = 17;
const POISON_SHARE: f64 = 0.001;
const WORKERS: usize = 3;
/// Many versions, so that kills meet all steps of a publication.
const PUBLISH_EVERY_MS: u64 = 500;
const FILE_READERS: usize = 2;
const DRAINED_WITHIN: Duration = Duration::from_secs(300);
const PUBLISHED_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

async fn run(args: ExactlyOnceArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let mut plan = if args.run.quick {
        Plan {
            events: 20_000,
            rate: 2_000,
            users: 1_000,
            items: 500,
            beat: Duration::from_millis(100),
            faults: Counts { workers: 6, brokers: 1, mysql: 1, leaders: 1 },
            sample: 100,
        }
    } else {
        Plan {
            events: 1_000_000,
            rate: 5_000,
            users: 20_000,
            items: 2_000,
            beat: Duration::from_secs(1),
            faults: Counts { workers: 20, brokers: 2, mysql: 1, leaders: 1 },
            sample: 1_000,
        }
    };
    plan.events = args.events.unwrap_or(plan.events);
    plan.rate = args.rate.unwrap_or(plan.rate);
    let measured = measure(&plan).await?;
    let found = Found {
        what: format!(
            "Two replicas, Kafka, MySQL, Redis, three monitors with a heartbeat every {} ms and {WORKERS} workers. Clients send {} events at {} per \
             second, in batches; 1 % late, 1 % twice. 0.1 % more messages in the topic are no events.",
            plan.beat.as_millis(),
            plan.events,
            plan.rate
        ),
        sections: vec![words::section(&measured)?],
        verdicts: judgement::verdicts(&measured),
        judged_when_quick: true,
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

/// # Errors
/// A server cannot be started, or the events are not processed in time.
async fn measure(plan: &Plan) -> anyhow::Result<Measured> {
    let dataset = model::generate(&data::generator(plan.users, Some(plan.items), SEED))?;
    let mut stack = EventStack::start(event_stack::Plan::new("exactly-once"), &dataset).await?;
    stack.service.start_replicas(Profile::Protected, &[]).await?;
    let of_plane = control_plane::Plan {
        workers: WORKERS,
        interval_ms: plan.beat.as_millis() as u64,
        segments: true,
        worker_sets: vec![format!("segments.publish_every_ms={PUBLISH_EVERY_MS}")],
        ..control_plane::Plan::default()
    };
    let mut plane = stack.start_control_plane(&of_plane).await?;
    let mut before = Vec::new();
    let mut tables = Tables::open(&stack.mysql()?).await?;
    for shard in ShardId::all() {
        before.push(tables.state(shard).await?);
    }
    drop(tables);
    eprintln!("{} events imported; sending {} events", dataset.events.len(), plan.events);
    let (begin_ms, rate) = (wall_ms() as i64, f64::from(plan.rate));
    let workload = Arc::new(Workload::new(dataset.users, dataset.items, plan.events, rate, begin_ms, SEED));
    let mut measured = send(&mut stack, &mut plane, plan, &workload, &before).await?;
    plane.stop(&mut stack.service.stack).await?;
    stack.stop().await?;
    measured.planned_faults = plan.faults.workers + plan.faults.brokers + plan.faults.mysql + plan.faults.leaders;
    Ok(measured)
}

/// Sends all events under all faults, waits until they are processed, and compares.
async fn send(
    stack: &mut EventStack,
    plane: &mut ControlPlane,
    plan: &Plan,
    workload: &Arc<Workload>,
    before: &[State],
) -> anyhow::Result<Measured> {
    let (gateway, brokers) = (stack.gateway().to_owned(), stack.brokers()?.to_owned());
    let (ledger, delivered) = (Arc::new(Ledger::new()), Arc::<Delivered>::default());
    let progress = || ledger.events.load(Relaxed) as f64 / plan.events as f64;
    let stop = CancellationToken::new();
    let stalls = tokio::spawn(stalls::watch(stack.mysql()?, Arc::clone(&ledger), stop.clone()));
    let _stop = stop.clone().drop_guard();
    let files = FileReaders::start(FILE_READERS, &plane.worker_addresses(), SEED);
    let planned = faults::plan(plan.faults, plan.beat, SEED);
    let poison = (plan.events as f64 * POISON_SHARE) as u64;
    let ((), (), faults) = tokio::try_join!(
        clients::send_all(&gateway, workload, &ledger),
        poison::write(&brokers, poison, workload, progress, &delivered),
        faults::impose(&planned, (stack, plane), progress),
    )?;
    let (seconds, sent) = (ledger.elapsed().as_secs_f64(), Instant::now());
    let topics = Arc::new(Topics::open(&brokers)?);
    let mut tables = Tables::open(&stack.mysql()?).await?;
    drained(&topics, &mut tables).await?;
    let drained_s = sent.elapsed().as_secs_f64();
    eprintln!("sent in {seconds:.0} s, all processed {drained_s:.1} s later; comparing");
    stop.cancel();
    let longest_stall_s = stalls.await?.as_secs_f64();
    // A slow machine publishes few versions meanwhile; the last one comes after the last event.
    files.wait_versions(LEAST_VERSIONS as usize, PUBLISHED_WITHIN).await;
    let files = files.finish().await?;
    let poison = delivered.positions.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut measured = Measured {
        events: ledger.events.load(Relaxed),
        requests: ledger.requests.load(Relaxed),
        failed_requests: ledger.failed.load(Relaxed),
        resent: ledger.resent.load(Relaxed),
        repeated: ledger.repeated.load(Relaxed),
        poison: poison.len() as u64,
        faults,
        seconds,
        drained_s,
        longest_gap_s: ledger.longest_gap().as_secs_f64(),
        longest_stall_s,
        ..Measured::default()
    };
    let letters = {
        let topics = Arc::clone(&topics);
        spawn_blocking(move || topics.dead_letters()).await??
    };
    for position in &poison {
        measured.poison_found.expect(letters.contains_key(position), || format!("no dead letter for {position:?}"));
    }
    let mut features = BTreeMap::new();
    let bases = tables.positions().await?;
    for (shard, before) in ShardId::all().zip(before) {
        let n = shard.index();
        let mut observed = tables.state(shard).await?;
        let of_shard = letters.range((n, 0)..=(n, u64::MAX));
        observed.dead_letters = of_shard.map(|((_, offset), reason)| (*offset, reason.clone())).collect();
        let topics = Arc::clone(&topics);
        let messages = spawn_blocking(move || topics.messages(shard)).await??;
        let (expected, tally) = oracle::recompute(shard, bases[n].1, before, &messages);
        let acknowledged = ledger.of_partition(n);
        measured.acknowledged += acknowledged.len() as u64;
        measured.topic += tally;
        let mut findings = oracle::compare(shard, &expected, &observed);
        let events = acknowledged.iter().map(|one| (one.offset, workload.event(one.number)));
        findings.acknowledged = oracle::acknowledged(&messages, &observed, events);
        measured.findings.add(findings);
        if n == 0 {
            find_mutants(&mut measured, shard, &expected);
        }
        features.extend(observed.features);
    }
    let mut oracle = Oracle::default();
    oracle.read(&stack.store()?).await?;
    measured.files = spawn_blocking(move || files.judge(&mut oracle)).await??;
    let mut redis = stack.service.redis_for_tools()?;
    measured.lists = cached::check(&mut redis, &gateway, &features, plan.sample).await?;
    Ok(measured)
}

/// The comparison must find every defect, else its silence means nothing.
fn find_mutants(measured: &mut Measured, shard: ShardId, expected: &State) {
    for (defect, mutant) in oracle::mutants(expected) {
        measured.mutants += 1;
        if oracle::compare(shard, expected, &mutant).different() == 0 {
            measured.missed_mutants.push(defect.to_owned());
        }
    }
}

/// Waits until the store has the end of every partition.
async fn drained(topics: &Arc<Topics>, tables: &mut Tables) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let topics = Arc::clone(topics);
        let ends = move || (0..usize::from(SHARDS)).map(|n| topics.end(eventlog::BEHAVIOUR, n)).collect();
        let ends: anyhow::Result<Vec<u64>> = spawn_blocking(ends).await?;
        let ends = ends.context("the broker does not answer")?;
        let next: Vec<u64> = tables.positions().await?.into_iter().map(|(next, _)| next).collect();
        if ends == next {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < DRAINED_WITHIN,
            "not processed within {DRAINED_WITHIN:?}: the partitions end at {ends:?}, the store expects {next:?}"
        );
        sleep(PAUSE).await;
    }
}
