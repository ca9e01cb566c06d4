//! Messages ↔ what the program works with. Everything that comes from the network is checked here.

use bytes::Bytes;
use contract::{SegmentId, VersionVector};

use super::messages::{CopyMessage, OrderMessage, RebuildMessage, TransferMessage, VersionMessage};
use crate::{
    digest::Digest,
    manifest::{MAX_BLOCKS, Manifest, ManifestError, Version},
    report::WorkerId,
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
    Transfer { version: Version, from: WorkerId, address: String, manifest: bool, blocks: Vec<u32> },
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
}

/// Of a block that is missing: no known bytes have this digest.
const MISSING: [u8; Digest::BYTES] = [0; Digest::BYTES];

impl CopyMessage {
    pub fn new(manifest: Option<&Manifest>, blocks: &[Option<Digest>]) -> Self {
        let blocks: Vec<u8> = blocks.iter().flat_map(|block| block.map_or(MISSING, |digest| digest.0)).collect();
        Self { manifest: manifest.map(Manifest::encode).unwrap_or_default().into(), blocks: blocks.into() }
    }

    /// The manifest, and the digest of each block that is there.
    ///
    /// # Errors
    /// The manifest is not one of this segment, or the digests are not digests.
    pub fn read(&self, segment: SegmentId) -> Result<(Option<Manifest>, Vec<Option<Digest>>), BadMessage> {
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
        Ok((manifest, digests.iter().map(digest).collect()))
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
            Step::Transfer { version, from, address, manifest, blocks } => {
                message.transfer = Some(TransferMessage {
                    version: Some((*version).into()),
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
            (Some(TransferMessage { version: of, from, address, manifest, blocks }), None) => {
                Step::Transfer { version: version(of)?, from: from.into(), address, manifest, blocks }
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
