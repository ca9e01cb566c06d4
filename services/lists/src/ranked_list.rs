//! A ranked list, encoded as in Redis and in the response: a cache hit copies bytes and serialises nothing.
//!
//! Layout, little endian: format (1 byte) · flags (1) · items (2) · model version (8) · fresh until, unix ms (8) ·
//! arrival (8) · end offset of each item's JSON (4 each) · the items as JSON objects, joined by commas.

use bytes::Bytes;
use contract::ItemId;

/// Changes with the layout: a list in another format counts as a miss.
pub(crate) const FORMAT: u8 = 2;
const COMPLETE: u8 = 1;
/// Place of the arrival number.
pub(crate) const ARRIVAL_AT: usize = 20;
pub(crate) const HEADER_BYTES: usize = 28;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankedList(Bytes);

impl RankedList {
    /// `complete`: no request gets more items than these. `arrival`: see the method. Keeps at most 65,535 items.
    pub fn encode<'a>(
        items: impl ExactSizeIterator<Item = (&'a ItemId, f32)>,
        complete: bool,
        model_version: u64,
        fresh_until_ms: u64,
        arrival: u64,
    ) -> Self {
        let count = u16::try_from(items.len()).unwrap_or(u16::MAX);
        let items_at = HEADER_BYTES + 4 * usize::from(count);
        let mut bytes = Vec::with_capacity(items_at + 40 * usize::from(count));
        bytes.extend([FORMAT, if complete { COMPLETE } else { 0 }]);
        bytes.extend(count.to_le_bytes());
        bytes.extend(model_version.to_le_bytes());
        bytes.extend(fresh_until_ms.to_le_bytes());
        bytes.extend(arrival.to_le_bytes());
        bytes.resize(items_at, 0);
        for (n, (item, score)) in items.take(usize::from(count)).enumerate() {
            if n > 0 {
                bytes.push(b',');
            }
            bytes.extend(b"{\"item_id\":");
            push_json_string(&mut bytes, item.as_str());
            bytes.extend(b",\"score\":");
            push_score(&mut bytes, score);
            bytes.push(b'}');
            let end = (bytes.len() - items_at) as u32;
            bytes[HEADER_BYTES + 4 * n..HEADER_BYTES + 4 * n + 4].copy_from_slice(&end.to_le_bytes());
        }
        Self(bytes.into())
    }

    /// `None`: the bytes are damaged or in another version's format, which counts as a miss.
    pub fn decode(bytes: Bytes) -> Option<Self> {
        let list = Self(bytes);
        let header = list.0.get(..HEADER_BYTES)?;
        let items_at = HEADER_BYTES + 4 * list.len();
        if header[0] != FORMAT || list.0.len() < items_at {
            return None;
        }
        let text = list.0.len() - items_at;
        let is_valid = (1..=list.len()).map(|n| list.end(n)).is_sorted() && list.end(list.len()) == text;
        is_valid.then_some(list)
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.0[2], self.0[3]]))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the list has all items that a request for `limit` items gets.
    pub fn answers(&self, limit: usize) -> bool {
        self.len() >= limit || self.0[1] & COMPLETE != 0
    }

    pub fn model_version(&self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.0[4 + i]))
    }

    pub fn fresh_until_ms(&self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.0[12 + i]))
    }

    /// Arrival number of the newest event in the features that the list was ranked from; 0: it was ranked from the raw log.
    pub fn arrival(&self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.0[ARRIVAL_AT + i]))
    }

    /// The first `limit` items as the elements of a JSON array, without its brackets.
    pub fn items_json(&self, limit: usize) -> &[u8] {
        let items_at = HEADER_BYTES + 4 * self.len();
        &self.0[items_at..items_at + self.end(limit.min(self.len()))]
    }

    fn end(&self, n: usize) -> usize {
        if n == 0 {
            return 0;
        }
        let at = HEADER_BYTES + 4 * (n - 1);
        u32::from_le_bytes(std::array::from_fn(|i| self.0[at + i])) as usize
    }
}

