//! What workers report about their copies.

use std::{collections::BTreeMap, sync::Arc};

use contract::SegmentId;

use crate::{digest::Digest, manifest::Manifest};

/// Name of a worker.
pub type WorkerId = Arc<str>;

/// A worker's copy of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyReport {
    /// `None`: missing or damaged.
    pub manifest: Option<Manifest>,
    /// SHA-256 of each block as it is on the disk, by offset. `None`: missing, or it cannot be read.
    pub blocks: Vec<Option<Digest>>,
}

/// All copies of a worker. A segment that is not in it is missing there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerReport {
    pub worker: WorkerId,
    /// Of the partition table that the worker followed when it made the report.
    pub table_epoch: u64,
    pub copies: BTreeMap<SegmentId, CopyReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReport {
    #[error("worker {worker} reports a manifest of segment {found} as segment {reported}")]
    ForeignSegment { worker: WorkerId, reported: SegmentId, found: SegmentId },
    #[error("the report of worker {worker} is of table epoch {found}, but one of epoch {known} came before")]
    OldEpoch { worker: WorkerId, found: u64, known: u64 },
}

/// The newest report of each worker.
#[derive(Debug, Clone, Default)]
pub struct Reports(BTreeMap<WorkerId, WorkerReport>);

impl Reports {
    /// # Errors
    /// The report is foreign or old. The worker's report before stays.
    pub fn accept(&mut self, report: WorkerReport) -> Result<(), BadReport> {
        let worker = || Arc::clone(&report.worker);
        for (&reported, copy) in &report.copies {
            if let Some(found) = copy.manifest.as_ref().map(Manifest::segment).filter(|&found| found != reported) {
                return Err(BadReport::ForeignSegment { worker: worker(), reported, found });
            }
        }
        let known = self.0.get(&report.worker).map_or(0, |known| known.table_epoch);
        if report.table_epoch < known {
            return Err(BadReport::OldEpoch { worker: worker(), found: report.table_epoch, known });
        }
        self.0.insert(worker(), report);
        Ok(())
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

#[cfg(test)]
mod tests {
    use contract::VersionVector;

    use super::*;
    use crate::manifest::Version;

    fn report(table_epoch: u64, reported: u8, manifest_of: u8) -> WorkerReport {
        let version = Version { epoch: 1, vector: VersionVector::default() };
        let manifest = Manifest::of(SegmentId::new(manifest_of).unwrap(), version, b"bytes").unwrap();
        let copy = CopyReport { blocks: vec![Some(Digest::of(b"bytes"))], manifest: Some(manifest) };
        let copies = BTreeMap::from([(SegmentId::new(reported).unwrap(), copy)]);
        WorkerReport { worker: "w".into(), table_epoch, copies }
    }

    #[test]
    fn foreign_and_old_reports_are_refused_and_nothing_is_lost() {
        let mut reports = Reports::default();
        reports.accept(report(5, 3, 3)).unwrap();
        let foreign = reports.accept(report(6, 3, 4)).unwrap_err();
        assert_eq!(foreign.to_string(), "worker w reports a manifest of segment 04 as segment 03");
        let old = reports.accept(report(4, 2, 2)).unwrap_err();
        assert_eq!(old.to_string(), "the report of worker w is of table epoch 4, but one of epoch 5 came before");
        let segment = SegmentId::new(3).unwrap();
        assert!(reports.of(segment)["w"].is_some(), "the first report is still known");
        reports.accept(report(5, 2, 2)).unwrap();
        assert!(reports.of(segment)["w"].is_none(), "a newer report without the segment: it is missing there");
        reports.forget("w");
        assert!(reports.of(segment).is_empty());
    }
}
