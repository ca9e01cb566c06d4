use contract::VersionVector;
use heartbeat::assign::{Assignment, Membership, Table};
use runtime::telemetry::TelemetryConfig;
use segments::{CopyState, Digest, Manifest, rpc::Finished};

use super::*;

const S: Nanos = 1_000_000_000;
const REPORT_EVERY: Nanos = 60 * S;

fn first() -> SegmentId {
    SegmentId::all().next().unwrap()
}

fn id(name: &str) -> NodeId {
    name.into()
}

/// Workers with their incarnations are online. The first is the primary of all segments, the others are replicas.
fn assignments(epoch: u64, workers: &[(&str, u64)]) -> Arc<Assignments> {
    let names: Vec<NodeId> = workers.iter().map(|(name, _)| id(name)).collect();
    let assignment = Assignment {
        epoch,
        primary: names.first().cloned(),
        replicas: names.iter().skip(1).take(2).cloned().collect(),
        successor: None,
    };
    let membership = |incarnation| Membership { incarnation, process: 0, online: true };
    let table = Table {
        epoch,
        partitions: vec![assignment; 16],
        nodes: workers.iter().map(|(name, incarnation)| (id(name), membership(*incarnation))).collect(),
        ..Table::default()
    };
    let addresses = names.iter().map(|name| (name.clone(), format!("{name}:1"))).collect();
    Arc::new(Assignments { table: Arc::new(table), addresses })
}

fn three(epoch: u64) -> Arc<Assignments> {
    assignments(epoch, &[("a", 1), ("b", 1), ("c", 1)])
}

fn version(position: u64) -> Version {
    Version { epoch: 1, vector: VersionVector::new([position; 16]) }
}

fn copy(position: u64) -> CopyReport {
    let manifest = Manifest::of(first(), version(position), &position.to_le_bytes()).unwrap();
    let blocks = vec![Some(Digest::of(&position.to_le_bytes()))];
    CopyReport { current: Some(CopyState { manifest: Some(manifest), blocks }), staged: None }
}

fn flipped(position: u64) -> CopyReport {
    let mut copy = copy(position);
    copy.current.as_mut().unwrap().blocks[0] = None;
    copy
}

/// Reports and tables arrive one after the other.
struct Story {
    care: Care,
    now: Nanos,
    number: u64,
}

impl Story {
    fn begin(telemetry: Telemetry) -> Self {
        let mut care = Care::new(REPORT_EVERY, telemetry);
        care.follow(0, three(1), true);
        Self { care, now: 0, number: 0 }
    }

    /// A complete report of a worker with this copy of the first segment.
    fn report(&mut self, worker: &str, copy: Option<CopyReport>, finished: Vec<Finished>) -> Vec<Ended> {
        self.try_report(worker, 1, copy, finished).unwrap()
    }

    fn try_report(
        &mut self,
        worker: &str,
        incarnation: u64,
        copy: Option<CopyReport>,
        finished: Vec<Finished>,
    ) -> Result<Vec<Ended>, Refused> {
        self.number += 1;
        let copies = BTreeMap::from([(first(), copy)]);
        let (worker, number) = (id(worker), self.number);
        let report = ReadReport { worker, incarnation, number, table_epoch: 1, complete: true, copies, finished };
        self.care.report(self.now, report)
    }

    fn good(&mut self) {
        ["a", "b", "c"].iter().for_each(|worker| assert_eq!(self.report(worker, Some(copy(7)), vec![]), []));
        assert_eq!(self.orders(), Vec::<String>::new());
    }

    /// What a plan starts now: `a>b` for a transfer, `=a` for a rebuild, `-a` for a removal.
    fn orders(&mut self) -> Vec<String> {
        let started = self.care.plan(self.now).started;
        let word = |(worker, order): &(NodeId, Order)| match &order.step {
            Step::Transfer { from, address, .. } => {
                assert_eq!(*address, format!("{from}:1"));
                format!("{from}>{worker}")
            }
            Step::Rebuild { .. } => format!("={worker}"),
            Step::Remove => format!("-{worker}"),
        };
        started.iter().map(word).collect()
    }

    fn handed_out(&mut self, worker: &str) -> Order {
        self.care.hand_out(self.now, &id(worker), 1).unwrap().remove(0)
    }
}

fn done(order: &Order) -> Vec<Finished> {
    vec![Finished { order: order.id, ..Finished::default() }]
}

fn failed(order: &Order) -> Vec<Finished> {
    vec![Finished { order: order.id, error: "no".into(), bytes: 0 }]
}

