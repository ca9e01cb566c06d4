use super::*;
use crate::{
    assign::{Membership, Table},
    detector::Fixed,
    registry::Registration,
};

const SECOND: Nanos = 1_000_000_000;

fn observer() -> Observer {
    let me: NodeId = "m".into();
    let settings = Settings::for_interval(SECOND, 5 * SECOND);
    let make: DetectorFactory = Box::new(|| Box::new(Fixed::new(SECOND, 0)));
    let monitors = Monitors { version: 1, members: [(me.clone(), String::new())].into() };
    Observer::new(me, monitors, settings, make, 1, 0)
}

fn alive(incarnation: u64) -> Alive {
    Alive { incarnation, sent_ms: 0 }
}

fn beat(at: Nanos, incarnation: u64, sequence: u64) -> ReceivedBeat {
    ReceivedBeat { at, incarnation, sequence, sent_ms: 0, is_authenticated: true, report: None }
}

/// The round of the first probe among the effects.
fn probe(effects: Vec<Effect>) -> Option<u64> {
    let round = |effect| match effect {
        Effect::Probe { round, .. } => Some(round),
        _ => None,
    };
    effects.into_iter().find_map(round)
}

/// The monitors of `observer`, in a snapshot.
fn monitors() -> Option<Monitors> {
    Some(Monitors { version: 1, members: [("m".into(), String::new())].into() })
}

fn snapshot(revision: u64, incarnation: u64, leaving: bool, online: bool) -> Arc<Snapshot> {
    let id: NodeId = "w".into();
    let nodes = BTreeMap::from([(id.clone(), Membership { incarnation: 1, process: 0, online })]);
    let table = Table { epoch: revision, nodes, ..Table::default() }.into();
    let (http, udp) = (String::new(), String::new());
    let node = Registration { id: id.clone(), incarnation, process: 0, http, udp, leaving };
    Snapshot { revision, monitors: monitors(), nodes: BTreeMap::from([(id, node)]), table, ..Snapshot::default() }
        .into()
}

/// States of a node in 20 s without a heartbeat.
fn silence(observer: &mut Observer, from: Nanos) -> Vec<State> {
    let ticks = (from..from + 20 * SECOND).step_by(100_000_000);
    let changed = |effect| match effect {
        Effect::StateChanged { transition, .. } => Some(transition.to),
        _ => None,
    };
    ticks.flat_map(|now| observer.tick(now)).filter_map(changed).collect()
}

#[test]
fn who_has_left_is_not_suspected_and_a_later_life_of_it_is() {
    let all = [State::Suspicious, State::Warning, State::Failed, State::Partitioned];
    let mut watching = observer();
    watching.learn(0, 0, snapshot(1, 1, false, true));
    assert_eq!(silence(&mut watching, 0), all);

    let mut watching = observer();
    watching.learn(0, 0, snapshot(1, 1, true, true));
    assert_eq!(silence(&mut watching, 0), all, "it is about to leave, and has places still");

    let mut watching = observer();
    watching.learn(0, 0, snapshot(1, 1, true, false));
    assert_eq!(silence(&mut watching, 0), []);
    watching.learn(20 * SECOND, 0, snapshot(2, 2, false, false));
    assert_eq!(silence(&mut watching, 20 * SECOND), all);
}

#[test]
fn a_restart_that_nobody_noticed_is_no_silence() {
    let mut watching = observer();
    watching.learn(0, 0, snapshot(1, 1, false, true));
    let mut changes = Vec::new();
    for (incarnation, from) in [(1, 0), (2, 30 * SECOND)] {
        watching.learn(from, 0, snapshot(incarnation, incarnation, false, true));
        let round = probe(watching.tick(from)).expect("a new incarnation is asked first");
        watching.answered(from, "w", alive(incarnation), round);
        for now in (from..from + 30 * SECOND).step_by(100_000_000) {
            if now % (SECOND / 2) == 0 {
                // Each incarnation counts from 1.
                watching.heard(now, "w", beat(now, incarnation, (now - from) / (SECOND / 2) + 1));
            }
            changes
                .extend(watching.tick(now).into_iter().filter(|effect| matches!(effect, Effect::StateChanged { .. })));
        }
    }
    assert_eq!(changes, []);
}

