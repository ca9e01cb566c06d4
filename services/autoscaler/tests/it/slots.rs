//! Slots of scale events: the cases of upstream's `TestStoreScaleEvents`, named as there. Ages in seconds, changes of replicas.

use autoscaler::{Direction, History, ScaleEvent};

const NOW_MS: i64 = 1_000_000;

struct Case {
    name: &'static str,
    before: &'static [(i64, i32)],
    longest_period_s: i32,
    changes_after: &'static [i32],
    /// In the last 60 s, before the new event.
    counted: i32,
}

const CASES: [Case; 6] = [
    Case {
        name: "empty entries with two-policy-behavior",
        before: &[],
        longest_period_s: 60,
        changes_after: &[5],
        counted: 0,
    },
    Case {
        name: "one outdated entry to be replaced with behavior",
        before: &[(61, 7)],
        longest_period_s: 60,
        changes_after: &[5],
        counted: 0,
    },
    Case {
        name: "one actual entry to be not touched with behavior",
        before: &[(58, 7)],
        longest_period_s: 60,
        changes_after: &[7, 5],
        counted: 7,
    },
    Case {
        name: "two entries, one of them to be replaced",
        before: &[(61, 7), (59, 6)],
        longest_period_s: 60,
        changes_after: &[5, 6],
        counted: 6,
    },
    Case {
        name: "replace one entry, use policies with different periods",
        before: &[(29, 8), (59, 6), (61, 7), (61, 9)],
        longest_period_s: 60,
        changes_after: &[8, 6, 7, 5],
        counted: 14,
    },
    Case {
        name: "two entries, both actual",
        before: &[(58, 7), (59, 6)],
        longest_period_s: 120,
        changes_after: &[7, 6, 5],
        counted: 13,
    },
];

#[test]
fn a_new_event_takes_the_last_slot_that_is_too_old() {
    for case in CASES {
        for direction in [Direction::Up, Direction::Down] {
            let event = |(age_s, change): &(i64, i32)| ScaleEvent { at_ms: NOW_MS - age_s * 1000, change: *change };
            let before: Vec<ScaleEvent> = case.before.iter().map(event).collect();
            let mut history = match direction {
                Direction::Up => History { scale_ups: before, ..History::default() },
                Direction::Down => History { scale_downs: before, ..History::default() },
            };
            let start = history.count_before(100, 60, NOW_MS);
            assert_eq!((start - 100).abs(), case.counted, "{}", case.name);
            history.scaled(direction, ScaleEvent { at_ms: NOW_MS, change: 5 }, case.longest_period_s);
            let stored = if direction == Direction::Up { &history.scale_ups } else { &history.scale_downs };
            let changes: Vec<i32> = stored.iter().map(|event| event.change).collect();
            assert_eq!(changes, case.changes_after, "{}", case.name);
        }
    }
}