#[test]
fn a_damaged_copy_is_repaired_by_one_order() {
    let mut story = Story::begin(Telemetry::default());
    story.good();
    story.now = S;
    story.report("b", Some(flipped(7)), vec![]);
    assert_eq!(story.orders(), ["a>b"]);
    assert_eq!(story.orders(), Vec::<String>::new(), "it runs");
    assert_eq!(story.care.due(story.now).map(|worker| &**worker).collect::<Vec<_>>(), ["b"]);
    assert!(story.care.under_replicated_seconds(3 * S) > 1.9);
    let status = story.care.status(story.now).remove(0);
    assert_eq!((status.version, status.good, status.holders), (16 * 7, 2, 3));
    assert_eq!(story.care.caught_up(), BTreeMap::from([((0, id("a")), 112), ((0, id("c")), 112)]));
    let order = story.handed_out("b");
    let ended = story.report("b", Some(copy(7)), done(&order));
    assert_eq!((ended[0].kind(), ended[0].blocks()), (Kind::Transfer, 1));
    assert_eq!(story.orders(), Vec::<String>::new());
    assert_eq!((story.care.under_replicated_seconds(3 * S), story.care.caught_up().len()), (0.0, 3));
}

#[test]
fn a_failed_step_is_tried_with_another_source_and_again_after_a_pause() {
    let mut story = Story::begin(Telemetry::default());
    story.good();
    story.report("b", Some(flipped(7)), vec![]);
    assert_eq!(story.orders(), ["a>b"]);
    let order = story.handed_out("b");
    story.report("b", Some(flipped(7)), failed(&order));
    assert_eq!(story.orders(), ["c>b"]);
    let order = story.handed_out("b");
    story.report("b", Some(flipped(7)), failed(&order));
    assert_eq!(story.orders(), Vec::<String>::new(), "both failed a moment ago");
    story.now += RETRY_AFTER;
    assert_eq!(story.orders().len(), 1);
    // Its end is never reported.
    story.now += 61 * S;
    let planned = story.care.plan(story.now);
    assert_eq!((planned.ended.len(), &planned.ended[0].outcome), (1, &Outcome::TimedOut));
}

#[test]
fn nothing_is_folded_again_while_an_online_worker_may_still_report() {
    let mut story = Story::begin(Telemetry::default());
    for worker in ["a", "b"] {
        story.report(worker, Some(flipped(7)), vec![]);
    }
    assert_eq!(story.orders(), Vec::<String>::new(), "c may have the block");
    story.now = 2 * REPORT_EVERY;
    assert_eq!(story.orders(), ["=a"]);
    assert_eq!(story.orders(), Vec::<String>::new());
    // A new leader waits again, for workers whose report it does not have.
    story.care.follow(story.now, three(1), false);
    assert_eq!(story.orders(), Vec::<String>::new(), "it does not lead");
    story.care.follow(story.now, three(1), true);
    assert_eq!(story.orders(), Vec::<String>::new());
    story.report("c", Some(flipped(7)), vec![]);
    assert_eq!(story.orders(), ["=a"]);
}

#[test]
fn one_rebuild_of_a_segment_runs_at_a_time_also_when_the_lead_was_lost_meanwhile() {
    let mut story = Story::begin(Telemetry::default());
    story.good();
    for worker in ["a", "b", "c"] {
        story.report(worker, Some(flipped(7)), vec![]);
    }
    assert_eq!(story.orders(), ["=a"]);
    let order = story.handed_out("a");
    story.now += 300 * S;
    assert_eq!(story.orders(), Vec::<String>::new(), "it may take long");
    story.care.follow(story.now, three(1), false);
    assert_eq!(story.orders(), Vec::<String>::new());
    assert_eq!(story.care.hand_out(story.now, &id("a"), 1), Ok(vec![]), "another monitor leads");
    story.care.follow(story.now, three(1), true);
    assert_eq!(story.orders(), Vec::<String>::new());
    assert_eq!(story.handed_out("a"), order);
    story.now += 300 * S;
    assert_eq!(story.orders(), ["=b"], "it took too long");
}

/// A worker reports an order as carried out if it has a newer version by then.
#[test]
fn an_order_that_was_overtaken_does_not_count_against_its_workers() {
    let mut story = Story::begin(Telemetry::default());
    story.good();
    story.report("b", Some(flipped(7)), vec![]);
    assert_eq!(story.orders(), ["a>b"]);
    let order = story.handed_out("b");
    let ended = story.report("b", Some(copy(9)), done(&order));
    assert_eq!(ended[0].outcome, Outcome::Done { bytes: 0 });
    assert_eq!((story.care.failed.len(), story.care.paused.len()), (0, 0));
    // The newer version is the winner now.
    assert_eq!(story.orders(), ["b>a", "b>c"]);
    let order = story.handed_out("a");
    story.report("a", Some(copy(9)), done(&order));
    story.report("c", Some(flipped(9)), vec![]);
    for worker in ["a", "b"] {
        story.report(worker, Some(flipped(9)), vec![]);
    }
    // So is a rebuild: its worker publishes a version that dominates it.
    let order = story.handed_out("c");
    story.report("c", Some(flipped(9)), done(&order));
    assert_eq!(story.orders(), ["=a"]);
    let order = story.handed_out("a");
    story.report("a", Some(copy(11)), done(&order));
    assert_eq!((story.care.failed.len(), story.care.paused.len()), (0, 0));
    assert_eq!(story.orders(), ["a>b", "a>c"]);
}

