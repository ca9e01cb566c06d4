use contract::{EventKind, SegmentId};
use proptest::prelude::*;

use super::*;
use crate::{
    dataset::DatasetBuilder,
    fold::Fold,
    generate::{GenerateParams, generate},
};

/// As a reader of published segments has it.
fn from_segments(data: &Dataset) -> NeighbourModel {
    let all: Vec<SegmentId> = SegmentId::all().collect();
    let fold = Fold::of(data, &all, NonZero::<usize>::MIN);
    let published: Vec<_> = all.into_iter().filter_map(|segment| fold.publish(segment)).collect();
    NeighbourModel::from_segments(&published)
}

proptest! {
    #[test]
    fn the_model_is_that_of_all_segments_with_any_passes_and_threads(
        // Few times: many events have the same. Some events arrive late.
        events in prop::collection::vec((0_u8..12, 0_u8..30, 0_i64..40, 0.1_f32..8.0), 0..400),
        pairs_at_a_time in 1_usize..2_000,
        threads in 1_usize..9,
    ) {
        let mut b = DatasetBuilder::default();
        for (user, item, at, weight) in events {
            b.push(&user.to_string(), &item.to_string(), EventKind::View, at * 3 * 86_400_000, weight).unwrap();
        }
        let data = b.finish().0;
        let threads = NonZero::new(threads).unwrap();
        prop_assert_eq!(NeighbourModel::build_with(&data, threads, pairs_at_a_time), from_segments(&data));
    }
}

#[test]
fn full_windows_and_more_neighbours_than_are_kept() {
    let params =
        GenerateParams { users: 300, items: 400, clusters: 2, mean_events_per_user: 50.0, ..GenerateParams::default() };
    let mut data = generate(&params).unwrap();
    let expected = from_segments(&data);
    assert!(expected.neighbours(0).len() == crate::NEIGHBOURS_KEPT);
    let few = NonZero::new(3).unwrap();
    assert!(NeighbourModel::build_with(&data, few, 10_000) == expected);
    assert!(NeighbourModel::build(&data, NonZero::<usize>::MIN) == expected);
    // Users are in the data, but their events are not.
    let newcomers = data.users.len() as u64 / 2;
    data.events.retain(|e| u64::from(e.user) >= newcomers);
    assert!(NeighbourModel::build(&data, few) == from_segments(&data));
}

#[test]
fn passes_are_bounded_and_have_each_item_once() {
    let counts: Vec<ItemCounts> =
        (0..1_000).map(|item| ItemCounts { pairs: item % 7, ..ItemCounts::default() }).collect();
    let items: Vec<u32> = (0..1_000).collect();
    for (pairs_at_a_time, threads) in [(1, 1), (1, 4), (1 << 21, 4)] {
        let passes = passes(&counts, &items, pairs_at_a_time, threads);
        // Any two neighbouring passes have more pairs than fit into one.
        assert!(passes.len() <= 2 * MAX_PASSES * threads + 1, "{} passes", passes.len());
        assert_eq!(passes.concat(), items);
    }
    assert_eq!(passes(&counts, &items, 1 << 21, 4).len(), 1);
    let many = [ItemCounts { pairs: 100, ..ItemCounts::default() }, ItemCounts::default()];
    assert_eq!(passes(&many, &[0, 1], 10, 1), [&[0][..], &[1]]);
    assert!(passes(&counts, &[], 10, 1).is_empty());
}
