//! Step 1 of a heartbeat's path: transports receive frames; [`Ingest`] verifies the MAC, decodes, checks, refuses repetitions, records in
//! the table, and passes on.

pub mod assignments;
pub mod connections;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "udp")]
pub mod probe;
#[cfg(feature = "http")]
pub mod rendered;
#[cfg(feature = "tcp")]
pub mod tcp;
#[cfg(feature = "udp")]
pub mod udp;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    Nanos,
    auth::{FrameKind, Header, Keys, Reject, Verdict},
    clock::{Clock, latest_incarnation},
    codec::{
        Codec, CodecId, DecodeError, Json,
        protobuf::{BatchRef, BeatRef},
    },
    message::{Ack, Beat},
    table::{Observation, Recorded, Table},
};

/// Maximum number of batch senders; each has a replay window.
const MAX_BATCH_SENDERS: usize = 65_536;

/// Silence after which a batch sender may be replaced. Checked at most every tenth of it.
const FORGET_SENDERS_AFTER: Nanos = 600_000_000_000;

/// Receives accepted heartbeats. Called on the receiver's task: it must not block.
pub trait Sink: Send + Sync {
    fn beat(&self, received_at: Nanos, peer: SocketAddr, beat: Beat);
}

impl<F: Fn(Nanos, SocketAddr, Beat) + Send + Sync> Sink for F {
    fn beat(&self, received_at: Nanos, peer: SocketAddr, beat: Beat) {
        self(received_at, peer, beat);
    }
}

/// Counts of heartbeats and datagrams since the start.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: AtomicU64,
    rejected: [AtomicU64; Reject::ALL.len()],
}

impl Counts {
    /// Accepted heartbeats.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Rejected heartbeats, or whole datagrams without a readable heartbeat.
    pub fn rejected(&self, reason: Reject) -> u64 {
        self.rejected[reason as usize].load(Relaxed)
    }

    pub fn rejected_total(&self) -> u64 {
        Reject::ALL.into_iter().map(|reason| self.rejected(reason)).sum()
    }

    pub(crate) fn reject(&self, reason: Reject) {
        self.rejected[reason as usize].fetch_add(1, Relaxed);
    }
}

/// The receiving side of one monitor, shared by its transports.
///
/// ```
/// use std::sync::Arc;
///
/// use heartbeat::{
///     auth::{Keys, Reject},
///     clock::{Clock, wall_ms},
///     codec::Protobuf,
///     frame,
///     message::Beat,
///     table::Table,
///     transport::{Ingest, Scratch},
/// };
///
/// let keys = Keys::new(b"32 random bytes are a good secret");
/// let ingest = Ingest::new(Clock::start(), keys.clone(), Arc::new(Table::new(1_000)), None).reject_future_incarnations();
/// let beat = Beat { node_id: "worker-1".into(), incarnation: wall_ms(), sequence: 1, ..Beat::default() };
/// let mut datagram = Vec::new();
/// frame::sign_beat(&keys, &mut Protobuf, &beat, true, &mut datagram)?;
///
/// let (mut scratch, peer) = (Scratch::default(), ([127, 0, 0, 1], 7401).into());
/// let handled = ingest.frame(&mut scratch, ingest.clock().now(), peer, &datagram)?;
/// assert!(handled.is_new);
/// assert_eq!(handled.ack.map(|ack| ack.of).as_deref(), Some("worker-1"));
/// // A repetition is refused, and acknowledged again: the first acknowledgement may have been lost.
/// let handled = ingest.frame(&mut scratch, ingest.clock().now(), peer, &datagram)?;
/// assert!(!handled.is_new && handled.ack.is_some());
/// assert_eq!(ingest.counts().rejected(Reject::Repeated), 1);
/// # #[derive(Debug)] struct Error;
/// # impl From<Reject> for Error { fn from(_: Reject) -> Self { Self } }
/// # impl From<heartbeat::codec::EncodeError> for Error { fn from(_: heartbeat::codec::EncodeError) -> Self { Self } }
/// # Ok::<(), Error>(())
/// ```
pub struct Ingest {
    clock: Clock,
    keys: Keys,
    table: Arc<Table>,
    batch_senders: Table,
    /// When silent batch senders were last removed.
    forgotten_at: AtomicU64,
    sink: Option<Arc<dyn Sink>>,
    rejects_future_incarnations: bool,
    counts: Counts,
}

