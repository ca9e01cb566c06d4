use proptest::prelude::*;

use super::*;
use crate::simulation::{Action, Cluster, actions, damaged, folded, manifest, names, segment, version};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_announced_version_is_lost_and_only_damaged_blocks_move(actions in actions()) {
        let mut cluster = Cluster::new();
        actions.iter().for_each(|action| cluster.act(action));
        cluster.check()?;
    }

    /// The card's case: damage of any kind to at most two of three copies is repaired without the logs.
    #[test]
    fn two_damaged_copies_are_repaired_from_the_third(
        healthy in 0_usize..3,
        damage in prop::collection::vec(actions(), 1..3),
        ahead in prop::array::uniform2(0_u64..6),
    ) {
        let mut cluster = Cluster::new();
        cluster.act(&Action::Publish(ahead));
        cluster.settle();
        for action in damage.iter().flatten() {
            if !matches!(action, Action::Publish(_) | Action::Deposed(..) | Action::Move(_) | Action::Repair(_) | Action::CarryOut(_)) {
                cluster.act(action);
            }
        }
        let announced = cluster.announced;
        cluster.set(&cluster.holders[healthy], announced);
        let damaged = damaged(&cluster.reports(), &cluster.holders, announced);
        (cluster.blocks_moved, cluster.manifests_moved, cluster.rebuilds) = (0, 0, 0);
        prop_assert_eq!(cluster.settle(), announced);
        prop_assert_eq!(cluster.rebuilds, 0);
        prop_assert_eq!(cluster.blocks_moved, damaged);
        prop_assert!(cluster.manifests_moved <= 2);
    }
}

fn pair(from: &str, to: &str) -> (WorkerId, WorkerId) {
    (from.into(), to.into())
}

fn is_of(transfer: &Transfer, from: &str, to: &str) -> bool {
    (&*transfer.from, &*transfer.to) == (from, to)
}

#[test]
fn the_case_of_the_article_v5_against_two_v7() {
    let mut cluster = Cluster::new();
    cluster.announced = version(1, [7, 7]);
    for (worker, position) in names().iter().zip([5, 7, 7]) {
        cluster.set(worker, version(1, [position, position]));
    }
    let damaged = damaged(&cluster.reports(), &cluster.holders, cluster.announced);
    let plan = cluster.plan(&Plan::default());
    let [Transfer { to, manifest: true, blocks, version: winner, content, .. }] = plan.transfers.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!((&**to, *winner, blocks.len()), ("a", version(1, [7, 7]), damaged));
    assert_eq!(*content, manifest(*winner).content());
    // Block 0 is the same in both versions.
    assert!(!blocks.contains(&0));
    assert_eq!(cluster.settle(), version(1, [7, 7]));
    assert_eq!((cluster.blocks_moved, cluster.rebuilds), (damaged, 0));
}

#[test]
fn both_replicas_stage_a_version_and_the_primary_loses_its_disk_half_way() {
    let mut cluster = Cluster::new();
    let (first, second) = (cluster.announced, version(1, [7, 7]));
    cluster.act(&Action::Publish([6, 6]));
    let plan = cluster.plan(&Plan::default());
    assert!(plan.transfers.len() == 2 && plan.transfers.iter().all(|transfer| transfer.blocks == [1, 2, 3]));
    // The manifest and one block.
    cluster.carry_out(&plan, 2);
    cluster.lose("a");
    for replica in ["b", "c"] {
        assert_eq!(cluster.current(replica), Some((first, folded(first.vector))), "the first version is still served");
        let staged = cluster.reports()[replica].clone().and_then(|copy| copy.staged).unwrap();
        assert!(staged.is_of(&manifest(second)) && staged.has(&manifest(second), 1));
    }
    (cluster.blocks_moved, cluster.manifests_moved) = (0, 0);
    assert_eq!(cluster.settle(), second);
    // Block 1 came before, and is not moved again.
    assert_eq!((cluster.blocks_moved, cluster.manifests_moved, cluster.rebuilds), (4, 0, 1));
    // If it was not announced, the version before counts, and the logs are not needed.
    let mut cluster = Cluster::new();
    cluster.act(&Action::Publish([6, 6]));
    cluster.carry_out(&plan, 2);
    cluster.lose("a");
    cluster.announced = first;
    assert_eq!(cluster.settle(), first);
    assert_eq!(cluster.rebuilds, 0);
}

