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
    let keys = Keys::new(3, b"secret");
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
    let (old, new) = (Keys::new(1, b"old"), Keys::new(2, b"new"));
    let both = new.clone().accepting(1, b"old");
    assert!(both.verify(&signed(&old)).is_ok() && both.verify(&signed(&new)).is_ok());
    assert_eq!(new.verify(&signed(&old)), Err(Reject::Key));
    assert_eq!(new.verify(&signed(&Keys::new(2, b"other"))), Err(Reject::Mac));
    assert!(!format!("{both:?}").contains("old"), "a secret is printed");
}

#[test]
fn a_failed_payload_leaves_nothing() {
    let mut out = b"before".to_vec();
    let failed = Keys::new(1, b"x").sign(HEADER, &mut out, |out| {
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
