//! What to do about copies that are damaged, stale or missing. Pure: the newest reports in, transfers and rebuilds out. The caller carries
//! them out and asks again, with the reports that came since; it makes no choices of its own.
//!
//! 1. **Winner.** The announced version, or one that a copy has and that dominates it. Of several, one that no other one dominates; of those,
//!    the one with the highest epoch. A version that does not compare with the announced one lacks events that readers have seen: whichever
//!    its epoch, it does not win.
//! 2. **Needs.** Every holder that reported needs the winner's manifest, and the blocks whose SHA-256 differs at the same offset. A block
//!    that is good, in the current or in the staged version, is never moved.
//! 3. **Rebuild.** If no holder has a good copy of a block, or no worker has the manifest, one holder folds the winner again from the logs.
//!    Not while a report is awaited: it may have what is missing.
//! 4. **Transfers.** Blocks with the fewest good copies come first; at most two transfers run at a time. Pairs of workers whose last
//!    transfer failed come last.
//! 5. **Drops.** When every holder has the winner, the copies of other workers go.
//!
//! Workers whose report is missing are no sources and get nothing: whether they hold the segment is the partition table's decision.

use std::collections::{BTreeMap, BTreeSet};

use contract::SegmentId;

use crate::{
    digest::Digest,
    manifest::{Manifest, Version},
    report::{CopyReport, CopyState, WorkerId},
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
    /// Workers that are online, holders or not, but whose report has not come yet.
    pub awaited: &'a BTreeSet<WorkerId>,
}

/// Source and receiver of each transfer that failed, until one of that pair succeeds. A rebuild that failed: its worker as both.
pub type FailedPairs = BTreeSet<(WorkerId, WorkerId)>;

/// Steps to start. A step runs until a report of its worker arrives that was made after its end, or until one of its workers is offline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub rebuilds: Vec<Rebuild>,
    pub transfers: Vec<Transfer>,
    /// Copies to remove. The worker refuses if it holds the segment by a later partition table.
    pub drops: Vec<(SegmentId, WorkerId)>,
    /// Segments of which two manifests name one version but not one content. Damage cannot cause it: two programs of one epoch fold in two
    /// ways. The primary's manifest counts. Across epochs the versions differ, and the higher epoch wins.
    pub conflicts: Vec<SegmentId>,
}

/// The worker folds the version from the logs and writes it. It may publish one that dominates it instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    pub segment: SegmentId,
    pub version: Version,
    pub worker: WorkerId,
}

/// The receiver begins the version (`SegmentDirectory::begin`), and fetches those of the blocks that it misses then. The source verifies a
/// block before it sends it, the receiver before it writes it. The source refuses if it has another version by now, the receiver if its own
/// is newer.
///
/// From a worker to itself: it has the parts on its disk, and only has to put them into place (`begin`, `finish`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    pub segment: SegmentId,
    pub version: Version,
    /// `Manifest::content` of the version.
    pub content: Digest,
    pub from: WorkerId,
    pub to: WorkerId,
    /// Whether the receiver has to fetch the manifest, which the source has as its current or its staged one: it asks for `content`.
    /// Otherwise the receiver has it, current or staged.
    pub manifest: bool,
    /// At most `BLOCKS_PER_TRANSFER`, those with the fewest good copies first.
    pub blocks: Vec<u32>,
}

/// A part of the winner that a holder does not have. The order is the order in which needs are met.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Need<'a> {
    /// Every source failed to send to this holder.
    has_failed: bool,
    good_copies: usize,
    segment: SegmentId,
    to: &'a WorkerId,
    part: Part,
    /// Workers that have the winner's manifest and this part.
    sources: Vec<&'a WorkerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Manifest,
    /// What the holder's own disk has, but not in the file of the version, or not in its place.
    Own,
    Block(u32),
}

