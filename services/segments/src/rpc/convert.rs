//! Messages ↔ what the program works with. Everything that comes from the network is checked here.

use std::collections::BTreeMap;

use bytes::Bytes;
use contract::{SegmentId, VersionVector};

use super::messages::{
    BlockReport, CopyMessage, Finished, OrderMessage, RebuildMessage, ReportedSegment, TransferMessage, VersionMessage,
};
use crate::{
    digest::Digest,
    manifest::{MAX_BLOCKS, Manifest, ManifestError, Version},
    report::{CopyReport, CopyState, WorkerId},
};

pub type OrderId = u64;

/// What a worker has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    pub segment: SegmentId,
    pub step: Step,
    /// W3C trace context of the repair.
    pub traceparent: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// See `Transfer`; `address` is `host:port` of the source's HTTP port.
    Transfer { version: Version, content: Digest, from: WorkerId, address: String, manifest: bool, blocks: Vec<u32> },
    /// See `Rebuild`.
    Rebuild { version: Version },
    /// The worker is no holder any more: it removes its copy.
    Remove,
}

/// A block report that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadReport {
    pub worker: WorkerId,
    pub incarnation: u64,
    pub number: u64,
    pub table_epoch: u64,
    /// See `BlockReport::complete`.
    pub complete: bool,
    /// `None`: nothing of the segment is there.
    pub copies: BTreeMap<SegmentId, Option<CopyReport>>,
    pub finished: Vec<Finished>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    #[error("there is no segment {0}")]
    NoSuchSegment(u32),
    #[error("segment {0} is twice in the report")]
    Twice(SegmentId),
    #[error("the staged version of segment {0} has no manifest")]
    StagedWithoutManifest(SegmentId),
    #[error("the report says that {0} orders have ended, the limit is {MAX_FINISHED}")]
    TooManyFinished(usize),
    #[error("a content has {0} bytes instead of 32")]
    Content(usize),
    #[error("the manifest of segment {segment} cannot be read: {error}")]
    Manifest { segment: SegmentId, error: ManifestError },
    #[error(
        "the digests of segment {segment} have {bytes} bytes, which is no number of digests, or above the limit of {MAX_BLOCKS}"
    )]
    Digests { segment: SegmentId, bytes: usize },
    #[error(
        "the blocks of segment {0} are reported as those of the manifest, but there is no manifest, or there are other digests"
    )]
    NotAsStated(SegmentId),
    #[error("a version vector has {0} positions instead of 16")]
    Positions(usize),
    #[error("the order {0} does not say what to do")]
    NoStep(OrderId),
}

/// Ended orders in one report.
const MAX_FINISHED: usize = 256;
/// Of a block that is missing: no known bytes have this digest.
const MISSING: [u8; Digest::BYTES] = [0; Digest::BYTES];

impl ReportedSegment {
    /// `None`: nothing of the segment is there.
    pub fn new(segment: SegmentId, copy: Option<&CopyReport>) -> Self {
        let message = |state: &Option<CopyState>| state.as_ref().map(CopyMessage::from);
        Self {
            segment: segment.number().into(),
            current: copy.and_then(|copy| message(&copy.current)),
            staged: copy.and_then(|copy| message(&copy.staged)),
        }
    }

    /// # Errors
    /// There is no such segment, or a manifest or the digests are not those of a copy of it.
    pub fn read(&self) -> Result<(SegmentId, Option<CopyReport>), BadMessage> {
        let segment = segment(self.segment)?;
        let read = |message: &Option<CopyMessage>| message.as_ref().map(|copy| copy.read(segment)).transpose();
        let copy = CopyReport { current: read(&self.current)?, staged: read(&self.staged)? };
        if copy.staged.as_ref().is_some_and(|staged| staged.manifest.is_none()) {
            return Err(BadMessage::StagedWithoutManifest(segment));
        }
        Ok((segment, (copy != CopyReport::default()).then_some(copy)))
    }
}

impl From<&CopyState> for CopyMessage {
    fn from(CopyState { manifest, blocks }: &CopyState) -> Self {
        let stated = manifest.as_ref().map(Manifest::blocks);
        let as_stated = stated.is_some_and(|stated| blocks.iter().copied().eq(stated.iter().copied().map(Some)));
        let digest = |block: &Option<Digest>| block.map_or(MISSING, |digest| digest.0);
        let blocks = if as_stated { Vec::new() } else { blocks.iter().flat_map(digest).collect() };
        let manifest = manifest.as_ref().map(Manifest::encode).unwrap_or_default();
        Self { manifest: manifest.into(), blocks: blocks.into(), as_stated }
    }
}

