use super::*;

const SENT_MS: i64 = 1_700_000_000_000;

fn user() -> UserId {
    UserId::new("u1").unwrap()
}

fn partition() -> ShardId {
    shard_of("u1")
}

fn event(item: &str, at_ms: i64) -> Event {
    let item_id = ItemId::new(item).unwrap();
    Event { user_id: user(), item_id, kind: EventKind::View, at_ms, weight: 1.5 }
}

fn messages(payloads: Vec<Option<Vec<u8>>>) -> Vec<Message> {
    let message = |(offset, payload)| Message { offset, timestamp_ms: Some(SENT_MS), payload };
    (0..).zip(payloads).map(message).collect()
}

fn sent(event: &Event) -> Option<Vec<u8>> {
    Some(event_message::encode(event))
}

/// A user with one imported event.
fn before() -> State {
    let log = BTreeMap::from([(key_of(&event("a", 1_000)), Row { weight: 1.5, arrival: 0 })]);
    State { log, counts: BTreeMap::from([(user(), 1)]), ..State::default() }
}

fn topic() -> Vec<Message> {
    let elsewhere = (0..).map(|n| format!("u{n}")).find(|id| shard_of(id) != partition()).unwrap();
    let foreign = Event { user_id: UserId::new(&elsewhere).unwrap(), ..event("a", 7_000) };
    messages(vec![
        sent(&event("b", 3_000)),
        sent(&event("a", 1_000)),
        None,
        sent(&event("c", 2_000)),
        sent(&event("b", 3_000)),
        sent(&foreign),
        Some(b"\xffrandom".to_vec()),
        sent(&event("d", SENT_MS + AHEAD_MS + 1)),
        sent(&event("d", SENT_MS + AHEAD_MS)),
    ])
}

#[test]
fn each_event_counts_once_and_the_rest_are_dead_letters() {
    let (after, tally) = recompute(partition(), 10, &before(), &topic());
    assert_eq!(tally, Tally { messages: 9, new: 3, late: 1, duplicates: 2, dead_letters: 4 });
    assert_eq!(after.next_offset, 9);
    assert_eq!(after.counts[&user()], 4);
    assert_eq!(after.dead_letters.keys().copied().collect::<Vec<_>>(), [2, 5, 6, 7]);
    let arrivals: Vec<u64> = after.log.values().map(|row| row.arrival).collect();
    assert_eq!(arrivals, [0, 13, 10, 18]);
    let row = &after.features[&user()];
    assert_eq!(row.arrival, 18);
    let features = Features::decode(&row.bytes).unwrap();
    let window: Vec<&str> = features.window().map(|(item, _)| item).collect();
    assert_eq!((window, features.events()), (vec!["d", "b", "c", "a"], 4));
}

#[test]
fn messages_in_parts_give_the_same_state_as_all_at_once() {
    let (all, topic) = (recompute(partition(), 1, &before(), &topic()).0, topic());
    for cut in 0..topic.len() {
        let (first, _) = recompute(partition(), 1, &before(), &topic[..cut]);
        let (second, _) = recompute(partition(), 1, &first, &topic[cut..]);
        assert_eq!(second, all, "cut at {cut}");
    }
}

#[test]
fn every_defect_is_found() {
    let (expected, _) = recompute(partition(), 1, &before(), &topic());
    let same = compare(partition(), &expected, &expected);
    assert_eq!(same.different(), 0, "{same:?}");
    let mutants = mutants(&expected);
    assert_eq!(mutants.len(), 12);
    for (defect, mutant) in mutants {
        let found = compare(partition(), &expected, &mutant);
        assert!(found.different() > 0, "not found: {defect}");
    }
}

#[test]
fn an_acknowledged_event_must_be_at_its_position_and_in_the_log() {
    let topic = topic();
    let (state, _) = recompute(partition(), 1, &before(), &topic);
    let check = |offset, event| acknowledged(&topic, &state, std::iter::once((offset, event)));
    assert_eq!(check(0, event("b", 3_000)).different, 0);
    assert_eq!(check(4, event("b", 3_000)).different, 0, "a duplicate has a position of its own");
    assert_eq!(check(3, event("b", 3_000)).different, 1);
    assert_eq!(check(99, event("b", 3_000)).different, 1);
    let mut lost = state.clone();
    lost.log.remove(&key_of(&event("b", 3_000)));
    let found = acknowledged(&topic, &lost, std::iter::once((0, event("b", 3_000))));
    assert!(found.different == 1 && found.described[0].ends_with("not in the log"), "{found:?}");
}

#[test]
fn a_user_with_a_long_imported_history_begins_with_its_newest_thousand() {
    let mut before = State::default();
    for n in 0..1_500_i64 {
        before.log.insert(key_of(&event(&format!("i{n}"), n)), Row { weight: 1.0, arrival: 0 });
    }
    let (after, _) = recompute(partition(), 1, &before, &messages(vec![sent(&event("new", 9_000))]));
    let features = Features::decode(&after.features[&user()].bytes).unwrap();
    assert_eq!(features.events(), 1_001);
}
