use super::*;
use crate::{assign::Membership, message::Complaint};

const INTERVAL: Nanos = 1_000_000_000;

/// Workers a, b, c; a is the primary of all partitions.
fn table() -> Table {
    let membership = Membership { incarnation: 1, process: 1, online: true };
    let nodes = ["a", "b", "c"].map(|id| (id.into(), membership)).into();
    let mut table = Table { epoch: 5, history: 1, nodes, ..Table::default() };
    for assignment in &mut table.partitions {
        (assignment.primary, assignment.epoch) = (Some("a".into()), 5);
    }
    table
}

fn report(serving: u32, failing: u32) -> WorkerReport {
    WorkerReport { process: 1, history: 1, epoch: 5, serving, failing, ..WorkerReport::default() }
}

fn accusing(node: &str, partitions: u32) -> WorkerReport {
    let complaints = vec![Complaint { node_id: node.into(), partitions }];
    WorkerReport { complaints, ..report(0, 0) }
}

/// The findings after this many intervals with these reports in each.
fn after(intervals: u64, evidence: &mut Evidence, reports: &[(&str, WorkerReport)]) -> Findings {
    let (table, times) = (table(), Times::for_interval(INTERVAL));
    let mut findings = Findings::default();
    for n in 1..=intervals {
        for (node, report) in reports {
            evidence.reported(n * INTERVAL, &(*node).into(), 1, report.clone());
        }
        findings = evidence.judge(n * INTERVAL, &table, &times, |_| false);
    }
    findings
}

#[test]
fn a_worker_that_serves_is_left_alone_and_one_that_fails_loses_what_it_does_not_serve() {
    assert_eq!(after(20, &mut Evidence::default(), &[("a", report(0xFFFF, 0))]), Findings::default());
    let one = after(2, &mut Evidence::default(), &[("a", report(0xFFFF, 4))]);
    assert_eq!(one.unserved, [(2, Source::Report)].into());
    assert!(one.not_serving.is_empty(), "one of 16: the shard may be at fault");
    let all = after(2, &mut Evidence::default(), &[("a", report(0, 0xFFFF))]);
    assert_eq!((all.unserved.len(), all.not_serving), (16, ["a".into()].into()));
    let taking_over = [("a", report(0xFF, 0))];
    assert!(after(3, &mut Evidence::default(), &taking_over).unserved.is_empty(), "it may be taking over");
    assert_eq!(after(4, &mut Evidence::default(), &taking_over).unserved.len(), 8);
}

#[test]
fn two_requesters_are_believed_and_one_or_one_that_accuses_everybody_is_not() {
    let well = ("a", report(0xFFFF, 0));
    let one = [well.clone(), ("b", accusing("a", 1))];
    assert_eq!(after(9, &mut Evidence::default(), &one), Findings::default());
    let two = [well.clone(), ("b", accusing("a", 7)), ("c", accusing("a", 3))];
    assert!(after(3, &mut Evidence::default(), &two).unserved.is_empty(), "the primary is new");
    let found = after(5, &mut Evidence::default(), &two).unserved;
    assert_eq!(found, [(0, Source::Requesters), (1, Source::Requesters)].into());
    let one_shard = [well.clone(), ("b", accusing("a", 1)), ("c", accusing("a", 1))];
    let mut moved = Evidence::default();
    moved.unable.extend(["b", "c"].map(|node| ((0, node.into()), 100 * INTERVAL)));
    let found = after(9, &mut moved, &one_shard).unserved;
    assert_eq!(found, [(0, Source::Requesters)].into(), "their own path to the shard is good");
    let failing = [("a", report(0xFFFF, 1)), one_shard[1].clone(), one_shard[2].clone()];
    assert!(after(9, &mut moved, &failing).unserved.is_empty(), "the shard fails for everybody");
    let mut everybody = accusing("a", 1);
    everybody.complaints.push(Complaint { node_id: "c".into(), partitions: 1 });
    let two = [well, ("b", everybody), ("c", accusing("a", 1))];
    assert_eq!(after(9, &mut Evidence::default(), &two), Findings::default());
}

