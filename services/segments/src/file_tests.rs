use contract::{Event, EventKind, UserId};
use model::{Fold, NeighbourModel};
use proptest::{prelude::*, sample::Index};

use super::*;

fn folded(events: &[(u8, u8, i64)]) -> Vec<PublishedSegment> {
    let mut fold = Fold::new(SegmentId::all());
    for (arrival, &(user, item, at_ms)) in (1..).zip(events) {
        let (user_id, item_id) = (UserId::new(&user.to_string()).unwrap(), ItemId::new(&item.to_string()).unwrap());
        fold.add(&Event { user_id, item_id, kind: EventKind::View, at_ms, weight: 1.0 }, arrival);
    }
    SegmentId::all().map(|segment| fold.publish(segment).unwrap()).collect()
}

fn events() -> impl Strategy<Value = Vec<(u8, u8, i64)>> {
    prop::collection::vec((0_u8..9, 0_u8..60, 0_i64..1_000_000_000_000), 0..80)
}

/// A segment with rows and neighbours, and its bytes.
fn example() -> (SegmentId, Vec<u8>) {
    let segments = folded(&(0..200).map(|n| (n % 3, n, 7)).collect::<Vec<_>>());
    let longest = segments.into_iter().max_by_key(|segment| segment.rows.len()).unwrap();
    (longest.segment, encode(&longest))
}

#[test]
fn the_layout_is_the_documented_one() {
    let [first, second] = ["1", "5"].map(|id| ItemId::new(id).unwrap());
    let segment = segment_of("1");
    let popularity = DecayedCount { period: -2, units: 3 };
    let rows = vec![PublishedRow { item: first, popularity, neighbours: vec![(second, 0.5)] }];
    let version = VersionVector::new([1; 16]);
    let bytes = encode(&PublishedSegment { segment, version, users: 4, events: 5, rows });
    let mut expected = vec![1, segment.number()];
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0].repeat(16));
    expected.extend([4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    expected.extend([1, b'1', 0xfe, 255, 255, 255, 255, 255, 255, 255, 3, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([1, 1, b'5', 0, 0, 0, 0x3f]);
    assert_eq!(bytes, expected);
}

#[test]
fn what_is_wrong_is_said() {
    let (segment, bytes) = example();
    let fails = |bytes: &[u8]| decode(bytes, segment).unwrap_err();
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        fails(&bytes)
    };
    assert_eq!(with(0, &[2]).to_string(), "the file has format 2, but this program reads format 1");
    let foreign = SegmentId::new((segment.number() + 1) % 16).unwrap();
    let expected = FileError::ForeignSegment { expected: foreign, found: segment.number() };
    assert_eq!(decode(&bytes, foreign), Err(expected));
    assert_eq!(with(146, &u32::MAX.to_le_bytes()), FileError::TooManyRows(u32::MAX));
    assert_eq!(fails(&[]), FileError::Truncated);
    assert_eq!(fails(&bytes[..bytes.len() - 1]), FileError::Truncated);
    assert_eq!(fails(&[bytes.as_slice(), b"more"].concat()), FileError::TrailingBytes(4));
    // The first row: its id, and its number of neighbours.
    let id_bytes = usize::from(bytes[150]);
    assert!(matches!(with(151, &[0xff]), FileError::IdText { row: 0 }));
    assert!(matches!(with(151, b"\n"), FileError::Id { row: 0, .. }));
    assert_eq!(with(150 + 1 + id_bytes + 16, &[101]), FileError::TooManyNeighbours { row: 0, found: 101 });
    let mut published = decode(&bytes, segment).unwrap();
    published.rows[0].item =
        ItemId::new((0..).map(|n| format!("{n}")).find(|id| segment_of(id) != segment).as_deref().unwrap()).unwrap();
    assert!(matches!(fails(&encode(&published)), FileError::ForeignItem { row: 0, .. }));
    let mut published = decode(&bytes, segment).unwrap();
    published.rows.swap(0, 1);
    assert_eq!(fails(&encode(&published)), FileError::RowOrder { row: 1 });
    for score in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
        let mut published = decode(&bytes, segment).unwrap();
        published.rows[0].neighbours[0].1 = score;
        assert_eq!(fails(&encode(&published)), FileError::Neighbours { row: 0 });
    }
    let mut published = decode(&bytes, segment).unwrap();
    published.rows[0].neighbours.swap(0, 1);
    assert_eq!(fails(&encode(&published)), FileError::Neighbours { row: 0 });
}

proptest! {
    #[test]
    fn decoding_inverts_encoding(events in events()) {
        for published in folded(&events) {
            prop_assert_eq!(decode(&encode(&published), published.segment), Ok(published));
        }
    }

    /// Bytes that are accepted are the only ones for their contents.
    #[test]
    fn changed_bytes_cause_no_panic_and_are_refused_or_mean_something_else(
        events in prop::collection::vec((0_u8..9, 0_u8..60, 0_i64..1_000_000_000_000), 1..80),
        number in 0_u8..16,
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        popularity in prop::option::of((any::<Index>(), any::<i64>(), any::<u64>())),
        end in prop::option::of(any::<Index>()),
        more in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut published = folded(&events).swap_remove(usize::from(number));
        let segment = published.segment;
        if let Some((row, period, units)) = popularity.filter(|_| !published.rows.is_empty()) {
            let row = row.index(published.rows.len());
            published.rows[row].popularity = DecayedCount { period, units };
        }
        let mut bytes = encode(&published);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes.extend(more);
        if let Ok(published) = decode(&bytes, segment) {
            prop_assert_eq!(encode(&published), bytes);
            // The reader gets past it too.
            let _ = NeighbourModel::from_segments(&[published]);
        }
    }
}
