//! The payload of a message of the topic `behaviour`: one event.
//!
//! ```text
//! version 1 (u8) | kind (u8) | at_ms (i64) | weight (f32) | length and bytes of the user id | length and bytes of the item id
//! ```
//! Numbers are little-endian, lengths have one byte.

use crate::{
    Event, EventKind, Id, IdError,
    event::{LATEST_MS, WEIGHTS},
    id::MAX_ID_BYTES,
};

/// Version, kind, time, weight, and two ids with their lengths.
const FIXED_BYTES: usize = 1 + 1 + 8 + 4 + 1 + 1;
/// The longest payload.
pub const MAX_BYTES: usize = FIXED_BYTES + 2 * MAX_ID_BYTES;
const VERSION: u8 = 1;

/// Why a payload is no event. None of them contains bytes of the payload, which may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    #[error("it has version {0}; this process reads version {VERSION}")]
    Version(u8),
    #[error("it ends too early")]
    Truncated,
    #[error("{0} bytes follow the event")]
    Trailing(usize),
    #[error("it has the unknown kind {0}")]
    Kind(u8),
    #[error("its time is negative or after the year 9999")]
    Time,
    #[error("its weight is not from {} to {}", WEIGHTS.start(), WEIGHTS.end())]
    Weight,
    #[error("its user id is not UTF-8")]
    UserIdText,
    #[error("its user id {0}")]
    UserId(IdError),
    #[error("its item id is not UTF-8")]
    ItemIdText,
    #[error("its item id {0}")]
    ItemId(IdError),
}

/// At most [`MAX_BYTES`].
pub fn encode(event: &Event) -> Vec<u8> {
    let (user, item) = (event.user_id.as_str(), event.item_id.as_str());
    let mut payload = Vec::with_capacity(FIXED_BYTES + user.len() + item.len());
    payload.extend([VERSION, event.kind.code()]);
    payload.extend(event.at_ms.to_le_bytes());
    payload.extend(event.weight.to_le_bytes());
    for id in [user, item] {
        // An id has at most 64 bytes.
        payload.push(id.len() as u8);
        payload.extend(id.as_bytes());
    }
    payload
}