impl CopyMessage {
    /// # Errors
    /// The manifest is not one of this segment, or the digests are not digests, or not those of the manifest although the message says so.
    pub fn read(&self, segment: SegmentId) -> Result<CopyState, BadMessage> {
        let manifest = match self.manifest.is_empty() {
            true => None,
            false => Some(
                Manifest::decode(&self.manifest, segment).map_err(|error| BadMessage::Manifest { segment, error })?,
            ),
        };
        if self.as_stated {
            let manifest = manifest.filter(|_| self.blocks.is_empty()).ok_or(BadMessage::NotAsStated(segment))?;
            let blocks = manifest.blocks().iter().copied().map(Some).collect();
            return Ok(CopyState { manifest: Some(manifest), blocks });
        }
        let (digests, rest) = self.blocks.as_chunks::<{ Digest::BYTES }>();
        if !rest.is_empty() || digests.len() > MAX_BLOCKS as usize {
            return Err(BadMessage::Digests { segment, bytes: self.blocks.len() });
        }
        let digest = |bytes: &[u8; Digest::BYTES]| (*bytes != MISSING).then_some(Digest(*bytes));
        Ok(CopyState { manifest, blocks: digests.iter().map(digest).collect() })
    }
}

impl TryFrom<BlockReport> for ReadReport {
    type Error = BadMessage;

    fn try_from(message: BlockReport) -> Result<Self, BadMessage> {
        let BlockReport { worker, incarnation, number, table_epoch, complete, segments, finished } = message;
        let mut copies = BTreeMap::new();
        for reported in &segments {
            let (segment, copy) = reported.read()?;
            if copies.insert(segment, copy).is_some() {
                return Err(BadMessage::Twice(segment));
            }
        }
        if finished.len() > MAX_FINISHED {
            return Err(BadMessage::TooManyFinished(finished.len()));
        }
        Ok(Self { worker: worker.into(), incarnation, number, table_epoch, complete, copies, finished })
    }
}

/// The segment with this number.
///
/// # Errors
/// There is none.
pub fn segment(number: u32) -> Result<SegmentId, BadMessage> {
    let known = u8::try_from(number).ok().and_then(SegmentId::new);
    known.ok_or(BadMessage::NoSuchSegment(number))
}

impl From<Version> for VersionMessage {
    fn from(version: Version) -> Self {
        Self { epoch: version.epoch, positions: version.vector.positions().to_vec() }
    }
}

impl TryFrom<&VersionMessage> for Version {
    type Error = BadMessage;

    fn try_from(message: &VersionMessage) -> Result<Self, BadMessage> {
        let positions = message.positions.as_slice();
        let positions = positions.try_into().map_err(|_| BadMessage::Positions(positions.len()))?;
        Ok(Self { epoch: message.epoch, vector: VersionVector::new(positions) })
    }
}

impl From<&Order> for OrderMessage {
    fn from(order: &Order) -> Self {
        let mut message = Self {
            id: order.id,
            segment: order.segment.number().into(),
            traceparent: order.traceparent.clone().unwrap_or_default(),
            ..Self::default()
        };
        match &order.step {
            Step::Transfer { version, content, from, address, manifest, blocks } => {
                message.transfer = Some(TransferMessage {
                    version: Some((*version).into()),
                    content: Bytes::copy_from_slice(&content.0),
                    from: from.to_string(),
                    address: address.clone(),
                    manifest: *manifest,
                    blocks: blocks.clone(),
                });
            }
            Step::Rebuild { version } => message.rebuild = Some(RebuildMessage { version: Some((*version).into()) }),
            Step::Remove => message.removes = true,
        }
        message
    }
}

impl TryFrom<OrderMessage> for Order {
    type Error = BadMessage;

    fn try_from(message: OrderMessage) -> Result<Self, BadMessage> {
        let OrderMessage { id, segment: number, transfer, rebuild, removes, traceparent } = message;
        let version = |version: Option<VersionMessage>| Version::try_from(&version.unwrap_or_default());
        let step = match (transfer, rebuild) {
            (Some(TransferMessage { version: of, content, from, address, manifest, blocks }), None) => {
                let content = (*content).try_into().map_err(|_| BadMessage::Content(content.len()))?;
                let (version, content) = (version(of)?, Digest(content));
                Step::Transfer { version, content, from: from.into(), address, manifest, blocks }
            }
            (None, Some(RebuildMessage { version: of })) => Step::Rebuild { version: version(of)? },
            (None, None) if removes => Step::Remove,
            _ => return Err(BadMessage::NoStep(id)),
        };
        let traceparent = (!traceparent.is_empty()).then_some(traceparent);
        Ok(Self { id, segment: segment(number)?, step, traceparent })
    }
}

impl From<BadMessage> for tonic::Status {
    fn from(bad: BadMessage) -> Self {
        Self::invalid_argument(bad.to_string())
    }
}

/// Wraps a frame.
impl From<Vec<u8>> for super::Signed {
    fn from(frame: Vec<u8>) -> Self {
        Self { frame: Bytes::from(frame) }
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
