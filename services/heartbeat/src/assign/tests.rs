use super::*;

fn table(nodes: &[&str]) -> Table {
    let membership = Membership { incarnation: 1, process: 0, online: true };
    Table { nodes: nodes.iter().map(|id| (NodeId::from(*id), membership)).collect(), ..Table::default() }
}

fn stamped(table: &Table, conditions: &Conditions) -> Table {
    stamp(table, table.nodes.clone(), plan(table, conditions), conditions, None)
}

/// Tables until nothing changes; every planned move is acknowledged.
fn settled(table: &Table, conditions: &Conditions) -> Table {
    let mut table = stamped(table, conditions);
    for _ in 0..100 {
        let moving = |(at, a): (usize, &Assignment)| a.successor.is_some().then_some(at);
        let acknowledged = table.partitions.iter().enumerate().filter_map(moving).collect();
        let next = plan(&table, &Conditions { acknowledged, ..conditions.clone() });
        if next == table.partitions {
            return table;
        }
        assert!(next.iter().filter(|a| a.successor.is_some()).count() <= MAX_MOVES);
        let after = stamp(&table, table.nodes.clone(), next, conditions, None);
        assert_eq!(check_step(&table, &after), Ok(()));
        table = after;
    }
    panic!("the plan does not settle: {table:?}");
}

fn step(table: &Table) -> Table {
    settled(table, &Conditions::default())
}

fn limited(node: &str, eligibility: Eligibility) -> Conditions {
    Conditions { limited: BTreeMap::from([(node.into(), eligibility)]), ..Conditions::default() }
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
    assert_eq!(plan(&table, &Conditions::default()), table.partitions, "a plan that holds is kept");
}

#[test]
fn the_heir_of_a_dead_primary_is_the_replica_that_has_most_of_the_logs() {
    let before = step(&table(&["a", "b", "c", "d"]));
    for favourite in 0..2 {
        // The other replica is behind, or its copy is not complete.
        for other in [Some(4), None] {
            let of_partition = |(at, a): (usize, &Assignment)| {
                let rank = |n: usize| if n == favourite { Some(5) } else { other };
                a.replicas.iter().enumerate().filter_map(move |(n, id)| Some(((at, id.clone()), rank(n)?))).collect()
            };
            let caught_up: Vec<Vec<_>> = before.partitions.iter().enumerate().map(of_partition).collect();
            let conditions =
                Conditions { caught_up: caught_up.concat().into_iter().collect(), ..Conditions::default() };
            let after = stamped(&with(&before, "b", false), &conditions);
            for (old, new) in before.partitions.iter().zip(&after.partitions) {
                if old.primary.as_deref() == Some("b") {
                    assert_eq!(new.primary.as_ref(), Some(&old.replicas[favourite]));
                }
            }
        }
    }
}

#[test]
fn a_dead_primarys_places_go_to_replicas_in_a_new_epoch_and_nothing_else_moves() {
    let before = step(&table(&["a", "b", "c", "d"]));
    let after = stamped(&with(&before, "b", false), &Conditions::default());
    assert_eq!(check_step(&before, &after), Ok(()));
    for (old, new) in before.partitions.iter().zip(&after.partitions) {
        let primary = new.primary.as_ref().unwrap();
        if old.primary.as_deref() == Some("b") {
            assert!(old.replicas.contains(primary) && new.epoch == after.epoch, "{old:?} → {new:?}");
        } else {
            assert_eq!((&old.primary, old.epoch), (&new.primary, new.epoch));
        }
        assert!(!new.replicas.contains(&"b".into()) && new.replicas.len() == 2);
    }
    let loads = loads(&after);
    assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
}

#[test]
fn a_worker_that_comes_back_gets_a_fair_share_and_former_primaries_stay_replicas() {
    let before = step(&table(&["a", "b"]));
    let after = step(&with(&before, "c", true));
    assert_eq!(loads(&after), [6, 5, 5]);
    let moved = before.partitions.iter().zip(&after.partitions).filter(|(old, new)| old.primary != new.primary);
    for (old, new) in moved {
        assert_eq!((new.primary.as_deref(), new.replicas.first()), (Some("c"), old.primary.as_ref()));
    }
}

