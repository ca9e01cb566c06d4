//! What to do about copies that are damaged, stale or missing. Pure: the newest reports in, transfers and rebuilds out. The caller carries
//! them out and asks again, with the reports that came since; it makes no choices of its own.
//!
//! 1. **Winner.** The announced version, or one that a copy has and that dominates it. Of several, one that no other one dominates; of those,
//!    the one with the highest epoch. A version that does not compare with the announced one lacks events that readers have seen: whichever
//!    its epoch, it does not win.
//! 2. **Needs.** Every holder that reported needs the winner's manifest, and the blocks whose SHA-256 differs at the same offset. A block
//!    that is good is never moved.
//! 3. **Rebuild.** If no holder has a good copy of a block, or no worker has the manifest, one holder folds the winner again from the logs.
//! 4. **Transfers.** Blocks with the fewest good copies come first; at most two transfers run at a time.
//!
//! Workers whose report is missing are no sources and get nothing: whether they hold the segment is the partition table's decision.

use std::collections::BTreeMap;

use contract::SegmentId;

use crate::{
    manifest::{Manifest, Version},
    report::{CopyReport, WorkerId},
};

/// Running at a time, of all segments.
pub const MAX_TRANSFERS: usize = 2;
/// Running at a time, of all segments: a rebuild reads the logs from their start.
pub const MAX_REBUILDS: usize = 1;
/// 256 KiB: short enough that the order is decided again while a whole copy is made.
pub const BLOCKS_PER_TRANSFER: usize = 64;

/// What is known of one segment.
#[derive(Debug, Clone)]
pub struct SegmentCopies<'a> {
    pub segment: SegmentId,
    /// The workers that should have it: the primary, then the replicas.
    pub holders: &'a [WorkerId],
    /// The newest version that was announced to readers. It is rebuilt if no copy has it any more. A version may only be announced if it
    /// dominates the one before, or is the same one in a later epoch. `None`: none yet.
    pub announced: Option<Version>,
    /// Of each worker that is online and reported, holder or not. `None`: it has nothing of the segment.
    pub copies: BTreeMap<WorkerId, Option<&'a CopyReport>>,
}

/// Steps to start. A step runs until a report of its worker arrives that was made after its end, or until one of its workers is offline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub rebuilds: Vec<Rebuild>,
    pub transfers: Vec<Transfer>,
    /// Segments of which two manifests name one version but not one content. Damage cannot cause it: two programs fold in two ways. The
    /// primary's manifest counts.
    pub conflicts: Vec<SegmentId>,
}

/// The worker folds the version from the logs and writes it. It may publish one that dominates it instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    pub segment: SegmentId,
    pub version: Version,
    pub worker: WorkerId,
}

/// The receiver adopts the manifest, if `manifest` is set, and fetches the blocks. The source verifies a block before it sends it, the receiver
/// before it writes it. The source refuses if it has another version by now, the receiver if its own dominates this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    pub segment: SegmentId,
    pub version: Version,
    pub from: WorkerId,
    pub to: WorkerId,
    pub manifest: bool,
    /// At most `BLOCKS_PER_TRANSFER`, those with the fewest good copies first.
    pub blocks: Vec<u32>,
}

/// A part of the winner that a holder does not have. The order is the order in which needs are met.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Need<'a> {
    good_copies: usize,
    segment: SegmentId,
    to: &'a WorkerId,
    /// `None`: the manifest.
    block: Option<u32>,
    /// Workers that have the winner's manifest and this part.
    sources: Vec<&'a WorkerId>,
}