/// At most five decimals, without trailing zeros: enough to tell neighbours apart, and 20 items stay below 1 kB. Not `f32`'s `Display`:
/// its exact output costs more than the ranking.
fn push_score(out: &mut Vec<u8>, score: f32) {
    const SCALE: u64 = 100_000;
    let score = if score.is_finite() { f64::from(score) } else { 0.0 };
    let scaled = (score.abs() * SCALE as f64).round() as u64;
    if score < 0.0 && scaled > 0 {
        out.push(b'-');
    }
    // Filled from the last digit. A u64 has at most 20 digits.
    let mut digits = [b'0'; 21];
    let (mut at, mut rest) = (digits.len(), scaled / SCALE);
    while rest > 0 || at == digits.len() {
        at -= 1;
        digits[at] += (rest % 10) as u8;
        rest /= 10;
    }
    out.extend(&digits[at..]);
    let mut fraction = scaled % SCALE;
    if fraction > 0 {
        out.push(b'.');
        let mut unit = SCALE / 10;
        while fraction > 0 {
            out.push(b'0' + (fraction / unit) as u8);
            fraction %= unit;
            unit /= 10;
        }
    }
}

pub fn push_json_string(out: &mut Vec<u8>, text: &str) {
    let plain = text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
    if plain {
        out.push(b'"');
        out.extend(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing a string to a vector cannot fail.
        drop(serde_json::to_writer(out, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::http::ScoredItem;

    #[test]
    fn scores_are_written_as_the_standard_library_would() {
        let text = |score: f32| {
            let mut out = Vec::new();
            push_score(&mut out, score);
            String::from_utf8(out).unwrap()
        };
        for (score, expected) in [
            (0.0, "0"),
            (0.52, "0.52"),
            (1.0, "1"),
            (10.00001, "10.00001"),
            (0.000_01, "0.00001"),
            (0.000_001, "0"),
            (-0.000_001, "0"),
            (-2.5, "-2.5"),
            (123_456.0, "123456"),
            (f32::NAN, "0"),
            (f32::INFINITY, "0"),
        ] {
            assert_eq!(text(score), expected);
        }
        for n in 0..10_000_u16 {
            let score = f32::from(n) * 0.013_7;
            let (ours, theirs): (f64, f64) = (text(score).parse().unwrap(), format!("{score:.5}").parse().unwrap());
            assert!((ours - theirs).abs() < 1.1e-5, "{score}: {ours} or {theirs}");
        }
    }

    fn list(n: usize) -> RankedList {
        let ids: Vec<ItemId> = (0..n).map(|i| ItemId::new(&format!("i\"{i}\\ü")).unwrap()).collect();
        let scored: Vec<_> = ids.iter().enumerate().map(|(i, id)| (id, 1.0 / (i as f32 + 1.0))).collect();
        RankedList::encode(scored.into_iter(), false, 7, 99, u64::MAX - 1)
    }

    #[test]
    fn any_prefix_is_json() {
        let list = list(30);
        for limit in [0, 1, 2, 29, 30, 31, 100] {
            let text = [b"[", list.items_json(limit), b"]"].concat();
            let items: Vec<ScoredItem> = serde_json::from_slice(&text).unwrap();
            assert_eq!(items.len(), limit.min(30));
            if let Some(first) = items.first() {
                assert_eq!((first.item_id.as_str(), first.score), ("i\"0\\ü", 1.0));
            }
        }
    }

    #[test]
    fn survives_the_round_trip_and_nothing_else_does() {
        let list = list(30);
        let back = RankedList::decode(list.bytes().clone()).unwrap();
        assert_eq!((back.len(), back.model_version(), back.fresh_until_ms()), (30, 7, 99));
        assert_eq!(back.arrival(), u64::MAX - 1);
        assert!(back.answers(30) && !back.answers(31));
        for cut in 0..list.bytes().len() {
            assert_eq!(RankedList::decode(list.bytes().slice(..cut)), None, "cut at {cut}");
        }
        let mut wrong = list.bytes().to_vec();
        wrong[HEADER_BYTES + 1] = 0xff;
        assert_eq!(RankedList::decode(wrong.into()), None);
        let mut format_1 = list.bytes().to_vec();
        format_1[0] = 1;
        assert_eq!(RankedList::decode(format_1.into()), None);
        assert_eq!(RankedList::decode(Bytes::from_static(b"{\"items\":[]}............................")), None);
    }

    #[test]
    fn an_empty_list_is_a_list() {
        let empty = RankedList::encode(std::iter::empty(), true, 1, 0, 0);
        let back = RankedList::decode(empty.bytes().clone()).unwrap();
        assert!(back.answers(100));
        assert_eq!(back.items_json(100), b"");
    }
}
