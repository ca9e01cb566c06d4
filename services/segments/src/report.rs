//! What workers report about their copies.

use std::{collections::BTreeMap, sync::Arc};

use contract::SegmentId;

use crate::{digest::Digest, manifest::Manifest};

/// Name of a worker.
pub type WorkerId = Arc<str>;

/// What a worker has of one segment. Both may be there: a version stays until the next one is complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// The version that the worker serves.
    pub current: Option<CopyState>,
    /// A version that is being fetched. Its good blocks are as good as others: the worker gives them away, and does not need them again.
    pub staged: Option<CopyState>,
}

/// A version on a disk, with the blocks that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyState {
    /// `None`: missing or damaged. A staged version has one.
    pub manifest: Option<Manifest>,
    /// SHA-256 of each block as it is on the disk, by offset. `None`: missing, or it cannot be read.
    pub blocks: Vec<Option<Digest>>,
}

impl CopyReport {
    /// The current version, then the staged one.
    pub fn states(&self) -> impl Iterator<Item = &CopyState> {
        self.current.iter().chain(&self.staged)
    }
}

impl CopyState {
    /// Whether the block of `manifest` is here, at its offset.
    pub fn has(&self, manifest: &Manifest, block: u32) -> bool {
        let found = self.blocks.get(block as usize).copied().flatten();
        found.is_some() && found == manifest.blocks().get(block as usize).copied()
    }

    /// Whether it is this version, with every block.
    pub fn is_complete(&self, manifest: &Manifest) -> bool {
        self.is_of(manifest) && (0..manifest.blocks().len() as u32).all(|block| self.has(manifest, block))
    }

    /// Whether it is this version. Blocks may be damaged or missing.
    pub fn is_of(&self, manifest: &Manifest) -> bool {
        self.manifest.as_ref() == Some(manifest)
    }
}

/// All copies of a worker. A segment that is not in it is missing there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerReport {
    pub worker: WorkerId,
    /// Of the worker's process: a later start has a higher one.
    pub incarnation: u64,
    /// Ascends with each report of this incarnation, also with those of one segment.
    pub number: u64,
    /// Of the partition table that the worker followed when it made the report.
    pub table_epoch: u64,
    pub copies: BTreeMap<SegmentId, CopyReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReport {
    #[error("worker {worker} reports a manifest of segment {found} as segment {reported}")]
    ForeignSegment { worker: WorkerId, reported: SegmentId, found: SegmentId },
    #[error("report {number} of worker {worker}, incarnation {incarnation}, comes after a later one")]
    Late { worker: WorkerId, incarnation: u64, number: u64 },
    #[error(
        "worker {worker} reports one segment, but its report of all segments has not come: it has to send that first"
    )]
    AllMissing { worker: WorkerId },
    #[error("the report of worker {worker} is of table epoch {found}, but one of epoch {known} came before")]
    OldEpoch { worker: WorkerId, found: u64, known: u64 },
}

/// The newest report of each worker.
#[derive(Debug, Clone, Default)]
pub struct Reports(BTreeMap<WorkerId, WorkerReport>);

impl Reports {
    /// Takes the place of all that the worker reported before.
    ///
    /// # Errors
    /// The report is foreign, late or old. What the worker reported before stays.
    pub fn accept(&mut self, report: WorkerReport) -> Result<(), BadReport> {
        for (&segment, copy) in &report.copies {
            check_segment(&report.worker, segment, copy)?;
        }
        if let Some(known) = self.0.get(&report.worker) {
            known.check_order(report.incarnation, report.number, report.table_epoch)?;
        }
        self.0.insert(Arc::clone(&report.worker), report);
        Ok(())
    }

    /// Replaces what the worker reported of these segments. `None`: it has nothing of it.
    ///
    /// # Errors
    /// The report is foreign, late or old, or the worker has not reported all segments since its start. What it reported before
    /// stays, of all segments.
    pub fn update_all(
        &mut self,
        worker: &WorkerId,
        incarnation: u64,
        number: u64,
        table_epoch: u64,
        copies: BTreeMap<SegmentId, Option<CopyReport>>,
    ) -> Result<(), BadReport> {
        for (&segment, copy) in &copies {
            copy.as_ref().map_or(Ok(()), |copy| check_segment(worker, segment, copy))?;
        }
        let Some(known) = self.0.get_mut(worker) else {
            return Err(BadReport::AllMissing { worker: Arc::clone(worker) });
        };
        known.check_order(incarnation, number, table_epoch)?;
        if incarnation != known.incarnation {
            return Err(BadReport::AllMissing { worker: Arc::clone(worker) });
        }
        (known.number, known.table_epoch) = (number, table_epoch);
        for (segment, copy) in copies {
            match copy {
                Some(copy) => known.copies.insert(segment, copy),
                None => known.copies.remove(&segment),
            };
        }
        Ok(())
    }

    /// The newest report of the worker, with later changes of single segments.
    pub fn of_worker(&self, worker: &str) -> Option<&WorkerReport> {
        self.0.get(worker)
    }

    /// Forgets a worker that is offline: its copies are no sources.
    pub fn forget(&mut self, worker: &str) {
        self.0.remove(worker);
    }

    /// The workers that reported, with their copy of the segment. `None`: the worker has none.
    pub fn of(&self, segment: SegmentId) -> BTreeMap<WorkerId, Option<&CopyReport>> {
        self.0.iter().map(|(worker, report)| (Arc::clone(worker), report.copies.get(&segment))).collect()
    }
}