/// A leader with two registered nodes, the commit that admits the first one heard, and the time: the other is heard meanwhile.
fn leader_about_to_admit() -> (Observer, Table, Nanos) {
    let mut leader = observer();
    let node = |id: &str| {
        let (id, http, udp): (NodeId, _, _) = (id.into(), String::new(), String::new());
        (id.clone(), Registration { id, incarnation: 1, process: 0, http, udp, leaving: false })
    };
    let nodes = ["a", "b"].map(node).into();
    leader.learn(0, 0, Snapshot { revision: 1, monitors: monitors(), nodes, ..Snapshot::default() }.into());
    leader.response(0, 0, Response::Leading { term: 1 });
    leader.answered(1, "a", alive(1), 1);
    let commit = commits(leader.tick(1)).pop().expect("the majority of one hears it");
    assert!(commit.is_online("a") && !commit.is_online("b"));
    leader.answered(2, "b", alive(1), 1);
    let now = 2 * SECOND;
    for now in (2..now).step_by(100_000_000) {
        leader.heard(now, "a", beat(now, 1, now));
        leader.heard(now, "b", beat(now, 1, now));
        assert_eq!(commits(leader.tick(now)), [], "one commit at a time");
    }
    (leader, commit, now)
}

fn commits(effects: Vec<Effect>) -> Vec<Table> {
    let table = |effect| match effect {
        Effect::Request(Request::Commit { table, .. }) => Some(table),
        _ => None,
    };
    effects.into_iter().filter_map(table).collect()
}

#[test]
fn a_commit_outlives_the_silence_of_other_requests_and_its_answer_finds_its_own_table() {
    let (mut leader, first, now) = leader_about_to_admit();
    // A read of the registry.
    leader.request_failed(now, false);
    assert_eq!(commits(leader.tick(now)), [], "another table would be right, but one is under way");
    leader.response(now, 1, Response::Committed { table_revision: 2 });
    assert_eq!(*leader.snapshot().table, first, "what the registry has taken");
    let next = commits(leader.tick(now)).pop().expect("what came meanwhile is next");
    assert_eq!((next.epoch, next.is_online("b")), (2, true));
}

#[test]
fn a_commit_without_an_answer_is_made_anew() {
    let (mut leader, _, now) = leader_about_to_admit();
    leader.request_failed(now, true);
    let anew = commits(leader.tick(now)).pop().expect("nothing is under way any more");
    assert!(anew.epoch == 1 && anew.is_online("a") && anew.is_online("b"));
}

#[test]
fn a_life_that_first_answers_a_probe_is_heard_by_its_beats_afterwards() {
    let mut watching = observer();
    watching.learn(0, 0, snapshot(1, 1, false, true));
    let round = probe(watching.tick(0)).expect("it is asked first");
    watching.answered(1, "w", alive(1), round);
    for n in 1..=1_000 {
        watching.heard(n * SECOND / 2, "w", beat(n * SECOND / 2, 1, n));
    }
    // It dies, is started again, and answers a probe before its first heartbeat.
    let mut now = 500 * SECOND;
    let round = loop {
        now += SECOND / 10;
        if let Some(round) = probe(watching.tick(now)) {
            break round;
        }
    };
    watching.answered(now, "w", alive(2), round);
    watching.tick(now);
    for n in 1..=100 {
        now += SECOND / 2;
        watching.heard(now, "w", beat(now, 2, n));
        assert_eq!(
            watching.tick(now).into_iter().filter(|e| matches!(e, Effect::StateChanged { .. })).count(),
            0,
            "beat {n}"
        );
    }
}