#[test]
fn orders_end_with_their_workers_and_copies_of_offline_workers_are_no_sources() {
    let mut story = Story::begin(Telemetry::default());
    story.good();
    story.report("b", Some(flipped(7)), vec![]);
    assert_eq!(story.orders(), ["a>b"]);
    story.care.follow(story.now, assignments(2, &[("b", 1), ("c", 1), ("d", 1)]), true);
    let planned = story.care.plan(story.now);
    assert_eq!(planned.ended[0].outcome, Outcome::Offline);
    let Step::Transfer { from, .. } = story.handed_out("b").step else { panic!("{planned:?}") };
    assert_eq!(from, id("c"));
    let gone = story.try_report("a", 1, Some(copy(7)), vec![]);
    assert_eq!(gone, Err(Refused::Unknown(id("a"))));
    // b starts again: what it reported before counts no more.
    story.care.follow(story.now, assignments(3, &[("b", 2), ("c", 1), ("d", 1)]), true);
    let not_online = Refused::NotOnline { worker: id("b"), incarnation: 1, epoch: 3 };
    assert_eq!(story.try_report("b", 1, None, vec![]), Err(not_online));
    assert_eq!(story.care.caught_up().len(), 1);
    story.try_report("b", 2, Some(copy(7)), vec![]).unwrap();
    assert_eq!(story.care.caught_up().len(), 2);
}

#[test]
fn an_announced_version_does_not_go_back() {
    let mut story = Story::begin(Telemetry::default());
    story.good();
    // All copies are older ones, as from backups: the newest is folded again.
    ["a", "b", "c"].iter().for_each(|worker| assert_eq!(story.report(worker, Some(copy(5)), vec![]), []));
    assert_eq!(story.orders(), ["=a"]);
    // A version of a replica alone is announced when its primary has it.
    story.report("b", Some(copy(9)), vec![]);
    assert_eq!(story.care.announced[&first()].version, version(7));
    story.report("a", Some(copy(9)), vec![]);
    assert_eq!(story.care.announced[&first()].version, version(9));
}

#[test]
fn a_copy_of_no_holder_is_removed_and_a_refusal_does_not_count_against_rebuilds() {
    let mut story = Story::begin(Telemetry::default());
    story.care.follow(0, assignments(2, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]), true);
    ["a", "b", "c", "d"].iter().for_each(|worker| assert_eq!(story.report(worker, Some(copy(7)), vec![]), []));
    assert_eq!(story.orders(), ["-d"]);
    let order = story.handed_out("d");
    story.report("d", Some(copy(7)), failed(&order));
    assert_eq!((story.orders(), story.care.failed.len()), (vec![], 0));
    story.now += RETRY_AFTER;
    assert_eq!(story.orders(), ["-d"]);
}

/// The exporter finds no receiver; spans are recorded all the same.
#[tokio::test]
async fn all_orders_of_a_repair_carry_its_trace_and_replication_has_none() {
    let service = runtime::telemetry::Service { name: "monitor", listen: "m0".into() };
    let config = TelemetryConfig::to("http://127.0.0.1:1");
    let telemetry = Telemetry::start(&config, service, &prometheus::Registry::new()).unwrap();
    let mut story = Story::begin(telemetry);
    story.report("a", Some(copy(7)), vec![]);
    ["b", "c"].iter().for_each(|worker| assert_eq!(story.report(worker, Some(copy(5)), vec![]), []));
    assert_eq!(story.orders(), ["a>b", "a>c"]);
    for worker in ["b", "c"] {
        let order = story.handed_out(worker);
        assert_eq!(order.traceparent, None);
        story.report(worker, Some(copy(7)), done(&order));
    }
    story.report("b", Some(flipped(7)), vec![]);
    assert_eq!(story.orders(), ["a>b"]);
    let one = story.handed_out("b");
    story.report("b", Some(flipped(7)), failed(&one));
    assert_eq!(story.orders(), ["c>b"]);
    let other = story.handed_out("b");
    assert!(one.traceparent.is_some() && one.traceparent == other.traceparent);
    story.report("b", Some(copy(7)), done(&other));
    assert_eq!(story.orders(), Vec::<String>::new());
    story.report("b", Some(flipped(7)), vec![]);
    assert_eq!(story.orders().len(), 1);
    assert_ne!(story.handed_out("b").traceparent, one.traceparent, "another repair");
}