impl WorkerReport {
    /// Whether a report of this worker came later than this one.
    fn check_order(&self, incarnation: u64, number: u64, table_epoch: u64) -> Result<(), BadReport> {
        let worker = || Arc::clone(&self.worker);
        if (incarnation, number) <= (self.incarnation, self.number) {
            return Err(BadReport::Late { worker: worker(), incarnation, number });
        }
        if table_epoch < self.table_epoch {
            return Err(BadReport::OldEpoch { worker: worker(), found: table_epoch, known: self.table_epoch });
        }
        Ok(())
    }
}

fn check_segment(worker: &WorkerId, reported: SegmentId, copy: &CopyReport) -> Result<(), BadReport> {
    let segments = copy.states().filter_map(|state| state.manifest.as_ref()).map(Manifest::segment);
    match segments.into_iter().find(|&found| found != reported) {
        Some(found) => Err(BadReport::ForeignSegment { worker: Arc::clone(worker), reported, found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use contract::VersionVector;

    use super::*;
    use crate::manifest::Version;

    fn copy(manifest_of: u8) -> CopyReport {
        let version = Version { epoch: 1, vector: VersionVector::default() };
        let manifest = Manifest::of(segment(manifest_of), version, b"bytes").unwrap();
        let state = CopyState { blocks: vec![Some(Digest::of(b"bytes"))], manifest: Some(manifest) };
        CopyReport { current: Some(state), staged: None }
    }

    fn report(order: (u64, u64), table_epoch: u64, reported: u8, copy: CopyReport) -> WorkerReport {
        let (incarnation, number) = order;
        let copies = BTreeMap::from([(segment(reported), copy)]);
        WorkerReport { worker: "w".into(), incarnation, number, table_epoch, copies }
    }

    fn segment(number: u8) -> SegmentId {
        SegmentId::new(number).unwrap()
    }

    fn one(number: u8, copy: Option<CopyReport>) -> BTreeMap<SegmentId, Option<CopyReport>> {
        BTreeMap::from([(segment(number), copy)])
    }

    fn known(reports: &Reports) -> Vec<u8> {
        let has = |number: &u8| reports.of(segment(*number)).get("w").is_some_and(Option::is_some);
        (0..16).filter(has).collect()
    }

    #[test]
    fn foreign_late_and_old_reports_are_refused_and_nothing_is_lost() {
        let mut reports = Reports::default();
        reports.accept(report((7, 5), 5, 3, copy(3))).unwrap();
        let foreign = reports.accept(report((7, 6), 6, 3, copy(4))).unwrap_err();
        assert_eq!(foreign.to_string(), "worker w reports a manifest of segment 04 as segment 03");
        let staged = CopyReport { staged: copy(4).current, ..copy(3) };
        assert_eq!(reports.accept(report((7, 6), 6, 3, staged)), Err(foreign));
        let old = reports.accept(report((7, 6), 4, 2, copy(2))).unwrap_err();
        assert_eq!(old.to_string(), "the report of worker w is of table epoch 4, but one of epoch 5 came before");
        for order in [(7, 5), (7, 4), (6, 9)] {
            let late = reports.accept(report(order, 6, 2, copy(2))).unwrap_err();
            assert!(matches!(late, BadReport::Late { .. }), "{late}");
        }
        assert_eq!(known(&reports), [3], "the first report is still known");
        reports.accept(report((7, 6), 5, 2, copy(2))).unwrap();
        assert_eq!(known(&reports), [2], "a newer report without the segment: it is missing there");
        reports.accept(report((8, 1), 5, 3, copy(3))).unwrap();
        assert_eq!(known(&reports), [3], "numbers begin again with each start");
        reports.forget("w");
        assert!(reports.of(segment(3)).is_empty());
    }

    #[test]
    fn one_segment_is_replaced_after_a_step() {
        let (mut reports, worker) = (Reports::default(), WorkerId::from("w"));
        let all_missing = Err(BadReport::AllMissing { worker: Arc::clone(&worker) });
        assert_eq!(reports.update_all(&worker, 7, 1, 5, one(2, Some(copy(2)))), all_missing);
        reports.accept(report((7, 2), 5, 3, copy(3))).unwrap();
        reports.update_all(&worker, 7, 3, 5, one(2, Some(copy(2)))).unwrap();
        assert_eq!(known(&reports), [2, 3]);
        reports.update_all(&worker, 7, 4, 6, one(3, None)).unwrap();
        assert_eq!(known(&reports), [2]);
        let late = Err(BadReport::Late { worker: Arc::clone(&worker), incarnation: 7, number: 4 });
        assert_eq!(reports.update_all(&worker, 7, 4, 6, one(2, None)), late);
        // A report of all segments that was made before the step.
        assert!(matches!(reports.accept(report((7, 3), 6, 3, copy(3))), Err(BadReport::Late { .. })));
        assert!(matches!(reports.update_all(&worker, 7, 5, 5, one(2, None)), Err(BadReport::OldEpoch { .. })));
        assert!(matches!(
            reports.update_all(&worker, 7, 5, 6, one(2, Some(copy(3)))),
            Err(BadReport::ForeignSegment { .. })
        ));
        // After a restart nothing is known of the other segments.
        assert_eq!(reports.update_all(&worker, 8, 1, 6, one(2, None)), all_missing);
        assert_eq!(known(&reports), [2]);
    }
}