/// Effects that are requests to the registry, other than reads.
fn requests(effects: Vec<Effect>) -> Vec<Request> {
    let request = |effect| match effect {
        Effect::Request(request) if request != Request::Read => Some(request),
        _ => None,
    };
    effects.into_iter().filter_map(request).collect()
}

#[test]
fn a_leader_that_loses_the_majority_gives_up_the_lease_and_campaigns_no_more_until_it_has_one() {
    let names: [NodeId; 3] = ["m", "n", "o"].map(Into::into);
    let all = Monitors { version: 1, members: names.clone().map(|name| (name, String::new())).into() };
    let settings = Settings::for_interval(SECOND, 5 * SECOND);
    let make: DetectorFactory = Box::new(|| Box::new(Fixed::new(SECOND, 0)));
    let mut leader = Observer::new(names[0].clone(), all.clone(), settings, make, 1, 0);
    let mut other = Votes::new(names[1].clone(), settings.quorum, settings.vote_lifetime, 2);
    other.set_monitors(1, names.iter());
    leader.learn(0, 0, Snapshot { revision: 1, monitors: Some(all), ..Snapshot::default() }.into());
    let run = |leader: &mut Observer, other: &mut Votes, from: Nanos, is_heard: bool| {
        let mut all = Vec::new();
        for now in (from..from + 5 * SECOND).step_by(100_000_000) {
            let effects = leader.tick(now);
            for effect in &effects {
                if let Effect::Share(ballot) = effect
                    && is_heard
                {
                    other.receive(now, ballot.clone());
                }
            }
            leader.ballot(now, other.cast(now, BTreeMap::new(), BTreeMap::new()));
            all.extend(requests(effects));
        }
        all
    };
    let campaigns = |requests: &[Request]| requests.iter().filter(|r| matches!(r, Request::Campaign { .. })).count();
    assert!(campaigns(&run(&mut leader, &mut other, 0, true)) > 2);
    leader.response(5 * SECOND, 5 * SECOND, Response::Leading { term: 1 });
    assert!(leader.is_leading(5 * SECOND));
    // One way is enough: it hears the other monitors, but they do not hear it.
    let alone = run(&mut leader, &mut other, 5 * SECOND, false);
    assert!(alone.contains(&Request::Resign { monitor: names[0].clone() }), "{alone:?}");
    assert!(!leader.is_leading(10 * SECOND));
    assert_eq!(run(&mut leader, &mut other, 10 * SECOND, false), []);
    leader.response(15 * SECOND, 14 * SECOND, Response::Leading { term: 2 });
    assert!(!leader.is_leading(15 * SECOND), "a campaign that was in flight");
    assert!(campaigns(&run(&mut leader, &mut other, 15 * SECOND, true)) > 2);
}

#[test]
fn a_registry_that_lost_what_it_knew_is_believed_and_its_next_table_is_above_all_in_use() {
    let (mut leader, _, now) = leader_about_to_admit();
    leader.response(now, 1, Response::Committed { table_revision: 2 });
    leader.learn(now, now, snapshot(900, 1, false, true));
    assert_eq!(leader.snapshot().table.epoch, 900);
    let emptied = || Arc::new(Snapshot { revision: 1, monitors: monitors(), ..Snapshot::default() });
    leader.learn(now + 1, now, emptied());
    assert_eq!(leader.snapshot().revision, 900, "an answer that was on its way for long");
    leader.learn(now + 2, now + 1, emptied());
    assert_eq!((leader.snapshot().revision, leader.state("w")), (1, None));
    // A worker that no registration names follows a table that is later still.
    let report = WorkerReport { epoch: 950, history: 1, ..WorkerReport::default() };
    let mut sequence = 0;
    let mut tables = Vec::new();
    for now in (now + 3..now + 4 * SECOND).step_by(100_000_000) {
        sequence += 1;
        leader.heard(now, "w", ReceivedBeat { report: Some(report.clone()), ..beat(now, 1, sequence) });
        leader.response(now, now, Response::Leading { term: 7 });
        tables.extend(commits(leader.tick(now)));
    }
    assert_eq!((tables[0].epoch, tables[0].nodes.len()), (951, 0), "{tables:?}");
    assert!(tables[0].history != 0 && tables[0].partitions.iter().all(|assignment| assignment.epoch == 951));
}