#[test]
fn while_a_heartbeat_is_overdue_requesters_wait_for_its_verdict() {
    let (mut evidence, table, times) = (Evidence::default(), table(), Times::for_interval(INTERVAL));
    let mut at = |interval: u64, is_overdue: bool| {
        for (node, report) in [("a", report(0xFFFF, 0)), ("b", accusing("a", 1)), ("c", accusing("a", 1))] {
            evidence.reported(interval * INTERVAL, &node.into(), 1, report);
        }
        evidence.judge(interval * INTERVAL, &table, &times, |_| is_overdue).unserved.len()
    };
    // From 4 on the primary is settled.
    assert_eq!([1, 4, 5, 6].map(|interval| at(interval, true)), [0, 0, 0, 1]);
    assert_eq!(at(7, false), 1);
}

#[test]
fn a_partition_that_a_third_worker_cannot_serve_either_stays() {
    let mut evidence = Evidence::default();
    let failing = [("a", report(0xFFFF, 4))];
    for (node, moves) in [("b", true), ("gone", true), ("c", false)] {
        evidence.unable.insert((2, node.into()), 100 * INTERVAL);
        let found = after(5, &mut evidence, &failing);
        assert_eq!(!found.unserved.is_empty(), moves, "{node}: {found:?}");
    }
}

#[test]
fn a_worker_whose_store_is_silent_gets_nothing() {
    let (mut evidence, times) = (Evidence::default(), Times::for_interval(INTERVAL));
    let mut of = |report: WorkerReport| {
        evidence.reported(INTERVAL, &"b".into(), 1, report);
        evidence.eligibility(INTERVAL, &table(), "b", &times)
    };
    assert_eq!(of(report(0, 0)), Eligibility::Full);
    assert_eq!(of(WorkerReport { store_age_ms: 4_000, ..report(0, 0) }), Eligibility::Keeps);
    assert_eq!(of(report(0, 1)), Eligibility::Keeps);
    let other = |node| evidence.eligibility(9 * INTERVAL, &table(), node, &times);
    assert_eq!(other("b"), Eligibility::Keeps, "an old report");
    assert_eq!(other("c"), Eligibility::Keeps, "no report yet");
    assert_eq!(other("article's node"), Eligibility::Full, "it sends no reports");
}

#[test]
fn a_worker_that_lives_but_whose_reports_do_not_arrive_loses_its_partitions() {
    let mut evidence = Evidence::default();
    assert!(after(3, &mut evidence, &[]).unserved.is_empty());
    assert_eq!(after(4, &mut evidence, &[]).unserved.len(), 16);
}

#[test]
fn an_epoch_above_the_registrys_shows_that_tables_were_lost_unless_it_is_absurd() {
    let (mut evidence, table) = (Evidence::default(), table());
    let follows = |epoch, history| WorkerReport { epoch, history, ..report(0, 0) };
    evidence.epochs_in_use(1, &table, &follows(5, 1));
    evidence.epochs_in_use(1, &table, &follows(u64::MAX, 1));
    evidence.epochs_in_use(1, &table, &follows(4, 9));
    assert_eq!(evidence.lost_tables(100, &table, 10, 3), None);
    evidence.epochs_in_use(1, &table, &follows(5, 9));
    assert_eq!(evidence.lost_tables(10, &table, 10, 3), None, "a commit may be in flight");
    evidence.epochs_in_use(5, &table, &WorkerReport { overruled_by: 57, ..follows(5, 1) });
    assert_eq!(evidence.lost_tables(11, &table, 10, 3), Some(LostTables { epoch: 57, history: 3 }));
    let stamped = Table { epoch: 58, ..table };
    // A worker has the table of the next commit before this monitor has it.
    evidence.epochs_in_use(100, &stamped, &follows(59, 1));
    assert_eq!(evidence.lost_tables(100, &stamped, 10, 3), None, "the former loss is over");
    assert_eq!(evidence.lost_tables(110, &Table { epoch: 59, ..stamped }, 10, 3), None);
    assert_eq!(evidence.in_use, None);
}

