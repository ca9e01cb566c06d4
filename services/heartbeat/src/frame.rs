//! Whole frames: a heartbeat, an acknowledgement or a control message with its MAC.
//!
//! Control messages are what monitors and workers exchange besides heartbeats, as JSON. A replayed question changes nothing: ballots are
//! numbered, and a registration does not replace itself. A reply contains the MAC of its question, so that a recorded reply does not pass
//! for the reply to a later question.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    assign::NodeId,
    auth::{FrameKind, Header, Keys, MAC_BYTES, Reject},
    codec::{Codec, CodecId, EncodeError},
    message::{Ack, Beat},
    registry::Registration,
    vote::Ballot,
};

/// A control message that begins an exchange.
pub trait Control: Serialize + DeserializeOwned {
    const KIND: FrameKind;
}

impl Control for Registration {
    const KIND: FrameKind = FrameKind::Registration;
}

impl Control for Ballot {
    const KIND: FrameKind = FrameKind::Ballot;
}

/// A worker's question for the partition table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    pub node: NodeId,
    /// Epoch of the worker's table: it serves nothing any more that this table does not assign to it.
    pub epoch: u64,
    /// Milliseconds to wait for a later table; 0: answer immediately.
    pub wait_ms: u64,
    /// A random number: makes each poll, and with it each reply, different.
    pub nonce: u64,
}

impl Control for Poll {
    const KIND: FrameKind = FrameKind::Poll;
}

/// Appends the frame of one heartbeat to `out`.
///
/// # Errors
/// The codec's.
pub fn sign_beat(
    keys: &Keys,
    codec: &mut dyn Codec,
    beat: &Beat,
    ack_wanted: bool,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let header = Header { kind: FrameKind::Beat, codec: codec.id(), ack_wanted };
    keys.sign(header, out, |out| codec.encode(beat, out))
}

/// Appends the frame of an acknowledgement to `out`.
pub fn sign_ack(keys: &Keys, ack: &Ack, out: &mut Vec<u8>) {
    sign_protobuf(keys, FrameKind::Ack, ack, out);
}

/// The acknowledgement in a frame; `None`: the frame is not an authentic acknowledgement.
pub fn verify_ack(keys: &Keys, frame: &[u8]) -> Option<Ack> {
    verify_protobuf(keys, FrameKind::Ack, frame)
}

/// Appends the frame of a message whose codec is always Protobuf, independently of any heartbeat's codec.
pub fn sign_protobuf(keys: &Keys, kind: FrameKind, message: &impl prost::Message, out: &mut Vec<u8>) {
    let start = keys.begin(Header { kind, codec: CodecId::Protobuf, ack_wanted: false }, out);
    message.encode_raw(out);
    keys.finish(kind.role(), start, out);
}

/// The message in a frame; `None`: the frame is not authentic, or has another kind of message.
pub fn verify_protobuf<M: prost::Message + Default>(keys: &Keys, kind: FrameKind, frame: &[u8]) -> Option<M> {
    let (header, payload) = keys.verify(frame).ok()?;
    if header.kind == kind { M::decode(payload).ok() } else { None }
}

/// The frame of the reply to the question in the frame `question`, as `sign_reply`.
pub fn sign_protobuf_reply(keys: &Keys, kind: FrameKind, question: &[u8], message: &impl prost::Message) -> Vec<u8> {
    let mut frame = Vec::new();
    let start = keys.begin(Header { kind, codec: CodecId::Protobuf, ack_wanted: false }, &mut frame);
    frame.extend_from_slice(mac_of(question));
    message.encode_raw(&mut frame);
    keys.finish(kind.role(), start, &mut frame);
    frame
}

/// The reply in a frame; `None`: it is not authentic, not of this kind, or the reply to another question.
pub fn verify_protobuf_reply<M: prost::Message + Default>(
    keys: &Keys,
    kind: FrameKind,
    question: &[u8],
    frame: &[u8],
) -> Option<M> {
    let (header, payload) = keys.verify(frame).ok()?;
    let (answered, message) = payload.split_first_chunk::<MAC_BYTES>()?;
    let is_reply = header.kind == kind && answered == mac_of(question);
    if is_reply { M::decode(message).ok() } else { None }
}

/// The frame of a control message.
///
/// # Errors
/// The message cannot be serialised.
pub fn sign_control<T: Control>(keys: &Keys, message: &T) -> serde_json::Result<Vec<u8>> {
    let mut frame = Vec::new();
    keys.sign(json_header(T::KIND), &mut frame, |out| serde_json::to_writer(out, message))?;
    Ok(frame)
}

