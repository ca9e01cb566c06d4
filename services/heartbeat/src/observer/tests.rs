use super::*;
use crate::{assign::Standing, detector::Fixed};

const SECOND: Nanos = 1_000_000_000;

fn observer() -> Observer {
    let me: NodeId = "m".into();
    let settings = Settings::for_interval(SECOND, 5 * SECOND);
    let make: MakeDetector = Box::new(|| Box::new(Fixed::new(SECOND, SECOND, 0)));
    Observer::new(me.clone(), &[me], settings, make, 1, 0)
}

fn snapshot(revision: u64, incarnation: u64, leaving: bool, online: bool) -> Arc<Snapshot> {
    let id: NodeId = "w".into();
    let nodes = BTreeMap::from([(id.clone(), Standing { incarnation: 1, online })]);
    let table = Table { epoch: revision, nodes, ..Table::default() }.into();
    let (http, udp) = (String::new(), String::new());
    let node = Registration { id: id.clone(), incarnation, http, udp, leaving };
    Snapshot { revision, nodes: BTreeMap::from([(id, node)]), table, ..Snapshot::default() }.into()
}

/// States that the node goes through in 20 s without a beat.
fn silence(observer: &mut Observer, from: Nanos) -> Vec<State> {
    let ticks = (from..from + 20 * SECOND).step_by(100_000_000);
    let changed = |effect| match effect {
        Effect::Changed { transition, .. } => Some(transition.to),
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
    for (life, from) in [(1, 0), (2, 30 * SECOND)] {
        watching.learn(from, snapshot(life, life, false, true));
        for now in (from..from + 30 * SECOND).step_by(100_000_000) {
            if now % (SECOND / 2) == 0 {
                // Each life counts from 1.
                watching.heard(now, "w", life, (now - from) / (SECOND / 2) + 1);
            }
            changes.extend(watching.tick(now).into_iter().filter(|effect| matches!(effect, Effect::Changed { .. })));
        }
    }
    assert_eq!(changes, []);
}
