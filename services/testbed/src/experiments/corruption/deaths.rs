//! A worker is killed for good: its copies are made again on the others.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use contract::SegmentId;
use launcher::Signal;
use tokio::time::sleep;

use super::{
    cluster::{Cluster, LIMIT, POLL},
    judgement::Death,
};
use crate::{
    instruments::segment_damage::block_count,
    stack::{control_plane::ControlPlane, event_stack::EventStack},
};

/// # Errors
/// The copies do not come back in time.
pub async fn kill(cluster: &mut Cluster, plane: &ControlPlane, stack: &mut EventStack) -> anyhow::Result<Death> {
    let victim = plane.workers.last().context("there is no worker")?;
    let counts = SegmentId::all().filter_map(|segment| block_count(&victim.segments, segment).ok());
    let counts: Vec<u32> = counts.collect();
    cluster.died(&victim.name);
    let before = cluster.settled().await?;
    let begun = Instant::now();
    victim.kill(&mut stack.service.stack, Signal::SIGKILL)?;
    while cluster.status().await?.table.is_online(&victim.name) {
        ensure!(begun.elapsed() < LIMIT, "the monitors did not fail the worker within {LIMIT:?}");
        sleep(POLL).await;
    }
    let failed_s = begun.elapsed().as_secs_f64();
    cluster.wait_complete().await?;
    let back_s = begun.elapsed().as_secs_f64();
    let received = cluster.settled().await?.bytes - before.bytes;
    Ok(Death {
        copies: counts.len(),
        blocks: counts.iter().map(|count| u64::from(*count)).sum(),
        received: received as u64,
        failed_s,
        back_s,
        ..Death::default()
    })
}
