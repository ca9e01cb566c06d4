//! Faults of the copies of the model's segments.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use contract::SegmentId;
use monitor::status::Status;
use tokio_util::sync::CancellationToken;

use crate::{instruments::segment_damage, stack::control_plane::ControlPlane};

const FORGED_EVERY: Duration = Duration::from_millis(500);

/// A worker's directory as while its disk is not mounted: in its place is a link that leads nowhere, which no user can write through.
pub struct Unmounted {
    directory: PathBuf,
    elsewhere: PathBuf,
}

impl Unmounted {
    /// # Errors
    /// The directory is not there.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        let (directory, elsewhere) = (directory.to_owned(), directory.with_extension("unmounted"));
        fs::rename(&directory, &elsewhere).with_context(|| format!("cannot move {}", directory.display()))?;
        symlink("nowhere", &directory)?;
        Ok(Self { directory, elsewhere })
    }

    /// # Errors
    /// The link is not there any more.
    pub fn mount(self) -> anyhow::Result<()> {
        fs::remove_file(&self.directory).with_context(|| format!("cannot remove {}", self.directory.display()))?;
        Ok(fs::rename(self.elsewhere, self.directory)?)
    }
}

/// The directory of the first replica of this segment.
///
/// # Errors
/// No monitor has a table in which the segment has a replica.
pub async fn of_a_replica(plane: &ControlPlane, http: &reqwest::Client, segment: SegmentId) -> anyhow::Result<PathBuf> {
    let monitor = plane.monitors.first().context("there is no monitor")?;
    let status: Status = http.get(format!("http://{}/status", monitor.http)).send().await?.json().await?;
    let partition = status.table.partitions.get(segment.index()).context("the monitor has no table")?;
    let replica = partition.replicas.first().with_context(|| format!("segment {segment} has no replica"))?;
    let worker = plane.workers.iter().find(|worker| *worker.name == **replica);
    Ok(worker.with_context(|| format!("there is no {replica}"))?.segments.clone())
}

/// Gives the copy another content again and again, because repairs and new versions replace it.
pub async fn forge(directory: PathBuf, segment: SegmentId, stop: CancellationToken) {
    while !stop.is_cancelled() {
        // It fails if a new version comes in between.
        segment_damage::forge(&directory, segment).ok();
        tokio::time::sleep(FORGED_EVERY).await;
    }
}
