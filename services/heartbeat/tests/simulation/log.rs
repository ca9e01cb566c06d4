//! Behaviour events on their way from the topic to the log and the features of users. Pure.
//!
//! An `Action` is a behaviour event, so that it is not taken for an `Event` of the simulation.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

/// The arrival number of a partition's first message.
const ARRIVAL_BASE: u64 = 1;

/// A behaviour event: all of it is its key in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Action {
    pub user: u64,
    pub at_ms: u64,
    pub item: u64,
}

/// The content of a message. `None`: bytes that cannot be decoded.
pub type Payload = Option<Action>;

/// What is known of a user. The hash depends on the order of the actions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    actions: u64,
    hash: u64,
}

impl Features {
    fn fold(&mut self, action: &Action) {
        self.actions += 1;
        for word in [action.at_ms, action.item] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
        }
    }
}

/// A user's features, and the arrival number of the last action in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRow {
    pub features: Features,
    pub arrival: u64,
}

/// What one transaction writes.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// It changes nothing unless the store expects this message.
    pub from_offset: u64,
    /// The message that the store expects next.
    pub next_offset: u64,
    /// With their arrival numbers.
    pub actions: Vec<(Action, u64)>,
    pub users: BTreeMap<u64, UserRow>,
}

/// Which duplicates a worker drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    Drop,
    /// Only those of actions in the log: a mutant.
    KeepInBatch,
    /// Only those within a batch: a mutant.
    KeepLogged,
}

impl Batch {
    /// The messages from `from_offset` on. `logged`: those of their actions that the log has. `features`: of their users.
    pub fn new(
        from_offset: u64,
        messages: &[Payload],
        mut logged: BTreeSet<Action>,
        features: &BTreeMap<u64, Features>,
        duplicates: Duplicates,
    ) -> Self {
        let mut batch = Self { from_offset, next_offset: from_offset, ..Self::default() };
        if duplicates == Duplicates::KeepLogged {
            logged.clear();
        }
        for payload in messages {
            let arrival = ARRIVAL_BASE + batch.next_offset;
            batch.next_offset += 1;
            let Some(action) = payload else { continue };
            if logged.contains(action) {
                continue;
            }
            if duplicates != Duplicates::KeepInBatch {
                logged.insert(*action);
            }
            batch.actions.push((*action, arrival));
            let known = UserRow { features: features.get(&action.user).copied().unwrap_or_default(), arrival };
            let user = batch.users.entry(action.user).or_insert(known);
            user.features.fold(action);
            user.arrival = arrival;
        }
        batch
    }
}

/// What the store keeps for a partition, next to its fence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    next_offset: u64,
    /// Actions and their arrival numbers; 0: imported.
    actions: BTreeMap<Action, u64>,
    users: BTreeMap<u64, UserRow>,
}

impl Log {
    /// With actions from before the topic, whose users have no features yet.
    pub fn imported(actions: impl IntoIterator<Item = Action>) -> Self {
        Self { actions: actions.into_iter().map(|action| (action, 0)).collect(), ..Self::default() }
    }

    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Number of actions that came through the topic.
    pub fn arrived(&self) -> usize {
        self.actions.values().filter(|arrival| **arrival > 0).count()
    }

    pub fn contains(&self, action: &Action) -> bool {
        self.actions.contains_key(action)
    }

    /// A user without features may have imported actions: the folds of these.
    pub fn features(&self, user: u64) -> Features {
        if let Some(row) = self.users.get(&user) {
            return row.features;
        }
        let (first, last) = ((user, 0, 0), (user, u64::MAX, u64::MAX));
        let [first, last] = [first, last].map(|(user, at_ms, item)| Action { user, at_ms, item });
        let mut features = Features::default();
        for (action, _) in self.actions.range(first..=last) {
            features.fold(action);
        }
        features
    }