/// `running`: steps of earlier plans whose end is not reported yet.
pub fn plan(segments: &[SegmentCopies<'_>], running: &Plan, failed: &FailedPairs) -> Plan {
    let mut plan = Plan::default();
    let mut needs = Vec::new();
    let mut winners = BTreeMap::new();
    for copies in segments {
        let Some(winner) = copies.winner() else { continue };
        let manifest = copies.manifest_of(winner);
        if copies.manifests().any(|other| other.version() == winner && Some(other) != manifest) {
            plan.conflicts.push(copies.segment);
        }
        let of_segment = manifest.map(|manifest| copies.needs(manifest)).unwrap_or_default();
        let mut rebuilder = running.rebuilds.iter().find(|rebuild| rebuild.segment == copies.segment).cloned();
        let is_lost = manifest.is_none_or(|manifest| copies.is_lost(&of_segment, manifest));
        if rebuilder.is_none() && is_lost && copies.awaited.is_empty() {
            let worker = copies.rebuilder(failed);
            rebuilder =
                worker.map(|worker| Rebuild { segment: copies.segment, version: winner, worker: worker.clone() });
            plan.rebuilds.extend(rebuilder.clone());
        }
        if let Some(manifest) = manifest {
            winners.insert(copies.segment, manifest);
            plan.drops.extend(copies.drops(manifest).filter(|drop| !running.drops.contains(drop)));
        }
        // A worker that folds the version needs nothing of it.
        needs.extend(
            of_segment.into_iter().filter(|need| rebuilder.as_ref().is_none_or(|rebuild| rebuild.worker != *need.to)),
        );
    }
    plan.rebuilds.sort_by_key(|rebuild| failed.contains(&(rebuild.worker.clone(), rebuild.worker.clone())));
    plan.rebuilds.truncate(MAX_REBUILDS.saturating_sub(running.rebuilds.len()));
    for need in &mut needs {
        need.has_failed = need.sources.iter().all(|from| has_failed(failed, from, need.to));
    }
    needs.sort();
    plan.transfers = transfers(&needs, &running.transfers, &winners, failed);
    plan
}

impl<'a> SegmentCopies<'a> {
    fn reported(&self) -> impl Iterator<Item = (&WorkerId, &'a CopyReport)> {
        self.copies.iter().filter_map(|(worker, copy)| Some((worker, (*copy)?)))
    }

    fn copy(&self, worker: &WorkerId) -> Option<&'a CopyReport> {
        self.copies.get(worker).copied().flatten()
    }

    /// Of current versions. A staged one that is current nowhere is a part of something that was lost; it wins only if it was announced.
    fn manifests(&self) -> impl Iterator<Item = &'a Manifest> {
        self.reported().filter_map(|(_, copy)| copy.current.as_ref()?.manifest.as_ref())
    }

    /// Domination and epochs together are no order: the dominated versions have to leave first.
    pub(crate) fn winner(&self) -> Option<Version> {
        let has_announced =
            |version: &Version| self.announced.is_none_or(|announced| version.vector >= announced.vector);
        let versions = self.manifests().map(Manifest::version).chain(self.announced);
        let versions: Vec<Version> = versions.filter(has_announced).collect();
        let is_dominated = |version: &Version| versions.iter().any(|other| other.vector > version.vector);
        // One epoch has no two versions that do not compare; if it had, each monitor would still choose the same one.
        let rank = |version: &Version| (version.epoch, *version.vector.positions());
        versions.iter().filter(|version| !is_dominated(version)).max_by_key(|version| rank(version)).copied()
    }

    /// The primary's, if several differ. A staged one, if it is current nowhere.
    pub(crate) fn manifest_of(&self, version: Version) -> Option<&'a Manifest> {
        let copies = || self.holders.iter().chain(self.copies.keys()).filter_map(|worker| self.copy(worker));
        let states = copies().map(|copy| &copy.current).chain(copies().map(|copy| &copy.staged));
        let mut manifests = states.filter_map(|state| state.as_ref()?.manifest.as_ref());
        manifests.find(|manifest| manifest.version() == version)
    }

    /// What the holders do not have.
    fn needs(&self, manifest: &Manifest) -> Vec<Need<'_>> {
        let mut needs = Vec::new();
        // Whole manifests are compared here, once for each copy: a segment may have 65,536 blocks.
        let of_version = |(worker, copy)| Some((worker, version_of(copy, manifest)?));
        let states: Vec<(&WorkerId, &CopyState)> = self.reported().filter_map(of_version).collect();
        let sources = |is_source: &dyn Fn(&CopyState) -> bool| {
            states.iter().filter(|(_, state)| is_source(state)).map(|(worker, _)| *worker).collect()
        };
        for to in self.holders.iter().filter(|holder| self.copies.contains_key(*holder)) {
            let mut add = |part, sources: Vec<_>| {
                let (segment, good_copies) = (self.segment, sources.len());
                needs.push(Need { has_failed: false, good_copies, segment, to, part, sources });
            };
            let blocks = 0..manifest.blocks().len() as u32;
            match states.iter().find(|(worker, _)| *worker == to) {
                None => add(Part::Manifest, sources(&|_| true)),
                Some((_, state)) => {
                    let is_elsewhere = |block| !state.has(manifest, block) && self.has(to, manifest, block);
                    if state.is_complete(manifest) && !self.is_done(to, manifest) || blocks.clone().any(is_elsewhere) {
                        add(Part::Own, vec![to]);
                    }
                }
            }
            for block in blocks.filter(|&block| !self.has(to, manifest, block)) {
                add(Part::Block(block), sources(&|state| state.has(manifest, block)));
            }
        }
        needs
    }

    /// Whether the worker has the block in a file of its own: beginning the version puts it into place.
    fn has(&self, worker: &WorkerId, manifest: &Manifest, block: u32) -> bool {
        self.copy(worker).is_some_and(|copy| copy.states().any(|state| state.has(manifest, block)))
    }

    /// Whether the worker's current version is this one, with all blocks.
    fn is_done(&self, worker: &WorkerId, manifest: &Manifest) -> bool {
        self.copy(worker).and_then(|copy| copy.current.as_ref()).is_some_and(|state| state.is_complete(manifest))
    }

    /// Whether a needed block is good nowhere. A holder that only lacks the manifest becomes a source when it has begun the version.
    fn is_lost(&self, needs: &[Need<'_>], manifest: &Manifest) -> bool {
        let mut lost = needs.iter().filter(|need| need.sources.is_empty());
        lost.any(|need| match need.part {
            Part::Block(block) => !self.holders.iter().any(|holder| self.has(holder, manifest, block)),
            Part::Manifest | Part::Own => false,
        })
    }

    fn rebuilder(&self, failed: &FailedPairs) -> Option<&WorkerId> {
        let online = self.holders.iter().filter(|holder| self.copies.contains_key(*holder));
        online.min_by_key(|worker| has_failed(failed, worker, worker))
    }

    fn drops(&self, manifest: &Manifest) -> impl Iterator<Item = (SegmentId, WorkerId)> {
        let all_done = !self.holders.is_empty() && self.holders.iter().all(|holder| self.is_done(holder, manifest));
        let others = self.reported().map(|(worker, _)| worker).filter(|worker| !self.holders.contains(worker));
        others.filter(move |_| all_done).map(|worker| (self.segment, worker.clone()))
    }
}

