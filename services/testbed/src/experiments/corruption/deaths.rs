//! Workers are killed: their copies are made again on the others.

use std::time::{Duration, Instant};

use anyhow::ensure;
use contract::SegmentId;
use launcher::Signal;
use tokio::time::sleep;

use super::{
    cluster::{Cluster, LIMIT, POLL},
    judgement::{Death, Latencies, SlowRead},
    readers::{ListReaders, Read},
};
use crate::{
    instruments::segment_damage::block_count,
    stack::{control_plane::ControlPlane, event_stack::EventStack},
};

/// Slower than elsewhere: the monitors' answers take CPU time from the reads that are measured. As often before a death as after it.
const LOOK: Duration = Duration::from_millis(200);
const SLOWEST_READS: usize = 20;

/// Kills each of the last workers, one after the other. Reads before each death and during it are measured.
///
/// # Errors
/// The copies do not come back in time.
pub async fn kill_each(
    deaths: usize,
    cluster: &mut Cluster,
    plane: &mut ControlPlane,
    stack: &mut EventStack,
    lists: &ListReaders,
    before_each: Duration,
) -> anyhow::Result<(Vec<Death>, [Latencies; 2])> {
    let (mut seen, mut before, mut during) = (Vec::new(), Vec::new(), Vec::new());
    for number in (0..plane.workers.len()).rev().take(deaths) {
        let (looked, reads) = lists.during(look_for(cluster, before_each)).await;
        looked?;
        before.extend(reads);
        cluster.is_dead(&plane.workers[number].name, true);
        let received = cluster.counted().await?.bytes;
        let began = Instant::now();
        let (death, reads) = lists.during(kill(number, cluster, plane, stack)).await;
        let mut death = death?;
        // After the measured time: reading all disks again and again takes CPU time from what is measured.
        if let Some(later) = cluster.wait_complete().await? {
            death.back_s += later.as_secs_f64();
        }
        death.received = (cluster.counted().await?.bytes - received) as u64;
        death.slowest_reads = slowest(began, &reads);
        eprintln!("killed worker: {}", death.text());
        seen.push(death);
        during.extend(reads);
        let worker = &mut plane.workers[number];
        worker.restart(&mut stack.service.stack).await?;
        let begun = Instant::now();
        while !cluster.status().await?.table.is_online(&worker.name) {
            ensure!(begun.elapsed() < LIMIT, "the worker did not come back within {LIMIT:?}");
            sleep(POLL).await;
        }
        cluster.is_dead(&worker.name, false);
        cluster.wait_complete().await?;
    }
    Ok((seen, [before, during].map(|reads| Latencies::of(reads.iter().map(|read| (read.ms, read.is_answered))))))
}

/// What `kill` does while it waits.
async fn look_for(cluster: &Cluster, lasting: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < lasting {
        Cluster::unreported(&cluster.status().await?);
        sleep(LOOK).await;
    }
    Ok(())
}

async fn kill(number: usize, cluster: &Cluster, plane: &ControlPlane, stack: &mut EventStack) -> anyhow::Result<Death> {
    let victim = &plane.workers[number];
    let counts = SegmentId::all().filter_map(|segment| block_count(&victim.segments, segment).ok());
    let counts: Vec<u32> = counts.collect();
    let begun = Instant::now();
    victim.kill(&mut stack.service.stack, Signal::SIGKILL)?;
    while cluster.status().await?.table.is_online(&victim.name) {
        ensure!(begun.elapsed() < LIMIT, "the monitors did not fail the worker within {LIMIT:?}");
        sleep(LOOK).await;
    }
    let failed_s = begun.elapsed().as_secs_f64();
    while let Some(_why) = Cluster::unreported(&cluster.status().await?) {
        ensure!(begun.elapsed() < LIMIT, "the copies were not made again within {LIMIT:?}");
        sleep(LOOK).await;
    }
    let back_s = begun.elapsed().as_secs_f64();
    Ok(Death {
        copies: counts.len(),
        blocks: counts.iter().map(|count| u64::from(*count)).sum(),
        received: 0,
        failed_s,
        back_s,
        slowest_reads: Vec::new(),
    })
}

/// In the order of their requests.
fn slowest(began: Instant, reads: &[Read]) -> Vec<SlowRead> {
    let mut slowest = reads.to_vec();
    slowest.sort_by(|one, other| other.ms.total_cmp(&one.ms));
    slowest.truncate(SLOWEST_READS);
    slowest.sort_by_key(|read| read.sent);
    let slow = |read: &Read| SlowRead { at_s: read.sent.into_std().duration_since(began).as_secs_f64(), ms: read.ms };
    slowest.iter().map(slow).collect()
}