    /// One transaction. `INSERT IGNORE` keeps what the log has.
    ///
    /// # Errors
    /// The store expects another message, and nothing has changed.
    pub fn write(&mut self, batch: &Batch, checks_offset: bool) -> Result<(), OtherPosition> {
        if checks_offset && batch.from_offset != self.next_offset {
            return Err(OtherPosition);
        }
        self.next_offset = batch.next_offset;
        for (action, arrival) in &batch.actions {
            if let Entry::Vacant(new) = self.actions.entry(*action) {
                new.insert(*arrival);
            }
        }
        self.users.extend(&batch.users);
        Ok(())
    }

    /// What a log must contain after these messages: one reader, one message at a time, without batches and faults.
    pub fn recompute(mut self, messages: &[Payload]) -> Self {
        for payload in messages {
            let arrival = ARRIVAL_BASE + self.next_offset;
            self.next_offset += 1;
            let Some(action) = payload.filter(|action| !self.contains(action)) else { continue };
            let mut features = self.features(action.user);
            features.fold(&action);
            self.actions.insert(action, arrival);
            self.users.insert(action.user, UserRow { features, arrival });
        }
        self
    }

    /// The first difference to the log that it should be.
    pub fn difference(&self, expected: &Self) -> Option<String> {
        if self.next_offset != expected.next_offset {
            return Some(format!("the next offset is {}, not {}", self.next_offset, expected.next_offset));
        }
        let arrivals = |log: &Self| log.actions.iter().map(|(action, at)| (*at, *action)).collect::<BTreeSet<_>>();
        let (found, wanted) = (arrivals(self), arrivals(expected));
        if let Some((arrival, action)) = wanted.symmetric_difference(&found).next() {
            let (has, should) = (self.actions.get(action), expected.actions.get(action));
            return Some(format!("{action:?} at {arrival}: the log has it as {has:?}, not as {should:?}"));
        }
        let users = self.users.keys().chain(expected.users.keys());
        let differs = users.copied().find(|user| self.users.get(user) != expected.users.get(user))?;
        let (has, should) = (self.users.get(&differs), expected.users.get(&differs));
        Some(format!("the features of user {differs} are {has:?}, not {should:?}"))
    }
}

/// The store expects another message than the batch begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherPosition;

#[test]
fn batches_give_what_one_message_at_a_time_gives() {
    let action = |user, at_ms| Action { user, at_ms, item: 1 };
    let imported = [action(1, 5), action(1, 3)];
    let messages = [1, 2, 0, 2, 1, 1, 2].into_iter().zip([9, 1, 0, 1, 5, 4, 2]);
    let messages: Vec<Payload> = messages.map(|(user, at_ms)| (user > 0).then(|| action(user, at_ms))).collect();
    let expected = Log::imported(imported).recompute(&messages);
    assert_eq!((expected.arrived(), expected.next_offset()), (4, 7));
    let consume = |at_a_time: usize, duplicates| {
        let mut log = Log::imported(imported);
        for messages in messages.chunks(at_a_time) {
            let actions = || messages.iter().flatten();
            let logged = actions().copied().filter(|action| log.contains(action)).collect();
            let features = actions().map(|action| (action.user, log.features(action.user))).collect();
            let batch = Batch::new(log.next_offset(), messages, logged, &features, duplicates);
            assert_eq!(log.write(&batch, true), Ok(()));
            assert_eq!(log.write(&batch, true), Err(OtherPosition), "a repeated packet");
        }
        log
    };
    for at_a_time in 1..=7 {
        assert_eq!(consume(at_a_time, Duplicates::Drop), expected, "{at_a_time} messages at a time");
    }
    for (duplicates, at_a_time) in [(Duplicates::KeepInBatch, 7), (Duplicates::KeepLogged, 1)] {
        let difference = consume(at_a_time, duplicates).difference(&expected);
        assert!(difference.is_some_and(|difference| difference.contains("the features of user")));
    }
}
