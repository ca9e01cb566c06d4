//! What is done to the copies.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, ensure};
use contract::SegmentId;

use super::cluster::Cluster;
use crate::instruments::segment_damage::{self, Backup};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    FlipReplica,
    FlipPrimary,
    Manifest,
    AllManifests,
    Truncated,
    DirectoryGone,
    PrimaryDirectoryGone,
    Stale,
    DifferentBlocks,
    SameBlock,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FlipReplica => "bits flipped in a replica's copy",
            Self::FlipPrimary => "bits flipped in the primary's copy",
            Self::Manifest => "the primary's manifest damaged",
            Self::AllManifests => "all three manifests damaged",
            Self::Truncated => "a replica's file cut off after one block",
            Self::DirectoryGone => "a replica's directory gone, with all its segments",
            Self::PrimaryDirectoryGone => "a primary's directory gone, with all its segments",
            Self::Stale => "an old version put back on a replica",
            Self::DifferentBlocks => "a different block bad in each of the three copies",
            Self::SameBlock => "the same block bad in all three copies",
        })
    }
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Imposed {
    /// Copies that were damaged.
    pub segments: Vec<SegmentId>,
    /// Blocks that were damaged or lost, in all copies.
    pub blocks: u64,
    /// Copies without the right manifest, and the length of one.
    pub manifests: u64,
    pub manifest_bytes: u64,
}

impl Damage {
    pub const ALL: [Self; 10] = [
        Self::FlipReplica,
        Self::FlipPrimary,
        Self::Manifest,
        Self::AllManifests,
        Self::Truncated,
        Self::DirectoryGone,
        Self::PrimaryDirectoryGone,
        Self::Stale,
        Self::DifferentBlocks,
        Self::SameBlock,
    ];

    /// Each damage has a segment of its own.
    fn segment(self) -> SegmentId {
        SegmentId::new(self as u8).expect("there are fewer damages than segments")
    }

    pub fn needs_new_version(self) -> bool {
        self == Self::Stale
    }

    /// Before a new version is published.
    ///
    /// # Errors
    /// A copy cannot be read.
    pub async fn prepare(self, cluster: &Cluster) -> anyhow::Result<BTreeMap<SegmentId, Backup>> {
        if !self.needs_new_version() {
            return Ok(BTreeMap::new());
        }
        let segment = self.segment();
        let holders = cluster.holders(segment).await?;
        let replica = holders.get(1).context("the segment has no replica")?;
        Ok(BTreeMap::from([(segment, Backup::take(&replica.segments, segment)?)]))
    }

    /// # Errors
    /// A file is not there.
    pub async fn impose(self, cluster: &Cluster, backups: &BTreeMap<SegmentId, Backup>) -> anyhow::Result<Imposed> {
        let segment = self.segment();
        let holders = cluster.holders(segment).await?;
        let [primary, replica, third] = holders.as_slice() else { anyhow::bail!("segment {segment} has no 3 holders") };
        let count = segment_damage::block_count(&primary.segments, segment)?;
        let last = count.saturating_sub(1);
        let manifest_bytes = segment_damage::manifest_bytes(&primary.segments, segment)?;
        let mut imposed = Imposed { segments: vec![segment], manifest_bytes, ..Imposed::default() };
        match self {
            Self::FlipReplica | Self::FlipPrimary => {
                let directory = if self == Self::FlipPrimary { &primary.segments } else { &replica.segments };
                let mut blocks = vec![0, last / 2, last];
                blocks.dedup();
                segment_damage::flip(directory, segment, &blocks)?;
                imposed.blocks = blocks.len() as u64;
            }
            Self::Manifest => {
                segment_damage::manifest(&primary.segments, segment)?;
                imposed.manifests = 1;
            }
            Self::AllManifests => {
                for holder in &holders {
                    segment_damage::manifest(&holder.segments, segment)?;
                }
                imposed.manifests = 3;
            }
            Self::Truncated => {
                segment_damage::truncate(&replica.segments, segment, 1)?;
                imposed.blocks = last.into();
            }
            Self::DirectoryGone | Self::PrimaryDirectoryGone => {
                let directory = if self == Self::DirectoryGone { &replica.segments } else { &primary.segments };
                imposed.segments.clear();
                for segment in SegmentId::all() {
                    if let Ok(count) = segment_damage::block_count(directory, segment) {
                        imposed.segments.push(segment);
                        imposed.blocks += u64::from(count);
                        imposed.manifests += 1;
                        let bytes = segment_damage::manifest_bytes(directory, segment)?;
                        imposed.manifest_bytes = imposed.manifest_bytes.max(bytes);
                    }
                }
                segment_damage::delete(directory)?;
            }
            Self::Stale => {
                let backup = backups.get(&segment).context("nothing was saved before the new version")?;
                imposed.blocks = backup.differing_blocks(&primary.segments, segment)?;
                imposed.manifests = 1;
                backup.restore(&replica.segments, segment)?;
            }
            Self::DifferentBlocks => {
                ensure!(count >= 3, "segment {segment} has {count} blocks, and 3 different ones are needed");
                for (block, holder) in [(0, primary), (last / 2, replica), (last, third)] {
                    segment_damage::flip(&holder.segments, segment, &[block])?;
                }
                imposed.blocks = 3;
            }
            Self::SameBlock => {
                for holder in &holders {
                    segment_damage::flip(&holder.segments, segment, &[last / 2])?;
                }
                imposed.blocks = 3;
            }
        }
        Ok(imposed)
    }
}
