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
    instruments::{segment_damage::block_count, segment_files::Oracle},
    stack::{control_plane::ControlPlane, event_stack::EventStack},
};

/// # Errors
/// The copies do not come back in time.
pub async fn kill(
    cluster: &Cluster,
    plane: &mut ControlPlane,
    stack: &mut EventStack,
    oracle: &mut Oracle,
) -> anyhow::Result<Death> {
    let victim = plane.workers.last().context("there is no worker")?;
    let counts = SegmentId::all().filter_map(|segment| block_count(&victim.segments, segment).ok());
    let counts: Vec<u32> = counts.collect();
    let before = cluster.settled().await;
    let begun = Instant::now();
    victim.kill(&mut stack.service.stack, Signal::SIGKILL)?;
    while cluster.status().await?.table.is_online(&victim.name) {
        ensure!(begun.elapsed() < LIMIT, "the monitors did not fail the worker within {LIMIT:?}");
        sleep(POLL).await;
    }
    let failed_s = begun.elapsed().as_secs_f64();
    cluster.wait_complete(oracle).await?;
    let back_s = begun.elapsed().as_secs_f64();
    let moved = cluster.settled().await.blocks_moved - before.blocks_moved;
    Ok(Death {
        copies: counts.len(),
        blocks: counts.iter().map(|count| u64::from(*count)).sum(),
        moved: moved as u64,
        failed_s,
        back_s,
        ..Death::default()
    })
}