/// Accepts nothing that `POST /events` refuses, except for a time that is ahead of the clock.
///
/// # Errors
/// What is wrong first. The payload will never be an event: a further attempt is useless.
pub fn decode(payload: &[u8]) -> Result<Event, BadMessage> {
    let mut rest = payload;
    let [version] = take(&mut rest)?;
    if version != VERSION {
        return Err(BadMessage::Version(version));
    }
    let [kind] = take(&mut rest)?;
    let kind = EventKind::from_code(kind).ok_or(BadMessage::Kind(kind))?;
    let at_ms = i64::from_le_bytes(take(&mut rest)?);
    if !(0..=LATEST_MS).contains(&at_ms) {
        return Err(BadMessage::Time);
    }
    let weight = f32::from_le_bytes(take(&mut rest)?);
    // The bounds were rounded to f32 like the weight. NaN is in no range.
    if !(*WEIGHTS.start() as f32..=*WEIGHTS.end() as f32).contains(&weight) {
        return Err(BadMessage::Weight);
    }
    let user_id = take_id(&mut rest, BadMessage::UserIdText, BadMessage::UserId)?;
    let item_id = take_id(&mut rest, BadMessage::ItemIdText, BadMessage::ItemId)?;
    match rest.len() {
        0 => Ok(Event { user_id, item_id, kind, at_ms, weight }),
        more => Err(BadMessage::Trailing(more)),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadMessage> {
    let (taken, after) = rest.split_first_chunk().ok_or(BadMessage::Truncated)?;
    *rest = after;
    Ok(*taken)
}

fn take_id<K>(
    rest: &mut &[u8],
    not_text: BadMessage,
    bad: impl Fn(IdError) -> BadMessage,
) -> Result<Id<K>, BadMessage> {
    let [length] = take(rest)?;
    let (bytes, after) = rest.split_at_checked(length.into()).ok_or(BadMessage::Truncated)?;
    *rest = after;
    Id::new(std::str::from_utf8(bytes).map_err(|_| not_text)?).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(user: &str, item: &str, at_ms: i64, weight: f32) -> Event {
        let (user_id, item_id) = (user.parse().unwrap(), item.parse().unwrap());
        Event { user_id, item_id, kind: EventKind::Rating, at_ms, weight }
    }

    #[test]
    fn the_bytes_never_change() {
        let payload = encode(&event("u", "käse", 0x0102_0304, 1.5));
        assert_eq!(payload, b"\x01\x03\x04\x03\x02\x01\0\0\0\0\0\0\xc0\x3f\x01u\x05k\xc3\xa4se");
        assert_eq!(decode(&payload), Ok(event("u", "käse", 0x0102_0304, 1.5)));
    }

    #[test]
    fn the_extremes_are_accepted() {
        let id = "x".repeat(64);
        for weight in [1e-6_f64 as f32, 1e6] {
            let longest = event(&id, &id, LATEST_MS, weight);
            let payload = encode(&longest);
            assert_eq!((payload.len(), decode(&payload)), (MAX_BYTES, Ok(longest)));
        }
    }

    #[test]
    fn each_fault_has_its_error() {
        let good = encode(&event("user", "item", 1, 1.0));
        let with = |at: usize, bytes: &[u8]| {
            let mut payload = good.clone();
            payload[at..at + bytes.len()].copy_from_slice(bytes);
            decode(&payload).unwrap_err()
        };
        assert_eq!(with(0, &[2]), BadMessage::Version(2));
        assert_eq!(with(1, &[4]), BadMessage::Kind(4));
        assert_eq!(with(2, &(-1_i64).to_le_bytes()), BadMessage::Time);
        assert_eq!(with(2, &i64::MAX.to_le_bytes()), BadMessage::Time);
        for weight in [0.0, -1.0, f32::NAN, f32::INFINITY, 9e-7, 1.1e6] {
            assert_eq!(with(10, &weight.to_le_bytes()), BadMessage::Weight, "{weight}");
        }
        assert_eq!(with(14, &[0]), BadMessage::UserId(IdError::Empty));
        assert_eq!(with(14, &[200]), BadMessage::Truncated);
        assert_eq!(with(15, b"\n"), BadMessage::UserId(IdError::ControlCharacter));
        assert_eq!(with(15, &[0xff]), BadMessage::UserIdText);
        assert_eq!(with(20, &[0xff]), BadMessage::ItemIdText);
        assert_eq!(with(19, &[3]), BadMessage::Trailing(1));
        assert_eq!(decode(&[]), Err(BadMessage::Truncated));
        let mut long = good[..14].to_vec();
        long.extend([&[65][..], &[b'x'; 65], &[1, b'i']].concat());
        assert_eq!(decode(&long), Err(BadMessage::UserId(IdError::TooLong(65))));
        for end in 0..good.len() {
            assert_eq!(decode(&good[..end]), Err(BadMessage::Truncated), "the first {end} bytes");
        }
    }

    /// SplitMix64: the same bytes in each run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        fn below(&mut self, limit: usize) -> usize {
            (self.next() % limit as u64) as usize
        }
    }

    /// What is accepted is one event with one encoding: decoding and encoding gives the same bytes.
    fn accepts_only_its_own_encoding(payload: &[u8]) {
        if let Ok(event) = decode(payload) {
            assert_eq!(encode(&event), payload, "{event:?}");
        }
    }

    #[test]
    fn random_bytes_and_mutated_messages_never_panic() {
        let mut random = Random(17);
        let alphabet: Vec<char> = "aZ9 -äß🧀".chars().collect();
        for _ in 0..50_000 {
            let noise: Vec<u8> = (0..random.below(MAX_BYTES + 20)).map(|_| random.next() as u8).collect();
            accepts_only_its_own_encoding(&noise);
            // The rest behind a valid beginning.
            accepts_only_its_own_encoding(&[&[VERSION, random.below(5) as u8], noise.as_slice()].concat());

            let mut id = || (0..=random.below(15)).map(|_| alphabet[random.below(alphabet.len())]).collect::<String>();
            let (user, item) = (id(), id());
            let at_ms = (random.next() % LATEST_MS as u64) as i64;
            let valid = event(&user, &item, at_ms, (random.below(1_000_000) + 1) as f32 / 7.0);
            let mut payload = encode(&valid);
            assert_eq!(decode(&payload), Ok(valid));
            for _ in 0..=random.below(3) {
                let at = random.below(payload.len());
                match random.below(4) {
                    0 => payload[at] = random.next() as u8,
                    1 => payload[at] ^= 1 << random.below(8),
                    2 => payload.insert(at, random.next() as u8),
                    _ => payload.truncate(at.max(1)),
                }
                accepts_only_its_own_encoding(&payload);
            }
        }
    }
}
