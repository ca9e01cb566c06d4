//! What a partition must contain after its messages, by a recomputation on one thread, and where the store differs from it. Pure.
//!
//! The recomputation knows nothing of batches, owners and restarts: it takes the bytes of the topic in order of their offsets. It shares with
//! the workers the format of a message and the fold of one event; both have tests of their own.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
};

use contract::{Event, EventKind, ItemId, ShardId, UserId, event_message, shard_of};
use model::Features;
use serde::Serialize;

/// As in the workers' contract: an event may be this far ahead of its message's time.
const AHEAD_MS: i64 = 300_000;
/// Events of a user without features that are folded first.
const HISTORY: usize = 1_000;
/// Differences that are described; the others are only counted.
const DESCRIBED: usize = 5;

/// A message of the topic, as a plain consumer reads it.
#[derive(Debug, Clone)]
pub struct Message {
    pub offset: u64,
    pub timestamp_ms: Option<i64>,
    /// `None`: a tombstone.
    pub payload: Option<Vec<u8>>,
}

/// The primary key of an event in the log.
pub type Key = (UserId, i64, ItemId, EventKind);

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    pub weight: f32,
    pub arrival: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeaturesRow {
    pub arrival: u64,
    pub bytes: Vec<u8>,
}

/// Everything that depends on the events of one partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    pub log: BTreeMap<Key, Row>,
    /// Events by user.
    pub counts: BTreeMap<UserId, u64>,
    pub features: BTreeMap<UserId, FeaturesRow>,
    pub next_offset: u64,
    /// Reasons by offset.
    pub dead_letters: BTreeMap<u64, String>,
}

/// What the messages of the topic are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub messages: u64,
    /// Events that the log did not have.
    pub new: u64,
    /// Of these: older than another event of their user.
    pub late: u64,
    /// Events that the log had already.
    pub duplicates: u64,
    pub dead_letters: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.new += other.new;
        self.late += other.late;
        self.duplicates += other.duplicates;
        self.dead_letters += other.dead_letters;
    }
}

/// How many things were compared, and which of them differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    pub compared: u64,
    pub different: u64,
    /// Of the first few differences, in words.
    pub described: Vec<String>,
}

impl Compared {
    pub fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.different += other.different;
        let room = DESCRIBED.saturating_sub(self.described.len());
        self.described.extend(other.described.into_iter().take(room));
    }

    /// Counts a comparison, and describes it if it failed.
    pub fn expect(&mut self, is_equal: bool, describe: impl FnOnce() -> String) {
        self.compared += 1;
        if !is_equal {
            self.different += 1;
            if self.described.len() < DESCRIBED {
                self.described.push(describe());
            }
        }
    }

    fn maps<K: Ord + Debug, E, O>(
        what: &str,
        expected: &BTreeMap<K, E>,
        observed: &BTreeMap<K, O>,
        is_equal: impl Fn(&E, &O) -> bool,
    ) -> Self {
        let mut found = Self::default();
        for (key, value) in expected {
            match observed.get(key) {
                Some(other) => found.expect(is_equal(value, other), || format!("{what} {key:?} is wrong")),
                None => found.expect(false, || format!("{what} {key:?} is missing")),
            }
        }
        for key in observed.keys().filter(|key| !expected.contains_key(key)) {
            found.expect(false, || format!("{what} {key:?} should not exist"));
        }
        found
    }
}

/// The comparisons of a partition, by what they compare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Acknowledged events at their positions in the topic, and in the log.
    pub acknowledged: Compared,
    pub log: Compared,
    pub counts: Compared,
    pub features: Compared,
    pub positions: Compared,
    pub dead_letters: Compared,
}

impl Findings {
    pub fn add(&mut self, other: Self) {
        self.acknowledged.add(other.acknowledged);
        self.log.add(other.log);
        self.counts.add(other.counts);
        self.features.add(other.features);
        self.positions.add(other.positions);
        self.dead_letters.add(other.dead_letters);
    }