#[test]
fn recorded_heartbeats_do_not_keep_a_dead_worker_alive_at_a_monitor_that_was_restarted() {
    let mut restarted = observer();
    restarted.learn(0, 0, snapshot(1, 1, false, true));
    let mut states = Vec::new();
    for now in (0..20 * SECOND).step_by(100_000_000) {
        if now % SECOND == 0 {
            restarted.heard(now, "w", beat(now, 1, 1_000 + now / SECOND));
        }
        let changed = |effect| match effect {
            Effect::StateChanged { transition, .. } => Some(transition.to),
            _ => None,
        };
        states.extend(restarted.tick(now).into_iter().filter_map(changed));
    }
    assert_eq!(states, [State::Suspicious, State::Warning, State::Failed, State::Partitioned]);
}

#[test]
fn a_backlog_refutes_nothing_whether_it_is_late_in_the_network_or_in_this_process() {
    for is_in_network in [true, false] {
        let mut watching = observer();
        watching.learn(0, 0, snapshot(1, 1, false, true));
        let round = probe(watching.tick(0)).expect("it is asked first");
        watching.answered(1, "w", alive(1), round);
        let mut failed_at = None;
        for now in (1..90 * SECOND).step_by(100_000_000) {
            let second = now / SECOND;
            if now % SECOND == 1 && second > 0 {
                // It dies at second 10. What it sent since second 5 is delivered a minute later, one beat a second.
                let sent = if second <= 5 {
                    Some(second)
                } else {
                    second.checked_sub(60).filter(|sent| (6..=10).contains(sent))
                };
                if let Some(sent) = sent {
                    let at = if is_in_network { now } else { sent * SECOND };
                    let sent_ms = 1_000_000 + sent * 1_000;
                    watching.heard(now, "w", ReceivedBeat { sent_ms, ..beat(at, 1, sent) });
                }
            }
            watching.tick(now);
            if watching.state("w").is_some_and(State::is_failed) {
                failed_at.get_or_insert(second);
            } else {
                assert_eq!(failed_at, None, "refuted at {second} s by what lay in a buffer ({is_in_network})");
            }
        }
        assert!(failed_at.is_some_and(|at| at < 10), "{failed_at:?}");
    }
}

#[test]
fn names_that_are_gone_are_forgotten_unless_one_could_still_write() {
    let (mut leader, _, now) = leader_about_to_admit();
    let gone = Registration {
        id: "gone".into(),
        incarnation: 1,
        process: 3,
        http: String::new(),
        udp: String::new(),
        leaving: false,
    };
    let snapshot = |revision: u64, leader: &Observer| {
        let mut snapshot = Snapshot::clone(leader.snapshot());
        snapshot.revision = revision;
        snapshot.nodes.insert(gone.id.clone(), gone.clone());
        let mut table = Table { epoch: revision, ..Table::default() };
        let online = Membership { incarnation: 1, process: 0, online: true };
        table.nodes.insert("a".into(), online);
        table.nodes.insert(gone.id.clone(), Membership { online: false, ..online });
        for assignment in &mut table.partitions {
            (assignment.epoch, assignment.primary) = (revision, Some("a".into()));
        }
        snapshot.table = table.into();
        Arc::new(snapshot)
    };
    leader.response(now, 1, Response::Committed { table_revision: 2 });
    let known = snapshot(10, &leader);
    leader.learn(now, 0, known);
    let forgotten = |leader: &mut Observer, from: Nanos, serving: u32| {
        let mut all = Vec::new();
        for now in (from..from + 5_000 * SECOND).step_by(SECOND as usize / 4) {
            let report = WorkerReport { epoch: 10, serving, ..WorkerReport::default() };
            leader.heard(now, "a", ReceivedBeat { report: Some(report), ..beat(now, 1, now) });
            leader.response(now, now, Response::Leading { term: 7 });
            all.extend(requests(leader.tick(now)).into_iter().filter(|r| matches!(r, Request::Forget(_))));
        }
        all
    };
    assert_eq!(forgotten(&mut leader, now, 0x7FFF), [], "the fence of partition 15 is missing");
    let requests = forgotten(&mut leader, now + 5_000 * SECOND, 0xFFFF);
    assert!(requests.contains(&Request::Forget(gone.clone())), "{requests:?}");
    let mut later = Snapshot::clone(leader.snapshot());
    later.revision += 1;
    later.nodes.remove(&gone.id);
    leader.learn(now + 10_001 * SECOND, 0, later.into());
    let effects = leader.tick(now + 10_001 * SECOND);
    assert!(effects.contains(&Effect::Forgotten(gone.id.clone())) && leader.state("gone").is_none());
    assert!(leader.state("a").is_some() && leader.state("b").is_some(), "the others are watched");
}