/// What a worker has of this version: its current one or its staged one.
fn version_of<'a>(copy: &'a CopyReport, manifest: &Manifest) -> Option<&'a CopyState> {
    copy.states().find(|state| state.is_of(manifest))
}

fn has_failed(failed: &FailedPairs, from: &WorkerId, to: &WorkerId) -> bool {
    failed.contains(&(from.clone(), to.clone()))
}

/// Takes the most urgent need, and what else its source can send its receiver in the same transfer.
fn transfers(
    needs: &[Need<'_>],
    running: &[Transfer],
    winners: &BTreeMap<SegmentId, &Manifest>,
    failed: &FailedPairs,
) -> Vec<Transfer> {
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
        let rank = |worker: &WorkerId| (has_failed(failed, worker, need.to), load(worker));
        let Some(from) = need.sources.iter().copied().min_by_key(|worker| rank(worker)) else { continue };
        let Some(&winner) = winners.get(&need.segment) else { continue };
        let together = needs
            .iter()
            .filter(|other| (other.segment, other.to) == (need.segment, need.to) && other.sources.contains(&from));
        let manifest = together.clone().any(|other| other.part == Part::Manifest);
        let blocks = together.filter_map(|other| match other.part {
            Part::Block(block) => Some(block),
            Part::Manifest | Part::Own => None,
        });
        started.push(Transfer {
            segment: need.segment,
            version: winner.version(),
            content: winner.content(),
            from: from.clone(),
            to: need.to.clone(),
            manifest,
            blocks: blocks.take(BLOCKS_PER_TRANSFER).collect(),
        });
    }
    started
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