#[test]
fn staged_blocks_are_sources_and_complete_ones_are_put_into_place() {
    let mut cluster = Cluster::new();
    cluster.act(&Action::Publish([6, 6]));
    let blocks = |blocks: &[u32], to: &str| Transfer {
        segment: segment(),
        version: cluster.announced,
        content: manifest(cluster.announced).content(),
        from: "a".into(),
        to: to.into(),
        manifest: true,
        blocks: blocks.to_vec(),
    };
    let (to_b, to_c) = (blocks(&[1, 2], "b"), blocks(&[3], "c"));
    cluster.transfer(&to_b, usize::MAX);
    cluster.transfer(&to_c, usize::MAX);
    cluster.lose("a");
    (cluster.blocks_moved, cluster.manifests_moved) = (0, 0);
    // The two give each other what they have, and the primary gets all.
    assert_eq!(cluster.settle(), cluster.announced);
    assert_eq!((cluster.blocks_moved, cluster.manifests_moved, cluster.rebuilds), (3 + 4, 1, 0));
    // A process ended after the last block.
    let mut cluster = Cluster::new();
    cluster.act(&Action::Publish([6, 6]));
    cluster.transfer(&Transfer { blocks: vec![1, 2, 3, 0], ..to_b }, 4);
    cluster.holders.truncate(2);
    cluster.lose("c");
    let plan = cluster.plan(&Plan::default());
    assert!(is_of(&plan.transfers[0], "b", "b") && plan.transfers[0].blocks.is_empty(), "{plan:?}");
    cluster.lose("a");
    assert_eq!(cluster.settle(), cluster.announced);
    assert_eq!(cluster.rebuilds, 0);
}

#[test]
fn a_late_report_starts_no_rebuild() {
    let mut cluster = Cluster::new();
    cluster.lose("a");
    cluster.flip("b", 1);
    // C has the only good block 1, and its report is late.
    cluster.awaited.insert("c".into());
    let plan = cluster.plan(&Plan::default());
    assert_eq!(plan.rebuilds, []);
    assert!(is_of(&plan.transfers[0], "b", "a"), "what is known to be good goes on: {plan:?}");
    cluster.awaited = [WorkerId::from("d")].into();
    assert_eq!(cluster.plan(&Plan::default()).rebuilds, []);
    cluster.awaited.clear();
    cluster.offline.insert("c".into());
    assert_eq!(cluster.plan(&Plan::default()).rebuilds.len(), 1);
    cluster.settle();
    assert_eq!(cluster.rebuilds, 0);
}

#[test]
fn a_broken_link_does_not_block_a_repair() {
    let mut cluster = Cluster::new();
    cluster.lose("c");
    cluster.broken = Some(pair("a", "c"));
    assert!(is_of(&cluster.plan(&Plan::default()).transfers[0], "a", "c"));
    cluster.carry_out(&cluster.plan(&Plan::default()), usize::MAX);
    assert!(is_of(&cluster.plan(&Plan::default()).transfers[0], "b", "c"), "the other source is next");
    cluster.settle();
    // With one source only, the pair comes after all others.
    cluster.lose("b");
    cluster.lose("c");
    cluster.failed = [pair("a", "b")].into();
    let plan = cluster.plan(&Plan::default());
    assert!(is_of(&plan.transfers[0], "a", "c") && is_of(&plan.transfers[1], "a", "b"), "{plan:?}");
    // A rebuild that failed.
    ["a", "b", "c"].iter().for_each(|worker| cluster.lose(worker));
    cluster.broken = Some(pair("a", "a"));
    cluster.carry_out(&cluster.plan(&Plan::default()), usize::MAX);
    assert_eq!(&*cluster.plan(&Plan::default()).rebuilds[0].worker, "b");
    cluster.settle();
    assert_eq!(cluster.rebuilds, 1);
}

#[test]
fn other_copies_are_dropped_when_every_holder_has_the_winner() {
    let mut cluster = Cluster::new();
    cluster.set("e", cluster.announced);
    cluster.flip("c", 1);
    assert_eq!(cluster.plan(&Plan::default()).drops, [], "a holder has a bad block");
    cluster.awaited.insert("c".into());
    assert_eq!(cluster.plan(&Plan::default()).drops, [], "a holder has not reported");
    cluster.awaited.clear();
    cluster.carry_out(&cluster.plan(&Plan::default()), usize::MAX);
    let plan = cluster.plan(&Plan::default());
    assert_eq!(plan, Plan { drops: vec![(segment(), "e".into())], ..Plan::default() });
    assert_eq!(cluster.plan(&plan), Plan::default(), "it runs");
    cluster.carry_out(&plan, usize::MAX);
    assert_eq!(cluster.reports()["e"], None);
    assert_eq!(cluster.plan(&Plan::default()), Plan::default());
    // Without holders nothing is dropped.
    cluster.holders.clear();
    assert_eq!(cluster.plan(&Plan::default()), Plan::default());
}