/// `running`: steps of earlier plans whose end is not reported yet.
pub fn plan(segments: &[SegmentCopies<'_>], running: &Plan) -> Plan {
    let mut plan = Plan::default();
    let mut needs = Vec::new();
    let mut winners = BTreeMap::new();
    for copies in segments {
        let Some(winner) = copies.winner() else { continue };
        winners.insert(copies.segment, winner);
        let manifest = copies.manifest_of(winner);
        if copies.manifests().any(|other| other.version() == winner && Some(other) != manifest) {
            plan.conflicts.push(copies.segment);
        }
        let of_segment = manifest.map(|manifest| copies.needs(manifest)).unwrap_or_default();
        let mut rebuilder = running.rebuilds.iter().find(|rebuild| rebuild.segment == copies.segment);
        let started;
        if rebuilder.is_none() && manifest.is_none_or(|manifest| copies.is_lost(&of_segment, manifest)) {
            let first = copies.holders.iter().find(|holder| copies.copies.contains_key(*holder));
            started = first.map(|worker| Rebuild { segment: copies.segment, version: winner, worker: worker.clone() });
            rebuilder = started.as_ref();
            plan.rebuilds.extend(started.clone());
        }
        // A worker that folds the version needs nothing of it.
        needs.extend(of_segment.into_iter().filter(|need| rebuilder.is_none_or(|rebuild| rebuild.worker != *need.to)));
    }
    plan.rebuilds.truncate(MAX_REBUILDS.saturating_sub(running.rebuilds.len()));
    needs.sort();
    plan.transfers = transfers(&needs, &running.transfers, &winners);
    plan
}

impl<'a> SegmentCopies<'a> {
    fn reported(&self) -> impl Iterator<Item = (&WorkerId, &'a CopyReport)> {
        self.copies.iter().filter_map(|(worker, copy)| Some((worker, (*copy)?)))
    }

    fn manifests(&self) -> impl Iterator<Item = &'a Manifest> {
        self.reported().filter_map(|(_, copy)| copy.manifest.as_ref())
    }

    /// Domination and epochs together are no order: the dominated versions have to leave first.
    fn winner(&self) -> Option<Version> {
        let has_announced =
            |version: &Version| self.announced.is_none_or(|announced| version.vector >= announced.vector);
        let versions = self.manifests().map(Manifest::version).chain(self.announced);
        let versions: Vec<Version> = versions.filter(has_announced).collect();
        let is_dominated = |version: &Version| versions.iter().any(|other| other.vector > version.vector);
        // One epoch has no two versions that do not compare; if it had, each monitor would still choose the same one.
        let rank = |version: &Version| (version.epoch, *version.vector.positions());
        versions.iter().filter(|version| !is_dominated(version)).max_by_key(|version| rank(version)).copied()
    }

    /// The primary's, if several differ.
    fn manifest_of(&self, version: Version) -> Option<&'a Manifest> {
        let copy = |worker| self.copies.get(worker).copied().flatten();
        let copies = self.holders.iter().chain(self.copies.keys()).filter_map(copy);
        copies.filter_map(|copy| copy.manifest.as_ref()).find(|manifest| manifest.version() == version)
    }

    /// What the holders do not have.
    fn needs(&self, manifest: &Manifest) -> Vec<Need<'_>> {
        let complete: Vec<_> = self.reported().filter(|(_, copy)| copy.manifest.as_ref() == Some(manifest)).collect();
        let mut needs = Vec::new();
        for to in self.holders.iter().filter(|holder| self.copies.contains_key(*holder)) {
            let copy = self.copies.get(to).copied().flatten();
            if copy.and_then(|copy| copy.manifest.as_ref()) != Some(manifest) {
                let sources: Vec<_> = complete.iter().map(|(worker, _)| *worker).collect();
                needs.push(Need { good_copies: sources.len(), segment: self.segment, to, block: None, sources });
            }
            for block in (0..manifest.blocks().len() as u32).filter(|&block| !has(copy, manifest, block)) {
                let good = complete.iter().filter(|(_, copy)| has(Some(copy), manifest, block));
                let sources: Vec<_> = good.map(|(worker, _)| *worker).collect();
                let good_copies = sources.len();
                needs.push(Need { good_copies, segment: self.segment, to, block: Some(block), sources });
            }
        }
        needs
    }

    /// Whether a needed block is good nowhere. A holder that only lacks the manifest becomes a source when it has adopted it.
    fn is_lost(&self, needs: &[Need<'_>], manifest: &Manifest) -> bool {
        let adopts = |block| {
            let copy = |holder| self.copies.get(holder).copied().flatten();
            self.holders.iter().any(|holder| has(copy(holder), manifest, block))
        };
        needs.iter().any(|need| need.sources.is_empty() && need.block.is_none_or(|block| !adopts(block)))
    }
}

fn has(copy: Option<&CopyReport>, manifest: &Manifest, block: u32) -> bool {
    let found = copy.and_then(|copy| copy.blocks.get(block as usize).copied().flatten());
    found.is_some() && found == manifest.blocks().get(block as usize).copied()
}

/// Takes the most urgent need, and what else its source can send its receiver in the same transfer.
fn transfers(needs: &[Need<'_>], running: &[Transfer], winners: &BTreeMap<SegmentId, Version>) -> Vec<Transfer> {
    let mut started: Vec<Transfer> = Vec::new();
    for need in needs {
        let busy = || running.iter().chain(&started);
        if busy().count() >= MAX_TRANSFERS {
            break;
        }
        if busy().any(|other| other.segment == need.segment && other.to == *need.to) {
            continue;
        }
        let load = |worker: &WorkerId| busy().filter(|other| other.from == *worker).count();
        let Some(from) = need.sources.iter().copied().min_by_key(|worker| load(worker)) else { continue };
        let Some(&version) = winners.get(&need.segment) else { continue };
        let together = needs
            .iter()
            .filter(|other| (other.segment, other.to) == (need.segment, need.to) && other.sources.contains(&from));
        let manifest = together.clone().any(|other| other.block.is_none());
        let blocks = together.filter_map(|other| other.block).take(BLOCKS_PER_TRANSFER).collect();
        let (from, to) = (from.clone(), need.to.clone());
        started.push(Transfer { segment: need.segment, version, from, to, manifest, blocks });
    }
    started
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
