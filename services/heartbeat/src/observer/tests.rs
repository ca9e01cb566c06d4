use super::*;
use crate::{assign::Membership, detector::Fixed};

const SECOND: Nanos = 1_000_000_000;

fn observer() -> Observer {
    let me: NodeId = "m".into();
    let settings = Settings::for_interval(SECOND, 5 * SECOND);
    let make: DetectorFactory = Box::new(|| Box::new(Fixed::new(SECOND, 0)));
    Observer::new(me.clone(), &[me], settings, make, 1, 0)
}

fn snapshot(revision: u64, incarnation: u64, leaving: bool, online: bool) -> Arc<Snapshot> {
    let id: NodeId = "w".into();
    let nodes = BTreeMap::from([(id.clone(), Membership { incarnation: 1, online })]);
    let table = Table { epoch: revision, nodes, ..Table::default() }.into();
    let (http, udp) = (String::new(), String::new());
    let node = Registration { id: id.clone(), incarnation, http, udp, leaving };
    Snapshot { revision, nodes: BTreeMap::from([(id, node)]), table, ..Snapshot::default() }.into()
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
    watching.learn(0, snapshot(1, 1, false, true));
    assert_eq!(silence(&mut watching, 0), all);

    let mut watching = observer();
    watching.learn(0, snapshot(1, 1, true, true));
    assert_eq!(silence(&mut watching, 0), all, "it is about to leave, and has places still");

    let mut watching = observer();
    watching.learn(0, snapshot(1, 1, true, false));
    assert_eq!(silence(&mut watching, 0), []);
    watching.learn(20 * SECOND, snapshot(2, 2, false, false));
    assert_eq!(silence(&mut watching, 20 * SECOND), all);
}

#[test]
fn a_restart_that_nobody_noticed_is_no_silence() {
    let mut watching = observer();
    watching.learn(0, snapshot(1, 1, false, true));
    let mut changes = Vec::new();
    for (incarnation, from) in [(1, 0), (2, 30 * SECOND)] {
        watching.learn(from, snapshot(incarnation, incarnation, false, true));
        for now in (from..from + 30 * SECOND).step_by(100_000_000) {
            if now % (SECOND / 2) == 0 {
                // Each incarnation counts from 1.
                watching.heard(now, "w", incarnation, (now - from) / (SECOND / 2) + 1);
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
        (id.clone(), Registration { id, incarnation: 1, http, udp, leaving: false })
    };
    let nodes = ["a", "b"].map(node).into();
    leader.learn(0, Snapshot { revision: 1, nodes, ..Snapshot::default() }.into());
    leader.response(0, 0, Response::Leading { term: 1 });
    leader.heard(1, "a", 1, 1);
    let commit = commits(leader.tick(1)).pop().expect("the majority of one hears it");
    assert!(commit.is_online("a") && !commit.is_online("b"));
    leader.heard(2, "b", 1, 1);
    let now = 2 * SECOND;
    for now in (2..now).step_by(100_000_000) {
        leader.heard(now, "a", 1, now);
        leader.heard(now, "b", 1, now);
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
    watching.learn(0, snapshot(1, 1, false, true));
    for n in 1..=1_000 {
        watching.heard(n * SECOND / 2, "w", 1, n);
    }
    // It dies, is started again, and answers a probe before its first heartbeat.
    let mut now = 500 * SECOND;
    let probe = loop {
        now += SECOND / 10;
        let probe = |effect| match effect {
            Effect::Probe { round, .. } => Some(round),
            _ => None,
        };
        if let Some(round) = watching.tick(now).into_iter().find_map(probe) {
            break round;
        }
    };
    watching.answered(now, "w", 2, probe);
    watching.tick(now);
    for n in 1..=100 {
        now += SECOND / 2;
        watching.heard(now, "w", 2, n);
        assert_eq!(
            watching.tick(now).into_iter().filter(|e| matches!(e, Effect::StateChanged { .. })).count(),
            0,
            "beat {n}"
        );
    }
}