/// The control message in a frame.
///
/// # Errors
/// The frame is not authentic, or has another kind of message.
pub fn verify_control<T: Control>(keys: &Keys, frame: &[u8]) -> Result<T, Reject> {
    let (header, payload) = keys.verify(frame)?;
    if header != json_header(T::KIND) {
        return Err(Reject::Frame);
    }
    serde_json::from_slice(payload).map_err(|_| Reject::Decode)
}

/// The reply to a control message: `question` is its frame, `json` the reply.
pub fn sign_reply(keys: &Keys, kind: FrameKind, question: &[u8], json: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(json.len() + 64);
    let start = keys.begin(json_header(kind), &mut frame);
    frame.extend_from_slice(mac_of(question));
    frame.extend_from_slice(json);
    keys.finish(kind.role(), start, &mut frame);
    frame
}

/// The reply in a frame.
///
/// # Errors
/// The frame is not authentic, or not a reply of this kind. `Repeated`: it is the reply to another question.
pub fn verify_reply<T: DeserializeOwned>(
    keys: &Keys,
    kind: FrameKind,
    question: &[u8],
    frame: &[u8],
) -> Result<T, Reject> {
    let (header, payload) = keys.verify(frame)?;
    let (answered, json) = payload.split_first_chunk::<MAC_BYTES>().ok_or(Reject::Frame)?;
    if header != json_header(kind) {
        return Err(Reject::Frame);
    }
    if answered != mac_of(question) {
        return Err(Reject::Repeated);
    }
    serde_json::from_slice(json).map_err(|_| Reject::Decode)
}

fn json_header(kind: FrameKind) -> Header {
    Header { kind, codec: CodecId::Json, ack_wanted: false }
}

fn mac_of(frame: &[u8]) -> &[u8] {
    frame.last_chunk::<MAC_BYTES>().map_or(&[], |mac| &mac[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        let (http, udp) = ("h:1".to_owned(), "h:2".to_owned());
        Registration { id: "w".into(), incarnation: 7, process: 1, http, udp, leaving: false }
    }

    #[test]
    fn a_control_message_is_read_with_the_key_and_only_as_its_own_kind() {
        let (keys, node) = (Keys::new(b"a secret"), registration());
        let frame = sign_control(&keys, &node).unwrap();
        assert_eq!(verify_control::<Registration>(&keys, &frame), Ok(node));
        assert_eq!(verify_control::<Ballot>(&keys, &frame), Err(Reject::Frame));
        assert!(verify_control::<Registration>(&Keys::new(b"another"), &frame).is_err());
        let mut changed = frame.clone();
        changed[10] ^= 1;
        assert_eq!(verify_control::<Registration>(&keys, &changed), Err(Reject::Mac));
        let mut ack = Vec::new();
        sign_ack(&keys, &Ack::default(), &mut ack);
        assert_eq!(verify_control::<Registration>(&keys, &ack), Err(Reject::Frame));
    }

    #[test]
    fn a_reply_is_only_that_to_its_question() {
        let keys = Keys::new(b"a secret");
        let poll = |nonce| sign_control(&keys, &Poll { node: "w".into(), epoch: 1, wait_ms: 0, nonce }).unwrap();
        let (question, later) = (poll(1), poll(2));
        let reply = sign_reply(&keys, FrameKind::Table, &question, b"7");
        let read = |kind, question: &[u8], frame: &[u8]| verify_reply::<u64>(&keys, kind, question, frame);
        assert_eq!(read(FrameKind::Table, &question, &reply), Ok(7));
        assert_eq!(read(FrameKind::Table, &later, &reply), Err(Reject::Repeated));
        assert_eq!(read(FrameKind::Registered, &question, &reply), Err(Reject::Frame));
        assert_eq!(read(FrameKind::Table, &question, &question), Err(Reject::Frame), "a worker's own frame");
        assert_eq!(read(FrameKind::Table, &question, b"7"), Err(Reject::Frame));
        let ack = Ack { sequence: 7, ..Ack::default() };
        let reply = sign_protobuf_reply(&keys, FrameKind::Orders, &question, &ack);
        let read = |kind, question: &[u8]| verify_protobuf_reply::<Ack>(&keys, kind, question, &reply);
        assert_eq!(read(FrameKind::Orders, &question), Some(ack));
        assert_eq!((read(FrameKind::Orders, &later), read(FrameKind::ReportAccepted, &question)), (None, None));
    }
}
