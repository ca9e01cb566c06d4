//! Whole frames: a heartbeat, an acknowledgement or a control message with its MAC.
//!
//! Control messages are what monitors and workers exchange besides heartbeats: ballots and registrations, as JSON. A replayed control
//! message changes nothing: ballots are numbered, and a registration does not replace itself.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    auth::{FrameKind, Header, Keys, Reject},
    codec::{Codec, CodecId, EncodeError},
    message::{Ack, Beat},
};

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

/// Appends the frame of an acknowledgement to `out`. Its codec is Protobuf, independently of the acknowledged frame's codec.
pub fn sign_ack(keys: &Keys, ack: &Ack, out: &mut Vec<u8>) {
    let header = Header { kind: FrameKind::Ack, codec: CodecId::Protobuf, ack_wanted: false };
    let start = keys.begin(header, out);
    prost::Message::encode_raw(ack, out);
    keys.finish(start, out);
}

/// The acknowledgement in a frame; `None`: the frame is not an authentic acknowledgement.
pub fn verify_ack(keys: &Keys, frame: &[u8]) -> Option<Ack> {
    let (header, payload) = keys.verify(frame).ok()?;
    if header.kind == FrameKind::Ack { <Ack as prost::Message>::decode(payload).ok() } else { None }
}

/// The frame of a control message.
///
/// # Errors
/// The message cannot be serialised.
pub fn sign_control(keys: &Keys, message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let header = Header { kind: FrameKind::Control, codec: CodecId::Json, ack_wanted: false };
    let mut frame = Vec::new();
    keys.sign(header, &mut frame, |out| serde_json::to_writer(out, message))?;
    Ok(frame)
}

/// The control message in a frame.
///
/// # Errors
/// The frame is not authentic, not a control message, or a message of another type.
pub fn verify_control<T: DeserializeOwned>(keys: &Keys, frame: &[u8]) -> Result<T, Reject> {
    let (header, payload) = keys.verify(frame)?;
    if (header.kind, header.codec) != (FrameKind::Control, CodecId::Json) {
        return Err(Reject::Frame);
    }
    serde_json::from_slice(payload).map_err(|_| Reject::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{registry::Registration, vote::Ballot};

    #[test]
    fn a_control_message_is_read_with_the_key_and_only_as_its_own_type() {
        let keys = Keys::new(1, b"a secret");
        let (http, udp) = ("h:1".to_owned(), "h:2".to_owned());
        let node = Registration { id: "w".into(), incarnation: 7, process: 1, http, udp, leaving: false };
        let frame = sign_control(&keys, &node).unwrap();
        assert_eq!(verify_control::<Registration>(&keys, &frame), Ok(node));
        assert_eq!(verify_control::<Ballot>(&keys, &frame), Err(Reject::Decode));
        assert_eq!(verify_control::<Registration>(&Keys::new(1, b"another"), &frame), Err(Reject::Mac));
        let mut changed = frame.clone();
        changed[10] ^= 1;
        assert_eq!(verify_control::<Registration>(&keys, &changed), Err(Reject::Mac));
        let mut ack = Vec::new();
        sign_ack(&keys, &Ack::default(), &mut ack);
        assert_eq!(verify_control::<Registration>(&keys, &ack), Err(Reject::Frame));
    }
}
