use super::*;

fn table(nodes: &[&str]) -> Table {
    let membership = Membership { incarnation: 1, process: 0, online: true };
    Table { nodes: nodes.iter().map(|id| (NodeId::from(*id), membership)).collect(), ..Table::default() }
}

fn stamped(table: &Table, in_warning: &BTreeSet<NodeId>) -> Table {
    stamp(table, table.nodes.clone(), plan(table, in_warning))
}

fn step(table: &Table) -> Table {
    stamped(table, &BTreeSet::new())
}

fn with(table: &Table, node: &str, online: bool) -> Table {
    let mut table = table.clone();
    table.nodes.insert(node.into(), Membership { incarnation: 1, process: 0, online });
    table
}

fn loads(table: &Table) -> Vec<usize> {
    table.nodes.iter().filter(|(_, s)| s.online).map(|(id, _)| primaries(&table.partitions, id)).collect()
}

#[test]
fn three_workers_share_evenly_and_each_partition_has_two_replicas() {
    let table = step(&table(&["a", "b", "c"]));
    assert_eq!(loads(&table), [6, 5, 5]);
    assert!(table.partitions.iter().all(|a| a.replicas.len() == 2 && a.epoch == 1));
    assert_eq!(plan(&table, &BTreeSet::new()), table.partitions, "a plan that holds is kept");
}

#[test]
fn a_dead_primarys_places_go_to_replicas_in_a_new_epoch_and_nothing_else_moves() {
    let before = step(&table(&["a", "b", "c", "d"]));
    let after = step(&with(&before, "b", false));
    assert_eq!(check_step(&before, &after), Ok(()));
    for (old, new) in before.partitions.iter().zip(&after.partitions) {
        let primary = new.primary.as_ref().unwrap();
        if old.primary.as_deref() == Some("b") {
            assert!(old.replicas.contains(primary) && new.epoch == 2, "{old:?} → {new:?}");
        } else {
            assert_eq!((&old.primary, old.epoch), (&new.primary, new.epoch));
        }
        assert!(!new.replicas.contains(&"b".into()) && new.replicas.len() == 2);
    }
    let loads = loads(&after);
    assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
}

#[test]
fn who_comes_back_gets_a_fair_share_and_former_primaries_stay_replicas() {
    let before = step(&table(&["a", "b"]));
    let after = step(&with(&before, "c", true));
    assert_eq!(loads(&after), [6, 5, 5]);
    let moved = before.partitions.iter().zip(&after.partitions).filter(|(old, new)| old.primary != new.primary);
    for (old, new) in moved {
        assert_eq!((new.primary.as_deref(), new.replicas.first()), (Some("c"), old.primary.as_ref()));
    }
}

#[test]
fn a_wary_node_keeps_what_it_has_and_gets_nothing_new() {
    let before = step(&table(&["a", "b", "c"]));
    let (dead, in_warning) = (with(&before, "a", false), BTreeSet::from([NodeId::from("b")]));
    let after = stamped(&dead, &in_warning);
    assert_eq!(loads(&after), [5, 11]);
    let alone = with(&dead, "c", false);
    assert_eq!(loads(&stamped(&alone, &in_warning)), [16], "better wary than nobody");
}

#[test]
fn with_nobody_online_nothing_changes() {
    let before = step(&table(&["a"]));
    let gone = with(&before, "a", false);
    assert_eq!(plan(&gone, &BTreeSet::new()), gone.partitions);
    assert_eq!(gone.partitions[0].primary.as_deref(), Some("a"));
}

#[test]
fn any_sequence_of_comings_and_goings_keeps_load_even_and_epochs_honest() {
    let mut random = 7_u64;
    let mut table = table(&[]);
    for _ in 0..500 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (node, online) = (format!("n{}", (random >> 40) % 7), random >> 63 == 0);
        let changed = with(&table, &node, online);
        let next = step(&changed);
        assert_eq!(check_step(&table, &next), Ok(()));
        let loads = loads(&next);
        if let (Some(most), Some(fewest)) = (loads.iter().max(), loads.iter().min()) {
            assert!(most - fewest <= 1, "{loads:?}");
            let replicas = (loads.len() - 1).min(REPLICAS);
            assert!(next.partitions.iter().all(|a| a.replicas.len() == replicas));
        }
        table = next;
    }
}
