//! Step 7: adds a batch of events to the features of its users. Pure: the result depends on the arguments only, so that anyone can compute
//! it again from the log.

use std::collections::{HashMap, HashSet};

use contract::{Event, UserId};
use foldhash::quality::RandomState;
use model::Features;
use stores::{ArrivedEvent, EventKey};

use super::decode::Consumed;

/// Users choose their ids, so the hash has a random seed.
pub type UserMap<V> = HashMap<UserId, V, RandomState>;

#[derive(Debug, Default)]
pub struct Folded {
    /// The events that the log does not have, in order of arrival.
    pub events: Vec<ArrivedEvent>,
    /// The users of these events.
    pub users: UserMap<FoldedUser>,
    /// Of `events`, those that are older than another event of their user.
    pub late: u64,
    /// Events that the log has, or that are in the batch before.
    pub duplicates: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoldedUser {
    pub features: Features,
    /// Arrival number of the last event in `features`; 0: none arrived through Kafka.
    pub arrival: u64,
    /// Events of this batch.
    pub added: u32,
    /// Whether the store has a row of this user, which these features continue.
    pub stored: bool,
}

/// Nothing in the log is newer than its user's features.
fn is_new(event: &Event, user: &FoldedUser) -> bool {
    user.features.newest_at_ms().is_none_or(|newest_ms| event.at_ms > newest_ms)
}

/// Few events are looked for: those that are no newer than another one of their user.
fn has(events: &[ArrivedEvent], event: &Event) -> bool {
    events.iter().any(|ArrivedEvent { event: other, .. }| {
        (other.at_ms, other.kind) == (event.at_ms, event.kind)
            && other.user_id == event.user_id
            && other.item_id == event.item_id
    })
}

/// The events that the log may have: an event that is newer than all others of its user is new. `known`: every user of the events.
pub fn candidates<'a>(consumed: &'a [Consumed], known: &UserMap<FoldedUser>) -> Vec<&'a Event> {
    let may_be_logged = |event: &&Event| known.get(&event.user_id).is_some_and(|user| !is_new(event, user));
    consumed.iter().map(|consumed| &consumed.event).filter(may_be_logged).collect()
}

/// `known`: the features of the events' users, before the batch. `logged`: those of `candidates` that the log has. The arrival number
/// of an event is its offset plus `arrival_base`.
pub fn fold(
    consumed: Vec<Consumed>,
    mut known: UserMap<FoldedUser>,
    logged: &HashSet<EventKey>,
    arrival_base: u64,
) -> Folded {
    let mut folded = Folded { events: Vec::with_capacity(consumed.len()), ..Folded::default() };
    for Consumed { offset, event } in consumed {
        let user = known.entry(event.user_id.clone()).or_default();
        let may_be_logged = !is_new(&event, user);
        if may_be_logged && (logged.contains(&EventKey::of(&event)) || has(&folded.events, &event)) {
            folded.duplicates += 1;
            continue;
        }
        let arrival = arrival_base + offset;
        folded.late += u64::from(user.features.newest_at_ms().is_some_and(|newest_ms| event.at_ms < newest_ms));
        user.features.fold(&event.item_id, event.kind, event.at_ms, event.weight);
        (user.arrival, user.added) = (arrival, user.added + 1);
        folded.events.push(ArrivedEvent { event, arrival });
    }
    known.retain(|_id, user| user.added > 0);
    Folded { users: known, ..folded }
}

#[cfg(test)]
mod tests {
    use contract::{EventKind, ItemId};
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

    use super::*;

    const BASE: u64 = 1_000;

    fn consumed(offset: u64, user: &str, item: &str, at_ms: i64) -> Consumed {
        let (user_id, item_id) = (UserId::new(user).unwrap(), ItemId::new(item).unwrap());
        Consumed { offset, event: Event { user_id, item_id, kind: EventKind::View, at_ms, weight: 1.0 } }
    }

    /// What the store would have.
    #[derive(Default)]
    struct Log {
        keys: HashSet<EventKey>,
        arrivals: Vec<(u64, EventKey)>,
        users: UserMap<FoldedUser>,
        duplicates: u64,
    }

    impl Log {
        fn consume(&mut self, batch: &[Consumed]) {
            let users: HashSet<&UserId> = batch.iter().map(|consumed| &consumed.event.user_id).collect();
            let known: UserMap<_> =
                users.iter().filter_map(|user| Some(((*user).clone(), self.users.get(*user)?.clone()))).collect();
            let candidates = candidates(batch, &known).into_iter().map(EventKey::of);
            let logged = candidates.filter(|key| self.keys.contains(key)).collect();
            let folded = fold(batch.to_vec(), known, &logged, BASE);
            self.duplicates += folded.duplicates;
            for ArrivedEvent { event, arrival } in folded.events {
                assert!(self.keys.insert(EventKey::of(&event)), "the log has {event:?} already");
                self.arrivals.push((arrival, EventKey::of(&event)));
            }
            for (user_id, user) in folded.users {
                self.users.insert(user_id, FoldedUser { added: 0, ..user });
            }
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_batches() {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..50 {
            let mut topic: Vec<Consumed> = (0..300)
                .map(|_| {
                    let (user, item) = (random.random_range(0..4), random.random_range(0..130));
                    consumed(0, &format!("u{user}"), &format!("i{item}"), random.random_range(0..400))
                })
                .collect();
            let again: Vec<Consumed> = topic[..60].to_vec();
            topic.extend(again);
            topic.shuffle(&mut random);
            for (offset, consumed) in (0..).zip(&mut topic) {
                consumed.offset = offset;
            }
            let (mut at_once, mut in_batches, mut rest) = (Log::default(), Log::default(), &topic[..]);
            at_once.consume(&topic);
            while !rest.is_empty() {
                let (batch, more) = rest.split_at(random.random_range(1..=40).min(rest.len()));
                in_batches.consume(batch);
                rest = more;
            }
            assert_eq!(at_once.arrivals, in_batches.arrivals);
            assert_eq!((at_once.users, at_once.duplicates), (in_batches.users, in_batches.duplicates));
            assert!(at_once.duplicates >= 60);
        }
    }

    #[test]
    fn only_events_that_are_not_newer_than_their_users_need_the_log() {
        let mut log = Log::default();
        log.consume(&[consumed(0, "a", "x", 10), consumed(1, "b", "x", 20)]);
        let batch = [
            consumed(2, "a", "y", 11),
            consumed(3, "a", "x", 10),
            consumed(4, "b", "y", 5),
            consumed(5, "new", "x", 1),
        ];
        let asked: Vec<_> = candidates(&batch, &log.users).into_iter().map(|event| event.at_ms).collect();
        assert_eq!(asked, [10, 5]);
        let known = log.users.clone();
        let logged = [EventKey::of(&batch[1].event)].into();
        let folded = fold(batch.to_vec(), known, &logged, BASE);
        assert_eq!((folded.late, folded.duplicates), (1, 1));
        assert_eq!(folded.events.iter().map(|arrived| arrived.arrival).collect::<Vec<_>>(), [1_002, 1_004, 1_005]);
        let of = |user: &str| folded.users.get(&UserId::new(user).unwrap()).map(|user| (user.arrival, user.added));
        assert_eq!([of("a"), of("b"), of("new")], [Some((1_002, 1)), Some((1_004, 1)), Some((1_005, 1))]);
    }
}