#[test]
fn different_blocks_bad_in_all_copies_need_no_logs_and_the_same_block_does() {
    let (mut different, mut same) = (Cluster::new(), Cluster::new());
    for (number, worker) in names()[..3].iter().enumerate() {
        different.flip(worker, number);
        same.flip(worker, 1);
    }
    for (cluster, moved, rebuilds) in [(&mut different, 3, 0), (&mut same, 2, 1)] {
        cluster.settle();
        assert_eq!((cluster.blocks_moved, cluster.manifests_moved, cluster.rebuilds), (moved, 0, rebuilds));
    }
}

#[test]
fn of_versions_that_do_not_compare_the_highest_epoch_wins_after_the_dominated_ones_left() {
    // C has the highest epoch, but A dominates it; A and B do not compare.
    let (a, b, c) = (version(1, [5, 2]), version(2, [2, 5]), version(3, [4, 1]));
    for order in [[a, b, c], [b, c, a], [c, a, b]] {
        let mut cluster = Cluster::new();
        for (worker, version) in names().iter().zip(order) {
            cluster.set(worker, version);
        }
        assert_eq!(cluster.settle(), b);
    }
    // The same version again in a later epoch: only manifests move.
    let mut cluster = Cluster::new();
    let again = version(9, [1, 1]);
    cluster.set("c", again);
    assert_eq!(cluster.settle(), again);
    assert_eq!((cluster.blocks_moved, cluster.manifests_moved), (0, 2));
}

#[test]
fn a_version_that_was_announced_is_not_replaced_by_one_that_lacks_its_events() {
    // A new primary wrote [1, 2] before it had read as far as the announced version: a higher epoch, but not announced.
    let mut cluster = Cluster::new();
    cluster.act(&Action::Publish([3, 0]));
    cluster.set("b", version(2, [1, 2]));
    assert_eq!(cluster.settle(), version(1, [4, 1]));
}

#[test]
fn an_announced_version_that_no_copy_has_is_folded_again() {
    let mut cluster = Cluster::new();
    cluster.announced = version(2, [9, 9]);
    let plan = cluster.plan(&Plan::default());
    let expected = Rebuild { segment: segment(), version: cluster.announced, worker: "a".into() };
    assert_eq!((plan.rebuilds.as_slice(), plan.transfers.len()), (&[expected][..], 0));
    // It runs: nothing is started twice.
    assert_eq!(cluster.plan(&plan), Plan::default());
    cluster.offline.insert("a".into());
    assert_eq!(&*cluster.plan(&Plan::default()).rebuilds[0].worker, "b");
    assert_eq!(cluster.settle(), version(2, [9, 9]));
}

#[test]
fn the_rarest_blocks_come_first_and_two_transfers_run_at_a_time() {
    let cluster = Cluster::new();
    cluster.flip("a", 0);
    cluster.flip("b", 0);
    cluster.flip("c", 2);
    // Block 0 has one good copy, block 2 has two.
    let plan = cluster.plan(&Plan::default());
    let started: Vec<_> = plan.transfers.iter().map(|t| (&*t.from, &*t.to, t.blocks.as_slice())).collect();
    assert_eq!(started, [("c", "a", &[0][..]), ("c", "b", &[0][..])]);
    assert_eq!(cluster.plan(&plan), Plan::default(), "two are running");
    let one = Plan { transfers: plan.transfers[..1].to_vec(), ..Plan::default() };
    assert_eq!(cluster.plan(&one).transfers, plan.transfers[1..]);
}

#[test]
fn two_contents_of_one_version_are_a_conflict_within_an_epoch_and_the_primary_counts() {
    let cluster = Cluster::new();
    let other = b"folded by another program";
    let write = |worker: &str, version| {
        cluster.disk(worker).remove(segment()).unwrap();
        cluster.disk(worker).write(segment(), version, other).unwrap();
    };
    write("b", cluster.announced);
    let plan = cluster.plan(&Plan::default());
    assert_eq!(plan.conflicts, [segment()]);
    let [Transfer { to, manifest: true, blocks, .. }] = plan.transfers.as_slice() else { panic!("{plan:?}") };
    assert_eq!((&**to, blocks.len()), ("b", manifest(cluster.announced).blocks().len()));
    // Of a later epoch it wins, and of an earlier one it does not.
    for (epoch, receivers) in [(2, 2), (0, 1)] {
        write("b", Version { epoch, ..cluster.announced });
        let plan = cluster.plan(&Plan::default());
        assert_eq!(plan.conflicts, []);
        assert_eq!(plan.transfers.len(), receivers);
        assert!(plan.transfers.iter().all(|transfer| (&*transfer.to == "b") == (epoch == 0)), "{plan:?}");
    }
}

#[test]
fn without_reports_there_is_nothing_to_do() {
    let mut cluster = Cluster::new();
    cluster.offline = names().into_iter().collect();
    assert_eq!(cluster.plan(&Plan::default()), Plan::default());
}