    pub fn different(&self) -> u64 {
        let Self { acknowledged, log, counts, features, positions, dead_letters } = self;
        [acknowledged, log, counts, features, positions, dead_letters].map(|compared| compared.different).iter().sum()
    }
}

/// The state after these messages, which are all of the partition, in order. `before`: the state without them. `arrival_base`: of the
/// partition, see `stores::EventPosition`.
pub fn recompute(partition: ShardId, arrival_base: u64, before: &State, messages: &[Message]) -> (State, Tally) {
    let (mut after, mut tally) = (before.clone(), Tally::default());
    let mut users = HashMap::<UserId, (Features, u64)>::new();
    for message in messages {
        tally.messages += 1;
        after.next_offset = message.offset + 1;
        let event = match event_of(partition, message) {
            Ok(event) => event,
            Err(reason) => {
                tally.dead_letters += 1;
                after.dead_letters.insert(message.offset, reason);
                continue;
            }
        };
        let key = key_of(&event);
        if after.log.contains_key(&key) {
            tally.duplicates += 1;
            continue;
        }
        let arrival = arrival_base + message.offset;
        let (features, last) =
            users.entry(event.user_id.clone()).or_insert_with(|| features_of(before, &event.user_id));
        tally.new += 1;
        tally.late += u64::from(features.newest_at_ms().is_some_and(|newest_ms| event.at_ms < newest_ms));
        features.fold(&event.item_id, event.kind, event.at_ms, event.weight);
        *last = arrival;
        *after.counts.entry(event.user_id).or_default() += 1;
        after.log.insert(key, Row { weight: event.weight, arrival });
    }
    let rows = users
        .into_iter()
        .map(|(user, (features, arrival))| (user, FeaturesRow { arrival, bytes: features.encode().to_vec() }));
    after.features.extend(rows);
    (after, tally)
}

/// Features of a user before the first message.
fn features_of(before: &State, user_id: &UserId) -> (Features, u64) {
    if let Some(row) = before.features.get(user_id)
        && let Ok(features) = Features::decode(&row.bytes)
    {
        return (features, row.arrival);
    }
    // In order of time: the keys of a user are.
    let history: Vec<(&Key, &Row)> = rows_of(&before.log, user_id).collect();
    let mut features = Features::default();
    for ((_, at_ms, item, kind), row) in &history[history.len().saturating_sub(HISTORY)..] {
        features.fold(item, *kind, *at_ms, row.weight);
    }
    (features, 0)
}

fn rows_of<'a>(log: &'a BTreeMap<Key, Row>, user_id: &'a UserId) -> impl Iterator<Item = (&'a Key, &'a Row)> {
    // No item id is smaller than one space, except for itself.
    let first = ItemId::new(" ").ok().map(|item| (user_id.clone(), i64::MIN, item, EventKind::View));
    let rows = first.map(|first| log.range(first..));
    rows.into_iter().flatten().take_while(move |((user, ..), _)| user == user_id)
}

/// The event, or why it is none of this partition.
fn event_of(partition: ShardId, message: &Message) -> Result<Event, String> {
    let payload = message.payload.as_deref().ok_or("no payload")?;
    let event = event_message::decode(payload).map_err(|error| error.to_string())?;
    if shard_of(event.user_id.as_str()) != partition {
        return Err("another partition".into());
    }
    let latest_ms = message.timestamp_ms.map_or(i64::MAX, |sent_ms| sent_ms.saturating_add(AHEAD_MS));
    if !(0..=latest_ms).contains(&event.at_ms) {
        return Err("its time".into());
    }
    Ok(event)
}

pub fn key_of(event: &Event) -> Key {
    (event.user_id.clone(), event.at_ms, event.item_id.clone(), event.kind)
}

