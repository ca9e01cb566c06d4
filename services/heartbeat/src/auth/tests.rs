use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const HEADER: Header = Header { kind: FrameKind::Batch, codec: CodecId::Json, ack_wanted: true };

fn signed(keys: &Keys) -> Vec<u8> {
    let mut out = b"before".to_vec();
    keys.sign(HEADER, &mut out, |out| {
        out.extend_from_slice(b"payload");
        Ok::<_, ()>(())
    })
    .unwrap();
    out.split_off(6)
}

#[test]
fn every_changed_bit_is_noticed() {
    let keys = Keys::new(b"secret");
    let frame = signed(&keys);
    assert_eq!(keys.verify(&frame), Ok((HEADER, &b"payload"[..])));
    for bit in 0..8 * frame.len() {
        let mut changed = frame.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let refused = keys.verify(&changed).unwrap_err();
        assert!(matches!(refused, Reject::Mac | Reject::Frame | Reject::Key), "{bit}");
        // Beyond the header, a change must only be noticed by the MAC.
        assert!(bit < 8 * HEADER_BYTES || refused == Reject::Mac, "{bit}");
    }
    for length in 0..frame.len() {
        assert!(keys.verify(&frame[..length]).is_err(), "{length}");
    }
}

#[test]
fn keys_change_without_a_gap() {
    let step = |signs: &[u8], accepts: &[u8]| Keys::new(signs).accepting(accepts);
    // Processes change one after the other, so that two steps meet.
    let steps = [step(b"old", b""), step(b"old", b"new"), step(b"new", b"old"), step(b"new", b"")];
    for pair in steps.windows(2) {
        let [before, after] = pair else { continue };
        assert!(before.verify(&signed(after)).is_ok() && after.verify(&signed(before)).is_ok());
    }
    let (old, new) = (Keys::new(b"old"), Keys::new(b"new"));
    assert_eq!(new.verify(&signed(&old)), Err(Reject::Key));
    assert!(!format!("{:?}", steps[1]).contains("old"), "a secret is printed");
}

#[test]
fn of_two_secrets_with_one_number_the_mac_decides() {
    let secret = |n: u32| n.to_le_bytes();
    let number = |n: u32| Derived::new(&secret(n)).number;
    let twin = (1..).find(|&n| number(n) == number(0)).unwrap();
    let (one, other) = (Keys::new(&secret(0)), Keys::new(&secret(twin)));
    assert_eq!(one.verify(&signed(&other)), Err(Reject::Mac));
    assert!(one.accepting(&secret(twin)).verify(&signed(&other)).is_ok());
}

#[test]
fn a_frame_of_one_kind_is_none_of_another() {
    let keys = Keys::new(b"secret");
    for kind in FrameKind::ALL {
        let header = Header { kind, codec: CodecId::Json, ack_wanted: false };
        let mut frame = Vec::new();
        keys.sign(header, &mut frame, |_| Ok::<_, ()>(())).unwrap();
        assert_eq!(keys.verify(&frame), Ok((header, &[][..])));
        for other in FrameKind::ALL.into_iter().filter(|other| *other != kind) {
            frame[1] = other as u8;
            assert_eq!(keys.verify(&frame), Err(Reject::Mac), "{kind:?} as {other:?}");
        }
    }
}

#[test]
fn a_failed_payload_leaves_nothing() {
    let mut out = b"before".to_vec();
    let failed = Keys::new(b"x").sign(HEADER, &mut out, |out| {
        out.extend_from_slice(b"half");
        Err("no")
    });
    assert_eq!((failed, out.as_slice()), (Err("no"), &b"before"[..]));
}

proptest! {
    /// Against an unbounded memory: nothing is accepted twice, nothing new within 64 of the newest is refused, and an earlier incarnation
    /// never returns.
    #[test]
    fn the_window_is_a_memory_of_64(beats in prop::collection::vec((1..4_u64, 1..200_u64), 1..300)) {
        let (mut window, mut accepted) = (ReplayWindow::default(), BTreeSet::new());
        for (incarnation, sequence) in beats {
            let newest = accepted.range((window.incarnation, 0)..).next_back().map_or(0, |&(_, sequence)| sequence);
            let expected = if incarnation < window.incarnation {
                Verdict::StaleIncarnation
            } else if incarnation > window.incarnation {
                Verdict::First
            } else if sequence > newest {
                Verdict::Newer
            } else if newest - sequence >= 64 {
                Verdict::TooOld
            } else if accepted.contains(&(incarnation, sequence)) {
                Verdict::Repeated
            } else {
                Verdict::Late
            };
            let verdict = window.check(incarnation, sequence);
            prop_assert_eq!(verdict, expected);
            if verdict.accepted() {
                prop_assert!(accepted.insert((incarnation, sequence)));
            }
        }
    }
}

#[test]
fn who_does_not_count_is_heard_each_time() {
    let mut window = ReplayWindow::opened(0, 0);
    assert_eq!((window.check(0, 0), window.check(0, 0)), (Verdict::Unnumbered, Verdict::Unnumbered));
    assert_eq!((window.check(0, 1), window.check(0, 1)), (Verdict::Newer, Verdict::Repeated));
}
