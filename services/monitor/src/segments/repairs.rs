//! Repairs in progress. Each is a trace: from the plan that first finds a copy damaged to the report that shows it good. Orders carry its
//! context.
//!
//! The copying of a new version to its replicas is no repair: there the version before is stale because it was replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use contract::{
    SegmentId,
    spans::{attribute, name},
};
use heartbeat::assign::NodeId;
use runtime::telemetry::{Context, Kind, Span, Telemetry};
use segments::{Health, SegmentCopies, Version};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Damaged,
    /// An earlier version than the worker had.
    Stale,
    Missing,
    /// No worker has a good copy of some block: the worker folds the logs.
    Lost,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Stale => "stale",
            Self::Missing => "missing",
            Self::Lost => "lost",
        }
    }
}

/// At most one for each copy.
#[derive(Default)]
pub struct Repairs {
    telemetry: Telemetry,
    open: BTreeMap<(SegmentId, NodeId), Repair>,
    /// The newest version that each holder had.
    newest: BTreeMap<(SegmentId, NodeId), Version>,
    /// Segments of which all holders had a good copy once: a missing one was lost since, or a new holder takes its place.
    replicated: BTreeSet<SegmentId>,
}

struct Repair {
    cause: Cause,
    span: Span,
}

impl Repairs {
    pub fn new(telemetry: Telemetry) -> Self {
        Self { telemetry, ..Self::default() }
    }

    /// Begins and ends repairs. `rebuilder`: the worker that folds the segment from the logs.
    pub fn observe(
        &mut self,
        copies: &SegmentCopies<'_>,
        health: &BTreeMap<NodeId, Health>,
        rebuilder: Option<&NodeId>,
    ) {
        let segment = copies.segment;
        self.open.retain(|(of, worker), repair| {
            let is_holder = *of != segment || health.contains_key(worker);
            if !is_holder {
                repair.span.fail("moved");
            }
            is_holder
        });
        self.newest.retain(|(of, worker), _| *of != segment || health.contains_key(worker));
        for (worker, &health) in health {
            let place = (segment, worker.clone());
            let current = copies.copies.get(worker).and_then(|copy| copy.as_ref()?.current.as_ref()?.manifest.as_ref());
            let version = current.map(|manifest| manifest.version());
            let cause = match health {
                Health::Good => None,
                _ if rebuilder == Some(worker) => Some(Cause::Lost),
                Health::Damaged => Some(Cause::Damaged),
                Health::Missing => self.replicated.contains(&segment).then_some(Cause::Missing),
                Health::Stale => {
                    let had_newer = |newest: &Version| version.is_none_or(|version| newest.is_newer_than(&version));
                    self.newest.get(&place).is_some_and(had_newer).then_some(Cause::Stale)
                }
            };
            match cause {
                _ if health == Health::Good => _ = self.open.remove(&place),
                Some(cause) => self.begin(place.clone(), cause),
                None => {}
            }
            if let Some(version) = version
                && self.newest.get(&place).is_none_or(|newest| version.is_newer_than(newest))
            {
                self.newest.insert(place, version);
            }
        }
        if !health.is_empty() && health.values().all(|&health| health == Health::Good) {
            self.replicated.insert(segment);
        }
    }

    fn begin(&mut self, place: (SegmentId, NodeId), cause: Cause) {
        let (segment, worker) = (place.0, place.1.clone());
        let telemetry = &self.telemetry;
        let repair = self.open.entry(place).or_insert_with(|| {
            let root = (Context::root(true), 0);
            let span = telemetry.record(root, Kind::Internal, name::REPAIR_SEGMENT, Instant::now());
            span.set(attribute::SEGMENT, u64::from(segment.number()));
            span.set(attribute::NODE, &*worker);
            span.set(attribute::CAUSE, cause.as_str());
            tracing::info!(%segment, %worker, cause = cause.as_str(), "a copy of a segment has to be repaired");
            Repair { cause, span }
        });
        // What was first only damaged can turn out to be lost.
        if cause == Cause::Lost && repair.cause != cause {
            repair.cause = cause;
            repair.span.set(attribute::CAUSE, cause.as_str());
        }
    }

    /// Trace context of the repair of this copy. `None`: it is not recorded.
    pub fn traceparent(&self, segment: SegmentId, worker: &NodeId) -> Option<String> {
        let repair = self.open.get(&(segment, worker.clone()))?;
        repair.span.context().map(|context| context.to_string())
    }

    /// This monitor leads no more: another one goes on.
    pub fn clear(&mut self) {
        for repair in std::mem::take(&mut self.open).into_values() {
            repair.span.fail("not_leading");
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::VersionVector;
    use segments::{CopyReport, CopyState, Digest, Manifest};

    use super::*;

    fn copy(position: u64) -> Option<CopyReport> {
        let (segment, vector) = (SegmentId::all().next().unwrap(), VersionVector::new([position; 16]));
        let manifest = Manifest::of(segment, Version { epoch: 1, vector }, &position.to_le_bytes()).unwrap();
        let blocks = vec![Some(Digest::of(&position.to_le_bytes()))];
        Some(CopyReport { current: Some(CopyState { manifest: Some(manifest), blocks }), staged: None })
    }

    fn flipped(position: u64) -> Option<CopyReport> {
        let mut copy = copy(position);
        copy.as_mut().unwrap().current.as_mut().unwrap().blocks[0] = None;
        copy
    }

    #[test]
    fn damage_is_a_repair_and_the_copying_of_a_new_version_is_none() {
        let mut repairs = Repairs::default();
        let holders = ["a", "b"].map(NodeId::from);
        let mut observe = |a: Option<CopyReport>, b: Option<CopyReport>, rebuilder: Option<&NodeId>| {
            let copies = holders.iter().cloned().zip([a.as_ref(), b.as_ref()]).collect();
            let (segment, awaited) = (SegmentId::all().next().unwrap(), BTreeSet::new());
            let known = SegmentCopies { segment, holders: &holders, announced: None, copies, awaited: &awaited };
            let (_, health) = known.health().unwrap();
            repairs.observe(&known, &health, rebuilder);
            let causes = repairs.open.iter().map(|((_, worker), repair)| format!("{worker} {}", repair.cause.as_str()));
            causes.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(observe(copy(5), None, None), "", "the first version is on its way");
        assert_eq!(observe(copy(5), copy(5), None), "");
        assert_eq!(observe(copy(7), copy(5), None), "", "so is the second");
        assert_eq!(observe(copy(7), copy(7), None), "");
        assert_eq!(observe(copy(7), copy(5), None), "b stale");
        assert_eq!(observe(copy(7), copy(7), None), "");
        assert_eq!(observe(copy(7), flipped(7), None), "b damaged");
        assert_eq!(observe(flipped(7), flipped(7), Some(&"a".into())), "a lost, b damaged");
        assert_eq!(observe(copy(7), None, None), "b damaged");
        assert_eq!(observe(copy(7), copy(7), None), "");
        assert_eq!(observe(copy(7), None, None), "b missing");
    }
}