/// The differences between the recomputed state of a partition and the observed one.
pub fn compare(partition: ShardId, expected: &State, observed: &State) -> Findings {
    let mut positions = Compared::default();
    positions.expect(expected.next_offset == observed.next_offset, || {
        let (partition, [expected, stored]) = (partition.index(), [expected, observed].map(|state| state.next_offset));
        format!("the topic of partition {partition} ends at {expected}, the store expects {stored}")
    });
    let is_same_row = |a: &Row, b: &Row| a.weight.to_bits() == b.weight.to_bits() && a.arrival == b.arrival;
    Findings {
        acknowledged: Compared::default(),
        log: Compared::maps("the event", &expected.log, &observed.log, is_same_row),
        counts: Compared::maps("the count of user", &expected.counts, &observed.counts, PartialEq::eq),
        features: Compared::maps("the features of user", &expected.features, &observed.features, PartialEq::eq),
        positions,
        dead_letters: Compared::maps(
            &format!("the dead letter of partition {}, offset", partition.index()),
            &expected.dead_letters,
            &observed.dead_letters,
            |_, reason| !reason.is_empty(),
        ),
    }
}

/// Whether each acknowledged event is in the topic at its position, and in the log. `messages`: all of the partition, by offset.
pub fn acknowledged(
    messages: &[Message],
    observed: &State,
    acknowledged: impl Iterator<Item = (u64, Event)>,
) -> Compared {
    let mut found = Compared::default();
    for (offset, event) in acknowledged {
        let at = messages.binary_search_by_key(&offset, |message| message.offset).ok();
        let payload = at.and_then(|at| messages[at].payload.as_deref());
        let is_there = payload == Some(event_message::encode(&event).as_slice());
        let is_logged = observed.log.contains_key(&key_of(&event));
        found.expect(is_there && is_logged, || {
            let place = if is_there { "the log" } else { "the topic at its position" };
            format!("the acknowledged event {:?}, offset {offset}, is not in {place}", key_of(&event))
        });
    }
    found
}

/// Copies of the state with one defect each. The comparison must find all of them.
pub fn mutants(state: &State) -> Vec<(&'static str, State)> {
    let mut mutants = Vec::new();
    let mut mutate = |defect, change: &dyn Fn(&mut State) -> Option<()>| {
        let mut mutant = state.clone();
        if change(&mut mutant).is_some() {
            mutants.push((defect, mutant));
        }
    };
    mutate("an event is lost", &|state| state.log.pop_last().map(drop));
    mutate("an event is there twice", &|state| {
        let ((user, at_ms, item, kind), row) = state.log.pop_first()?;
        state.log.insert((user.clone(), at_ms, item.clone(), kind), row);
        state.log.insert((user, at_ms + 1, item, kind), row);
        Some(())
    });
    mutate("an event has another weight", &|state| {
        state.log.values_mut().next().map(|row| row.weight = f32::from_bits(row.weight.to_bits() + 1))
    });
    mutate("an event has another arrival number", &|state| state.log.values_mut().last().map(|row| row.arrival += 1));
    mutate("an event is counted twice", &|state| state.counts.values_mut().next().map(|count| *count += 1));
    mutate("a user is lost", &|state| state.counts.pop_last().map(drop));
    mutate("one byte of the features differs", &|state| {
        state.features.values_mut().next()?.bytes.last_mut().map(|byte| *byte ^= 1)
    });
    mutate("features have another arrival number", &|state| {
        state.features.values_mut().last().map(|row| row.arrival -= 1)
    });
    mutate("features are lost", &|state| state.features.pop_first().map(drop));
    mutate("the position is behind", &|state| {
        state.next_offset = state.next_offset.checked_sub(1)?;
        Some(())
    });
    mutate("a dead letter is lost", &|state| state.dead_letters.pop_first().map(drop));
    mutate("a dead letter has no reason", &|state| state.dead_letters.values_mut().next().map(String::clear));
    mutants
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
