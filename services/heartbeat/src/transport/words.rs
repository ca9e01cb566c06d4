//! What monitors and workers say to each other besides beats, ballots and registrations: JSON under the same MAC. Whoever recorded one
//! and sends it again changes nothing: ballots are numbered, and a registration does not take its own place.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    auth::{Header, Keys, Kind, Reject},
    codec::CodecId,
};

/// # Errors
/// Those of its serialisation.
pub fn seal(keys: &Keys, word: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let header = Header { kind: Kind::Word, codec: CodecId::Json, ack_wanted: false };
    let mut frame = Vec::new();
    keys.seal(header, &mut frame, |out| serde_json::to_writer(out, word))?;
    Ok(frame)
}

/// # Errors
/// It is not authentic, no word, or not of this kind.
pub fn open<T: DeserializeOwned>(keys: &Keys, frame: &[u8]) -> Result<T, Reject> {
    let (header, payload) = keys.open(frame)?;
    if (header.kind, header.codec) != (Kind::Word, CodecId::Json) {
        return Err(Reject::Frame);
    }
    serde_json::from_slice(payload).map_err(|_| Reject::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{registry::Registration, transport::seal_ack, vote::Ballot};

    #[test]
    fn a_word_is_read_by_who_has_the_key_and_only_as_what_it_is() {
        let keys = Keys::new(1, b"a secret");
        let (http, udp) = ("h:1".to_owned(), "h:2".to_owned());
        let node = Registration { id: "w".into(), incarnation: 7, http, udp, leaving: false };
        let frame = seal(&keys, &node).unwrap();
        assert_eq!(open::<Registration>(&keys, &frame), Ok(node));
        assert_eq!(open::<Ballot>(&keys, &frame), Err(Reject::Decode));
        assert_eq!(open::<Registration>(&Keys::new(1, b"another"), &frame), Err(Reject::Mac));
        let mut changed = frame.clone();
        changed[10] ^= 1;
        assert_eq!(open::<Registration>(&keys, &changed), Err(Reject::Mac));
        let mut ack = Vec::new();
        seal_ack(&keys, &crate::message::Ack::default(), &mut ack);
        assert_eq!(open::<Registration>(&keys, &ack), Err(Reject::Frame));
    }
}
