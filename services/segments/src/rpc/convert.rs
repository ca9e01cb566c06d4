//! Messages ↔ what the program works with. Everything that comes from the network is checked here.

use bytes::Bytes;
use contract::{SegmentId, VersionVector};

use super::messages::{CopyMessage, OrderMessage, RebuildMessage, ReportedSegment, TransferMessage, VersionMessage};
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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    #[error("there is no segment {0}")]
    NoSuchSegment(u32),
    #[error("the manifest of segment {segment} cannot be read: {error}")]
    Manifest { segment: SegmentId, error: ManifestError },
    #[error(
        "the digests of segment {segment} have {bytes} bytes, which is no number of digests, or above the limit of {MAX_BLOCKS}"
    )]
    Digests { segment: SegmentId, bytes: usize },
    #[error("a version vector has {0} positions instead of 16")]
    Positions(usize),
    #[error("the order {0} does not say what to do")]
    NoStep(OrderId),
    #[error("the digest of a file's content has {0} bytes instead of 32")]
    Content(usize),
}

/// Of a block that is missing: no known bytes have this digest.
const MISSING: [u8; Digest::BYTES] = [0; Digest::BYTES];

impl CopyMessage {
    fn new(copy: &CopyState) -> Self {
        let digest = |block: &Option<Digest>| block.map_or(MISSING, |digest| digest.0);
        let blocks: Vec<u8> = copy.blocks.iter().flat_map(digest).collect();
        Self {
            manifest: copy.manifest.as_ref().map(Manifest::encode).unwrap_or_default().into(),
            blocks: blocks.into(),
        }
    }

    fn read(&self, segment: SegmentId) -> Result<CopyState, BadMessage> {
        let manifest = match self.manifest.is_empty() {
            true => None,
            false => Some(
                Manifest::decode(&self.manifest, segment).map_err(|error| BadMessage::Manifest { segment, error })?,
            ),
        };
        let (digests, rest) = self.blocks.as_chunks::<{ Digest::BYTES }>();
        if !rest.is_empty() || digests.len() > MAX_BLOCKS as usize {
            return Err(BadMessage::Digests { segment, bytes: self.blocks.len() });
        }
        let digest = |bytes: &[u8; Digest::BYTES]| (*bytes != MISSING).then_some(Digest(*bytes));
        Ok(CopyState { manifest, blocks: digests.iter().map(digest).collect() })
    }
}

impl ReportedSegment {
    pub fn new(segment: SegmentId, copy: Option<&CopyReport>) -> Self {
        let message = |state: Option<&CopyState>| state.map(CopyMessage::new);
        Self {
            segment: segment.number().into(),
            current: message(copy.and_then(|copy| copy.current.as_ref())),
            staged: message(copy.and_then(|copy| copy.staged.as_ref())),
        }
    }

    /// The segment, and what there is of it; `None`: nothing.
    ///
    /// # Errors
    /// There is no such segment, a manifest is not one of it, or the digests are not digests.
    pub fn read(&self) -> Result<(SegmentId, Option<CopyReport>), BadMessage> {
        let segment = segment(self.segment)?;
        let read = |message: &Option<CopyMessage>| message.as_ref().map(|message| message.read(segment)).transpose();
        let copy = CopyReport { current: read(&self.current)?, staged: read(&self.staged)? };
        Ok((segment, (copy != CopyReport::default()).then_some(copy)))
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
                    from: from.to_string(),
                    address: address.clone(),
                    manifest: *manifest,
                    blocks: blocks.clone(),
                    content: content.0.to_vec().into(),
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
                let content = content[..].try_into().map_err(|_| BadMessage::Content(content.len()))?;
                let content = Digest(content);
                Step::Transfer { version: version(of)?, content, from: from.into(), address, manifest, blocks }
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
