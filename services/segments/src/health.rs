//! What is wrong with a holder's copy, for people and for metrics. The plan does not use it: it looks at blocks.

use std::collections::BTreeMap;

use crate::{
    manifest::{Manifest, Version},
    plan::SegmentCopies,
    report::{CopyReport, CopyState, WorkerId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// The winner, with every block.
    Good,
    /// The manifest or a block is not what it should be.
    Damaged,
    /// Another version than the winner, undamaged: usually an earlier one, while the winner is being copied.
    Stale,
    /// The holder has nothing, or it has not reported.
    Missing,
}

impl Health {
    pub const ALL: [Self; 4] = [Self::Good, Self::Damaged, Self::Stale, Self::Missing];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Damaged => "damaged",
            Self::Stale => "stale",
            Self::Missing => "missing",
        }
    }
}

impl SegmentCopies<'_> {
    /// The winner, and the health of each holder's copy. `None`: no version is known.
    pub fn health(&self) -> Option<(Version, BTreeMap<WorkerId, Health>)> {
        let winner = self.winner()?;
        let manifest = self.manifest_of(winner);
        let of = |holder: &WorkerId| (holder.clone(), health(self.copies.get(holder).copied().flatten(), manifest));
        Some((winner, self.holders.iter().map(of).collect()))
    }
}

/// `winner`: `None` if no copy has its manifest.
fn health(copy: Option<&CopyReport>, winner: Option<&Manifest>) -> Health {
    let Some(current) = copy.and_then(|copy| copy.current.as_ref()) else { return Health::Missing };
    match &current.manifest {
        Some(manifest) if !current.is_complete(manifest) => Health::Damaged,
        Some(manifest) if Some(manifest) == winner => Health::Good,
        Some(_) => Health::Stale,
        None => Health::Damaged,
    }
}

impl CopyState {
    /// The version, if every block of it is here.
    pub fn complete_version(&self) -> Option<Version> {
        let manifest = self.manifest.as_ref()?;
        self.is_complete(manifest).then(|| manifest.version())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use contract::{SegmentId, ShardId, VersionVector};

    use super::*;
    use crate::digest::Digest;

    fn copy(position: u64) -> CopyReport {
        let mut vector = VersionVector::default();
        ShardId::all().take(1).for_each(|log| vector.set(log, position));
        let segment = SegmentId::all().next().unwrap();
        let manifest = Manifest::of(segment, Version { epoch: 1, vector }, &position.to_le_bytes()).unwrap();
        let blocks = vec![Some(Digest::of(&position.to_le_bytes()))];
        CopyReport { current: Some(CopyState { manifest: Some(manifest), blocks }), staged: None }
    }

    #[test]
    fn each_holder_has_a_state() {
        let workers = ["a", "b", "c", "d", "e", "f"].map(WorkerId::from);
        let [mut flipped, mut no_manifest] = [copy(7), copy(7)];
        flipped.current.as_mut().unwrap().blocks[0] = None;
        no_manifest.current.as_mut().unwrap().manifest = None;
        let (good, old) = (copy(7), copy(5));
        let states = [Some(&good), Some(&old), Some(&flipped), Some(&no_manifest), None];
        let copies = workers.iter().cloned().zip(states).collect();
        let awaited = BTreeSet::new();
        let segment = SegmentId::all().next().unwrap();
        let known = SegmentCopies { segment, holders: &workers, announced: None, copies, awaited: &awaited };
        let (winner, health) = known.health().unwrap();
        assert_eq!(Some(winner), good.current.as_ref().unwrap().complete_version());
        let found: Vec<&str> = health.values().map(|health| health.as_str()).collect();
        assert_eq!(found, ["good", "stale", "damaged", "damaged", "missing", "missing"]);
    }
}