#[test]
fn a_worker_that_beats_but_does_not_serve_loses_its_partitions_to_one_that_does() {
    let mut leader = observer();
    let node = |id: &str| {
        let (id, http, udp): (NodeId, _, _) = (id.into(), String::new(), String::new());
        (id.clone(), Registration { id, incarnation: 1, process: 1, http, udp, leaving: false })
    };
    let nodes: BTreeMap<_, _> = ["a", "b"].map(node).into();
    let mut registry = Snapshot { revision: 1, monitors: monitors(), nodes, ..Snapshot::default() };
    leader.learn(0, 0, registry.clone().into());
    let mut moved: Vec<(Nanos, Source, usize)> = Vec::new();
    for now in (1..60 * SECOND).step_by(100_000_000) {
        leader.response(now, now, Response::Leading { term: 7 });
        for effect in leader.tick(now) {
            match effect {
                Effect::Probe { node, round } => leader.answered(now, &node, alive(1), round),
                Effect::Unserved { node, partitions, source } => {
                    assert_eq!(&*node, "a");
                    moved.push((now / SECOND, source, partitions.len()));
                }
                Effect::Request(Request::Commit { table, .. }) => {
                    registry.revision += 1;
                    (registry.table, registry.table_revision) = (table.into(), registry.revision);
                    leader.response(now, now, Response::Committed { table_revision: registry.revision });
                }
                _ => {}
            }
        }
        if now % SECOND == 1 {
            let table = Arc::clone(&leader.snapshot().table);
            for id in ["a", "b"] {
                let owned = (0..16).filter(|at| {
                    let assignment = &table.partitions[*at];
                    assignment.primary.as_deref() == Some(id) && assignment.successor.is_none()
                });
                let owned = owned.fold(0, |mask, at| mask | 1 << at);
                // From second 20 on the store does not answer a any more.
                let failing = if id == "a" && now > 20 * SECOND { owned } else { 0 };
                let report = WorkerReport {
                    process: 1,
                    history: table.history,
                    epoch: table.epoch,
                    serving: owned & !failing,
                    failing,
                    store_age_ms: if id == "a" && now > 20 * SECOND { 30_000 } else { 500 },
                    ..WorkerReport::default()
                };
                leader.heard(now, id, ReceivedBeat { report: Some(report), ..beat(now, 1, now / SECOND + 1) });
            }
        }
    }
    assert_eq!(moved, [(21, Source::Report, 8)], "once, all of them");
    let table = &leader.snapshot().table;
    assert!(table.partitions.iter().all(|assignment| assignment.primary.as_deref() == Some("b")));
    assert!(table.is_online("a"), "it is not dead");
}