/// An authentic and readable frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handled {
    /// If the sender requested one; also for a repetition, since the first response may have been lost.
    pub ack: Option<Ack>,
    /// At least one heartbeat, or the batch, was received for the first time.
    pub is_new: bool,
}

/// Buffers that a receiving task reuses.
#[derive(Default)]
pub struct Scratch {
    zstd: Unpacker,
    outcomes: Vec<Recorded>,
}

/// Decompresses payloads. Its megabyte of state is allocated for the first authentic frame that needs it, not for every connection.
#[derive(Default)]
struct Unpacker {
    #[cfg(feature = "zstd")]
    codec: Option<crate::codec::ProtobufZstd>,
}

impl Unpacker {
    #[cfg(feature = "zstd")]
    fn unpack(&mut self, payload: &[u8]) -> Result<&[u8], Reject> {
        let codec = match &mut self.codec {
            Some(codec) => codec,
            // Out of memory counts as a lost frame.
            none => none.insert(crate::codec::ProtobufZstd::new().map_err(|_| Reject::Decode)?),
        };
        codec.unpack(payload).map_err(|error| reason(&error))
    }

    #[cfg(not(feature = "zstd"))]
    fn unpack(&mut self, _payload: &[u8]) -> Result<&[u8], Reject> {
        Err(Reject::Decode)
    }
}

impl Ingest {
    /// Without a sink, heartbeats end in the table and are not copied.
    pub fn new(clock: Clock, keys: Keys, table: Arc<Table>, sink: Option<Arc<dyn Sink>>) -> Self {
        let batch_senders = Table::new(MAX_BATCH_SENDERS);
        let forgotten_at = AtomicU64::new(0);
        Self {
            clock,
            keys,
            table,
            batch_senders,
            forgotten_at,
            sink,
            rejects_future_incarnations: false,
            counts: Counts::default(),
        }
    }