#[test]
fn a_planned_move_waits_for_the_primary_and_is_dropped_when_the_successor_goes() {
    let before = step(&table(&["a", "b"]));
    let joined = stamped(&with(&before, "c", true), &Conditions::default());
    let moving: Vec<usize> = (0..PARTITIONS).filter(|at| joined.partitions[*at].successor.is_some()).collect();
    assert_eq!(moving.len(), MAX_MOVES);
    for (old, new) in before.partitions.iter().zip(&joined.partitions) {
        assert_eq!((&old.primary, old.epoch), (&new.primary, new.epoch), "nothing has moved yet");
    }
    assert_eq!(plan(&joined, &Conditions::default()), joined.partitions, "no acknowledgement yet");
    let one = Conditions { acknowledged: [moving[0]].into(), ..Conditions::default() };
    let moved = stamped(&joined, &one);
    let first = &moved.partitions[moving[0]];
    assert_eq!((first.primary.as_deref(), &first.successor, first.epoch), (Some("c"), &None, moved.epoch));
    let gone = stamped(&with(&joined, "c", false), &one);
    assert!(
        gone.partitions.iter().zip(&before.partitions).all(|(a, b)| a.successor.is_none() && a.primary == b.primary)
    );
    let waiting = Conditions { may_rebalance: false, ..Conditions::default() };
    assert_eq!(loads(&stamped(&with(&before, "c", true), &waiting)), [8, 8, 0]);
}

#[test]
fn a_worker_in_warning_keeps_what_it_has_and_gets_nothing_new() {
    let before = step(&table(&["a", "b", "c"]));
    let (dead, in_warning) = (with(&before, "a", false), limited("b", Eligibility::Keeps));
    let after = stamped(&dead, &in_warning);
    assert_eq!(loads(&after), [5, 11]);
    let alone = with(&dead, "c", false);
    assert_eq!(loads(&stamped(&alone, &in_warning)), [16], "better in warning than none");
}

#[test]
fn a_partition_that_is_not_served_moves_to_a_worker_that_can_and_to_no_other() {
    let before = step(&table(&["a", "b", "c"]));
    let at = before.partitions.iter().position(|a| a.primary.as_deref() == Some("a")).unwrap();
    let unserved = Conditions { unserved: [at].into(), ..Conditions::default() };
    let primary = |conditions: &Conditions| plan(&before, conditions)[at].primary.clone().unwrap();
    let heir = primary(&unserved);
    assert_ne!(&*heir, "a");
    let other: NodeId = if &*heir == "b" { "c".into() } else { "b".into() };
    let unable = Conditions { unable: [(at, heir.clone())].into(), ..unserved.clone() };
    assert_eq!(primary(&unable), other);
    let all = Conditions { unable: [(at, heir.clone()), (at, other.clone())].into(), ..unserved };
    assert_eq!(&*primary(&all), "a", "no other worker can serve it either");
    let after = stamped(&before, &limited("a", Eligibility::Loses));
    assert_eq!(loads(&after), [0, 8, 8]);
    assert!(after.partitions.iter().all(|assignment| assignment.replicas.len() == 2), "it keeps copies");
}

#[test]
fn with_no_worker_online_nothing_changes() {
    let before = step(&table(&["a"]));
    let gone = with(&before, "a", false);
    assert_eq!(plan(&gone, &Conditions::default()), gone.partitions);
    assert_eq!(gone.partitions[0].primary.as_deref(), Some("a"));
}

#[test]
fn after_tables_were_lost_every_partition_gets_an_epoch_above_all_in_use() {
    let before = step(&table(&["a", "b"]));
    let lost = LostTables { epoch: 57, history: 9 };
    let after = stamp(&before, before.nodes.clone(), before.partitions.clone(), &Conditions::default(), Some(lost));
    assert_eq!((after.epoch, after.history), (58, 9));
    assert!(after.partitions.iter().all(|assignment| assignment.epoch == 58));
    assert_eq!(check_step(&before, &after), Ok(()));
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
        let loads = loads(&next);
        if let (Some(most), Some(fewest)) = (loads.iter().max(), loads.iter().min()) {
            assert!(most - fewest <= 1, "{loads:?}");
            let replicas = (loads.len() - 1).min(REPLICAS);
            assert!(next.partitions.iter().all(|a| a.replicas.len() == replicas));
        }
        table = next;
    }
}