#[test]
fn a_primary_that_was_overruled_gets_a_later_epoch() {
    let overruled = WorkerReport { overruled_by: 5, ..report(0xFFFE, 0) };
    let found = after(2, &mut Evidence::default(), &[("a", overruled)]);
    assert_eq!((found.overruled, found.unserved.len()), ([0].into(), 0));
}

#[test]
fn a_move_goes_on_when_the_primary_stops_or_does_not_answer() {
    let (mut table, times) = (table(), Times::for_interval(INTERVAL));
    table.partitions[3].successor = Some("b".into());
    let mut evidence = Evidence::default();
    evidence.reported(1, &"a".into(), 1, report(0xFFFF, 0));
    assert!(evidence.acknowledged(1, &table, &times).is_empty());
    evidence.reported(2, &"a".into(), 1, report(0xFFFF & !8, 0));
    assert_eq!(evidence.acknowledged(2, &table, &times), [3].into());
    evidence.reported(3, &"a".into(), 1, report(0xFFFF, 0));
    assert!(evidence.acknowledged(3, &table, &times).is_empty());
    assert_eq!(evidence.acknowledged(4 * INTERVAL, &table, &times), [3].into());
    assert_eq!(Evidence::default().acknowledged(1, &table, &times), [3].into(), "no reports");
}

#[test]
fn an_accuser_knows_the_number_of_workers_and_complaints_about_workers_that_are_gone_discredit_nobody() {
    let (times, mut evidence) = (Times::for_interval(INTERVAL), Evidence::default());
    let mut table = table();
    table.nodes.insert("gone".into(), Membership { incarnation: 1, process: 1, online: false });
    let about_two = |epoch| {
        let mut report = accusing("a", 1);
        report.complaints.push(Complaint { node_id: "gone".into(), partitions: 1 });
        WorkerReport { epoch, ..report }
    };
    let mut unserved = |at: u64, table: &Table, reports: [(&str, WorkerReport); 3]| {
        for (node, report) in reports {
            evidence.reported(at * INTERVAL, &node.into(), 1, report);
        }
        evidence.judge(at * INTERVAL, table, &times, |_| false).unserved.len()
    };
    let well = || ("a", report(0xFFFF, 0));
    let all = |epoch| [well(), ("b", about_two(epoch)), ("c", about_two(epoch))];
    assert_eq!([1, 5].map(|at| unserved(at, &table, all(5))), [0, 1]);
    table.nodes.insert("d".into(), Membership { incarnation: 1, process: 1, online: true });
    table.epoch = 6;
    assert_eq!([6, 7].map(|at| unserved(at, &table, all(5))), [0, 0], "they do not know of the fourth worker");
    assert_eq!(unserved(8, &table, all(6)), 1);
}

#[test]
fn partitions_that_three_workers_could_not_serve_are_not_the_workers_fault() {
    for (others, is_at_fault) in [(&["b"][..], true), (&["b", "c"], false)] {
        let mut evidence = Evidence::default();
        let unable = others.iter().flat_map(|node| [2, 3].map(|at| ((at, (*node).into()), 100 * INTERVAL)));
        evidence.unable.extend(unable);
        let mut table = table();
        for assignment in &mut table.partitions[6..] {
            assignment.primary = Some("b".into());
        }
        for n in 1..=3 {
            evidence.reported(n * INTERVAL, &"a".into(), 1, report(0x3F, 0b1100));
            evidence.reported(n * INTERVAL, &"b".into(), 1, report(0xFFC0, 0));
            let found = evidence.judge(n * INTERVAL, &table, &Times::for_interval(INTERVAL), |_| false);
            assert_eq!(!found.not_serving.is_empty(), is_at_fault && n > 1, "{others:?}, {n}: {found:?}");
        }
    }
}