    /// Refuses incarnations beyond `latest_incarnation`, as a monitor must. Benchmarks use fixed dates and do not set this.
    pub fn reject_future_incarnations(self) -> Self {
        Self { rejects_future_incarnations: true, ..self }
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Handles one frame (a datagram, or its equivalent). Failures are counted.
    ///
    /// # Errors
    /// Why the frame was dropped.
    pub fn frame(&self, scratch: &mut Scratch, at: Nanos, peer: SocketAddr, frame: &[u8]) -> Result<Handled, Reject> {
        let result =
            self.keys.verify(frame).and_then(|(header, payload)| self.payload(scratch, at, peer, header, payload));
        result.inspect_err(|&reason| self.counts.reject(reason))
    }

    /// Records a heartbeat without a MAC, such as the article's `GET /heartbeat?id=`. The caller has decided to trust it, and has checked
    /// it (`Beat::check`, `check_incarnation`).
    pub fn record_beat(&self, at: Nanos, peer: SocketAddr, beat: Beat) -> Recorded {
        let recorded = self.table.record(&observation(at, &beat));
        self.count(recorded);
        self.pass_on(recorded, at, peer, || Ok(beat));
        recorded
    }

    fn payload(
        &self,
        scratch: &mut Scratch,
        at: Nanos,
        peer: SocketAddr,
        header: Header,
        payload: &[u8],
    ) -> Result<Handled, Reject> {
        let Scratch { zstd, outcomes } = scratch;
        let (ack, is_new) = match (header.kind, header.codec) {
            (FrameKind::Beat, CodecId::Json) => {
                let beat = Json.decode(payload).map_err(|error| reason(&error))?;
                check_sequence(beat.sequence)?;
                self.check_incarnation(beat.incarnation)?;
                let ack = Ack { of: beat.node_id.clone(), incarnation: beat.incarnation, sequence: beat.sequence };
                (ack, self.record_beat(at, peer, beat).accepted())
            }
            (FrameKind::Beat, CodecId::Protobuf) => self.beat_ref(at, peer, payload)?,
            (FrameKind::Beat, CodecId::ProtobufZstd) => self.beat_ref(at, peer, zstd.unpack(payload)?)?,
            (FrameKind::Batch, CodecId::Json) => {
                let batch = Json.decode_batch(payload).map_err(|error| reason(&error))?;
                let ack = Ack { of: batch.sender, incarnation: batch.incarnation, sequence: batch.sequence };
                let is_new = self.batch_is_new(at, &ack)?;
                if is_new {
                    for beat in batch.beats {
                        match self.check_incarnation(beat.incarnation) {
                            Ok(()) => _ = self.record_beat(at, peer, beat),
                            Err(reason) => self.counts.reject(reason),
                        }
                    }
                }
                (ack, is_new)
            }
            (FrameKind::Batch, CodecId::Protobuf) => self.batch_ref(outcomes, at, peer, payload)?,
            (FrameKind::Batch, CodecId::ProtobufZstd) => self.batch_ref(outcomes, at, peer, zstd.unpack(payload)?)?,
            _ => return Err(Reject::Frame),
        };
        Ok(Handled { ack: header.ack_wanted.then_some(ack), is_new })
    }

    fn beat_ref(&self, at: Nanos, peer: SocketAddr, payload: &[u8]) -> Result<(Ack, bool), Reject> {
        let beat = BeatRef::parse(payload).map_err(|error| reason(&error))?;
        check_sequence(beat.sequence)?;
        self.check_incarnation(beat.incarnation)?;
        let recorded = self.table.record(&observation_ref(at, &beat));
        self.count(recorded);
        self.pass_on(recorded, at, peer, || beat.to_beat());
        let ack = Ack { of: beat.node_id.to_owned(), incarnation: beat.incarnation, sequence: beat.sequence };
        Ok((ack, recorded.accepted()))
    }

    fn batch_ref(
        &self,
        outcomes: &mut Vec<Recorded>,
        at: Nanos,
        peer: SocketAddr,
        payload: &[u8],
    ) -> Result<(Ack, bool), Reject> {
        let mut beats = Vec::new();
        let BatchRef { sender, incarnation, sequence } =
            BatchRef::parse(payload, &mut beats).map_err(|error| reason(&error))?;
        let ack = Ack { of: sender.to_owned(), incarnation, sequence };
        let is_new = self.batch_is_new(at, &ack)?;
        if is_new {
            let latest = self.latest_incarnation();
            // One node with a wrong clock must not reject the whole batch.
            beats.retain(|beat| {
                let is_begun = beat.incarnation <= latest;
                if !is_begun {
                    self.counts.reject(Reject::FutureIncarnation);
                }
                is_begun
            });
            let observations: Vec<_> = beats.iter().map(|beat| observation_ref(at, beat)).collect();
            self.table.record_all(&observations, outcomes);
            for (&recorded, beat) in outcomes.iter().zip(&beats) {
                self.count(recorded);
                self.pass_on(recorded, at, peer, || beat.to_beat());
            }
        }
        Ok((ack, is_new))
    }

    /// False for a repeated batch: it is acknowledged again and ignored.
    fn batch_is_new(&self, at: Nanos, batch: &Ack) -> Result<bool, Reject> {
        let (incarnation, sequence) = (batch.incarnation, batch.sequence);
        check_sequence(sequence)?;
        self.check_incarnation(incarnation)?;
        let observation = Observation { node_id: &batch.of, at, incarnation, sequence, load: 0.0 };
        let mut recorded = self.batch_senders.record(&observation);
        if recorded == Recorded::Full && self.forget_senders(at) {
            recorded = self.batch_senders.record(&observation);
        }
        match refusal(recorded) {
            None => Ok(true),
            Some(Reject::Repeated) => {
                self.counts.reject(Reject::Repeated);
                Ok(false)
            }
            Some(reason) => Err(reason),
        }
    }

    /// True: there is room again.
    fn forget_senders(&self, at: Nanos) -> bool {
        let last = self.forgotten_at.load(Relaxed);
        at >= last.saturating_add(FORGET_SENDERS_AFTER / 10)
            && self.forgotten_at.compare_exchange(last, at, Relaxed, Relaxed).is_ok()
            && self.batch_senders.forget_before(at.saturating_sub(FORGET_SENDERS_AFTER)) > 0
    }

    fn latest_incarnation(&self) -> u64 {
        if self.rejects_future_incarnations { latest_incarnation() } else { u64::MAX }
    }

    /// # Errors
    /// The incarnation is too far in the future.
    pub fn check_incarnation(&self, incarnation: u64) -> Result<(), Reject> {
        if incarnation <= self.latest_incarnation() { Ok(()) } else { Err(Reject::FutureIncarnation) }
    }

    fn count(&self, recorded: Recorded) {
        match refusal(recorded) {
            None => _ = self.counts.accepted.fetch_add(1, Relaxed),
            Some(reason) => self.counts.reject(reason),
        }
    }

    fn pass_on(
        &self,
        recorded: Recorded,
        at: Nanos,
        peer: SocketAddr,
        beat: impl FnOnce() -> Result<Beat, DecodeError>,
    ) {
        let Some(sink) = self.sink.as_ref().filter(|_| recorded.accepted()) else { return };
        match beat() {
            Ok(beat) => sink.beat(at, peer, beat),
            // The two Protobuf decoders disagree: a bug, but no reason to stop.
            Err(error) => tracing::error!(%error, "cannot decode a heartbeat that was checked"),
        }
    }
}

fn observation(at: Nanos, beat: &Beat) -> Observation<'_> {
    let &Beat { sequence, incarnation, load, ref node_id, .. } = beat;
    Observation { node_id, at, incarnation, sequence, load }
}

