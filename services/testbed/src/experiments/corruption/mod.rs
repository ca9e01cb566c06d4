//! `experiment corruption`: the copies of the model's segments are damaged in every way that is known, one after the other, while clients
//! read files from all workers and lists from the API. Each damage must be found and repaired, with no more bytes than the damaged blocks
//! and manifests have, and no reader may get a bad byte: every file that a worker sent, and every
//! list of an item's neighbours that the API gave, is compared with the fold of the logs, which is computed here.
//!
//! Begin with [`measure`]. `damage` says what is done, `cluster` waits for the repair, `readers` and `answers` read meanwhile, `deaths` kills workers, and
//! `switches` publishes versions under load. `judgement` and `words` are pure.

mod answers;
mod cluster;
mod damage;
mod deaths;
mod judgement;
mod readers;
mod switches;
mod words;

use std::{
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use api::Profile;
use clap::{Args, FromArgMatches};
use segments::BLOCK_BYTES;

use self::{
    answers::AnswerReader,
    cluster::Cluster,
    damage::Damage,
    judgement::{Measured, Repair},
    readers::ListReaders,
    switches::Events,
};
use super::{
    Experiment,
    publish::{Found, RunArgs, publish},
};
use crate::{
    data,
    instruments::{file_readers::FileReaders, segment_damage},
    stack::{
        control_plane,
        event_stack::{self, EventStack},
    },
};

pub const EXPERIMENT: Experiment = Experiment {
    name: "corruption",
    about: "Copies of the model's segments are flipped, cut off, deleted and replaced by old ones: is each damage found and repaired, with how many \
            blocks, and does a reader ever get a bad byte? And how long until a killed worker's copies are back?",
    examples: "Examples:
  ./testbed experiment corruption            20,000 users, 2,000 items, all damages (about 4 minutes)
  ./testbed experiment corruption --quick    1,000 users, 500 items, the same damages (about 2 minutes)
  ./testbed experiment corruption --json | jq '.sections[0].measured.repairs[] | {damage, found_s, repaired_s, damaged, received}'",
    args: CorruptionArgs::augment_args,
    run: |matches| Box::pin(async move { run(CorruptionArgs::from_arg_matches(&matches)?).await }),
};

#[derive(Args)]
struct CorruptionArgs {
    #[command(flatten)]
    run: RunArgs,
}

struct Plan {
    users: u32,
    items: u32,
    /// Lists that are read per second.
    reads: u32,
    /// Of the publications. Long, so that there is time between two.
    publish_every: Duration,
    /// With new versions, and in all before the deaths.
    window: Duration,
    deaths: usize,
}

const SEED: u64 = 19;
const WORKERS: usize = 4;
const REPORT_EVERY_MS: u64 = 5_000;
/// Of each worker. A copy that is made four times as fast is not back much sooner, as the failure is detected first, and readers notice it.
pub const TRANSFER_BYTES_PER_S: u64 = 512 << 10;
const SCRUB_BYTES_PER_S: u64 = 16 << 20;
const FILE_READERS: usize = 2;

async fn run(args: CorruptionArgs) -> anyhow::Result<ExitCode> {
    let begun = SystemTime::now();
    let plan = match args.run.quick {
        true => Plan {
            users: 1_000,
            items: 500,
            reads: 100,
            publish_every: Duration::from_secs(2),
            window: Duration::from_secs(10),
            deaths: 1,
        },
        false => Plan {
            users: 20_000,
            items: 2_000,
            reads: 200,
            publish_every: Duration::from_secs(10),
            window: Duration::from_secs(60),
            deaths: 4,
        },
    };
    let (measured, policy) = measure(&plan).await?;
    let found = Found {
        what: format!(
            "Two replicas that hold the model's 16 segments, Kafka, MySQL, Redis, three monitors and {WORKERS} workers: three copies of each segment. \
             Workers report and scrub every {} s, fetch at most {} KiB/s each, and publish {} s after an event. {FILE_READERS} clients read files of \
             random segments from random workers, {} requests/s read lists through the gateway, and another client neighbours of random items.",
            REPORT_EVERY_MS / 1000,
            TRANSFER_BYTES_PER_S >> 10,
            plan.publish_every.as_secs(),
            plan.reads
        ),
        sections: vec![words::section(&measured)?],
        verdicts: judgement::verdicts(&measured),
        remarks: vec![format!("Scheduling policy of all processes: {policy}.")],
        ..Found::default()
    };
    publish(&EXPERIMENT, begun, found, &args.run)
}

/// Also returns the scheduling policy of all processes.
///
/// # Errors
/// A server cannot be started, or the copies are not complete before a damage.
async fn measure(plan: &Plan) -> anyhow::Result<(Measured, &'static str)> {
    let dataset = model::generate(&data::generator(plan.users, Some(plan.items), SEED))?;
    // Linux's default policy: a request that wakes up interrupts background work of a lower priority. Under SCHED_BATCH it would wait until that
    // work has used its time slice, 3 to 4 ms.
    let of_stack = event_stack::Plan { batch: false, ..event_stack::Plan::new("corruption") };
    let mut stack = EventStack::start(of_stack, &dataset).await?;
    let policy = stack.service.stack.policy();
    let of_plane = control_plane::Plan {
        workers: WORKERS,
        segments: true,
        worker_sets: vec![
            control_plane::LISTS_BY_SEGMENTS.to_owned(),
            format!("segments.report_every_ms={REPORT_EVERY_MS}"),
            format!("segments.publish_every_ms={}", plan.publish_every.as_millis()),
            format!("segments.transfer_bytes_per_s={TRANSFER_BYTES_PER_S}"),
            format!("segments.scrub_bytes_per_s={SCRUB_BYTES_PER_S}"),
        ],
        monitor_sets: vec![format!("segments.report_every_ms={REPORT_EVERY_MS}")],
        ..control_plane::Plan::default()
    };
    let mut plane = stack.start_control_plane(&of_plane).await?;
    stack.service.default_sets(plane.segment_sets());
    stack.service.start_replicas(Profile::Protected, &[]).await?;
    let (store, gateway) = (stack.store()?, stack.gateway().to_owned());
    let mut cluster = Cluster::new(&plane, store)?;
    cluster.wait_complete().await.context("the first copies are not complete")?;
    eprintln!("{} events imported; three copies of each segment are complete", dataset.events.len());

    let events = Events::new(&gateway, &dataset)?;
    let files = FileReaders::start(FILE_READERS, &plane.worker_addresses(), SEED);
    let lists = ListReaders::start(&gateway, &dataset, plan.reads)?;
    let neighbours = AnswerReader::start(&gateway, &dataset, SEED);
    let mut measured = Measured::default();
    for damage in Damage::ALL {
        let repair = one(&cluster, damage, &events).await;
        let repair = repair.with_context(|| format!("{damage}"))?;
        eprintln!("{damage}: {}", repair.text());
        measured.repairs.push(repair);
    }
    measured.switches = switches::observe(&events, &stack.service, &lists, plan.window).await?;
    cluster.wait_complete().await.context("the copies after the last event are not complete")?;
    let window = plan.window / plan.deaths as u32;
    let deaths = deaths::kill_each(plan.deaths, &mut cluster, &mut plane, &mut stack, &lists, window).await?;
    (measured.deaths, [measured.before_deaths, measured.during_deaths]) = deaths;

    (measured.list_reads, measured.failed_list_reads) = lists.finish().await?;
    let (given, sent) = (neighbours.finish().await?, files.finish().await?);
    let oracle = cluster.oracle().await?;
    let judging = move || -> anyhow::Result<_> {
        let oracle = &mut oracle.blocking_lock();
        let files = sent.judge(oracle)?;
        Ok((files, given.judge(oracle)))
    };
    (measured.files, measured.answers) = tokio::task::spawn_blocking(judging).await??;
    plane.stop(&mut stack.service.stack).await?;
    stack.stop().await?;
    Ok((measured, policy))
}

/// Imposes one damage, and waits until it is repaired.
async fn one(cluster: &Cluster, damage: Damage, events: &Events) -> anyhow::Result<Repair> {
    let backups = damage.prepare(cluster).await?;
    if damage.needs_new_version() {
        events.send(2 * switches::BATCH).await?;
        cluster.wait_new_version(&backups).await?;
        cluster.wait_complete().await?;
    }
    let (before, epochs) = (cluster.settled().await?, cluster.published_epochs().await?);
    let imposed = damage.impose(cluster, &backups).await?;
    let begun = Instant::now();
    let found = cluster.wait_found(&imposed.segments, before).await?;
    cluster.wait_complete().await?;
    let repaired_s = begun.elapsed().as_secs_f64();
    let received = cluster.settled().await?.bytes - before.bytes;
    // A new primary that has folded the logs publishes the same version in its epoch: the replicas fetch the manifest.
    let (again, mut of_again) = (cluster.published_since(&epochs).await?, 0);
    for &segment in &again {
        let holders = cluster.holders(segment).await?;
        let primary = holders.first().context("the segment has no primary")?;
        let replicas = holders.len() as u64 - 1;
        of_again += replicas * segment_damage::manifest_bytes(&primary.segments, segment)?;
    }
    Ok(Repair {
        damage: damage.to_string(),
        segments: imposed.segments.len(),
        damaged: imposed.blocks,
        manifests: imposed.manifests,
        received: received as u64,
        published_again: again.len(),
        allowed: imposed.blocks * BLOCK_BYTES as u64 + imposed.manifests * imposed.manifest_bytes + of_again,
        found_s: found.duration_since(begun).as_secs_f64(),
        repaired_s,
    })
}
