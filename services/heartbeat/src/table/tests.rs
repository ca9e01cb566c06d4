use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::auth::ReplayWindow;

fn observation(node_id: &str, at: Nanos, sequence: u64) -> Observation<'_> {
    Observation { node_id, at, incarnation: 1, sequence, load: 0.5 }
}

#[test]
fn beats_are_recorded_and_repetitions_are_not() {
    let table = Table::new(100);
    assert_eq!(table.record(&observation("a", 10, 1)), Recorded::Known(Verdict::First));
    assert_eq!(table.record(&observation("a", 20, 2)), Recorded::Known(Verdict::Newer));
    assert_eq!(table.record(&observation("a", 30, 2)), Recorded::Known(Verdict::Repeated));
    assert_eq!(
        table.record(&Observation { incarnation: 0, ..observation("a", 40, 9) }),
        Recorded::Known(Verdict::StaleIncarnation)
    );
    let seen = NodeEntry { last_seen: 20, incarnation: 1, sequence: 2, load: 0.5, beats: 2 };
    assert_eq!((table.get("a"), table.get("b"), table.len()), (Some(seen), None, 1));
}

#[test]
fn a_full_table_knows_its_own_and_takes_others_after_forgetting() {
    let table = Table::new(1_000);
    let ids: Vec<String> = (0..3_000).map(|n| format!("node-{n}")).collect();
    let kept: Vec<&String> = ids.iter().filter(|id| table.record(&observation(id, 5, 1)).accepted()).collect();
    assert!((1_000..1_500).contains(&kept.len()) && kept.len() == table.len(), "{}", kept.len());
    assert!(kept.iter().all(|id| table.record(&observation(id, 6, 2)).accepted()));
    let refused = ids.iter().find(|id| table.get(id).is_none()).unwrap();
    assert_eq!(table.record(&observation(refused, 7, 1)), Recorded::Full);
    let bytes = table.bytes();
    table.record(&observation(kept[0], 100, 3));
    assert_eq!((table.forget_before(100), table.len()), (kept.len() - 1, 1));
    assert_eq!(table.bytes(), bytes / 4);
    assert_eq!(table.get(kept[0]).map(|seen| (seen.last_seen, seen.sequence)), Some((100, 3)));
    assert!(table.record(&observation(refused, 101, 1)).accepted());
}

#[test]
fn every_node_of_a_group_is_recorded() {
    let table = Table::new(10_000);
    let ids: Vec<String> = (0..5_000).map(|n| format!("{n}-{}", "x".repeat(n % 60))).collect();
    let observations: Vec<_> = ids.iter().map(|id| observation(id, 9, 1)).collect();
    let mut outcomes = Vec::new();
    table.record_all(&observations, &mut outcomes);
    assert!(outcomes.iter().all(|outcome| outcome.accepted()) && outcomes.len() == ids.len());
    assert_eq!(table.len(), ids.len());
    assert!(ids.iter().all(|id| table.get(id).is_some_and(|seen| seen.last_seen == 9)));
}

proptest! {
    /// Compared with a map and a window per node: in groups or one by one, in any order, with removals.
    #[test]
    fn the_table_is_a_map_of_windows(rounds in prop::collection::vec(prop::collection::vec((0..40_u8, 0..3_u64, 0..100_u64), 1..400), 1..6)) {
        let (table, mut outcomes) = (Table::new(1_000), Vec::new());
        let mut registry: BTreeMap<String, (Nanos, ReplayWindow)> = BTreeMap::new();
        for (round, beats) in rounds.iter().enumerate() {
            let now = 1 + round as Nanos;
            let ids: Vec<String> = beats.iter().map(|(node, ..)| format!("n{node}")).collect();
            let observations: Vec<_> = std::iter::zip(&ids, beats)
                .map(|(node_id, &(_, incarnation, sequence))| Observation { node_id, at: now, incarnation, sequence, load: 0.0 })
                .collect();
            if round % 2 == 0 {
                table.record_all(&observations, &mut outcomes);
            } else {
                outcomes = observations.iter().map(|observation| table.record(observation)).collect();
            }
            for (observation, outcome) in std::iter::zip(&observations, &outcomes) {
                let (incarnation, sequence) = (observation.incarnation, observation.sequence);
                let expected = match registry.get_mut(observation.node_id) {
                    None => {
                        registry.insert(observation.node_id.to_owned(), (now, ReplayWindow::opened(incarnation, sequence)));
                        Verdict::First
                    }
                    Some((seen, window)) => {
                        let verdict = window.check(incarnation, sequence);
                        if verdict.accepted() { *seen = now }
                        verdict
                    }
                };
                prop_assert_eq!(*outcome, Recorded::Known(expected));
            }
            let before = registry.len();
            registry.retain(|_, (seen, _)| *seen >= now.saturating_sub(1));
            prop_assert_eq!(table.forget_before(now.saturating_sub(1)), before - registry.len());
        }
        prop_assert_eq!(table.len(), registry.len());
        for (id, (last_seen, window)) in registry {
            let seen = table.get(&id).unwrap();
            prop_assert_eq!((seen.last_seen, seen.incarnation, seen.sequence), (last_seen, window.incarnation, window.sequence));
        }
    }
}