fn observation_ref<'a>(at: Nanos, beat: &BeatRef<'a>) -> Observation<'a> {
    let &BeatRef { sequence, incarnation, load, node_id, .. } = beat;
    Observation { node_id, at, incarnation, sequence, load }
}

fn reason(error: &DecodeError) -> Reject {
    match error {
        DecodeError::Invalid(_) => Reject::Invalid,
        _ => Reject::Decode,
    }
}

/// Authenticated heartbeats must be numbered: otherwise a recorded one could be replayed for ever.
fn check_sequence(sequence: u64) -> Result<(), Reject> {
    if sequence == 0 { Err(Reject::Invalid) } else { Ok(()) }
}

fn refusal(recorded: Recorded) -> Option<Reject> {
    match recorded {
        Recorded::Full => Some(Reject::Full),
        Recorded::Known(Verdict::Repeated) => Some(Reject::Repeated),
        Recorded::Known(Verdict::TooOld) => Some(Reject::TooOld),
        Recorded::Known(Verdict::StaleIncarnation) => Some(Reject::StaleIncarnation),
        Recorded::Known(Verdict::First | Verdict::Newer | Verdict::Late | Verdict::Unnumbered) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Protobuf, message::Batch};

    #[test]
    fn senders_of_batches_that_are_silent_make_room_for_others() {
        let keys = Keys::new(b"of this test");
        let ingest = Ingest::new(Clock::start(), keys.clone(), Arc::new(Table::new(8)), None);
        let (mut scratch, peer) = (Scratch::default(), SocketAddr::from(([127, 0, 0, 1], 1)));
        let mut take = |at: Nanos, sender: String| {
            let batch = Batch { sender, sequence: 1, incarnation: 1, beats: Vec::new() };
            let (mut frame, header) =
                (Vec::new(), Header { kind: FrameKind::Batch, codec: CodecId::Protobuf, ack_wanted: false });
            keys.sign(header, &mut frame, |out| Protobuf.encode_batch(&batch, out)).unwrap();
            ingest.frame(&mut scratch, at, peer, &frame)
        };
        let room = 2 * MAX_BATCH_SENDERS;
        let full = (0..room).find(|n| take(FORGET_SENDERS_AFTER / 2, format!("agent-{n}")).is_err());
        assert!(full.is_some_and(|n| n > MAX_BATCH_SENDERS / 2));
        assert_eq!(take(FORGET_SENDERS_AFTER, format!("agent-{}", full.unwrap())), Err(Reject::Full));
        assert!(take(2 * FORGET_SENDERS_AFTER, format!("agent-{}", full.unwrap())).is_ok_and(|handled| handled.is_new));
    }
}
