//! The broker with a topic for each partition, the clients that send behaviour events to it, and its outages.

use std::collections::BTreeSet;

use heartbeat::{Nanos, assign::PARTITIONS};

use super::World;
use crate::{
    config::{MS, SECOND},
    events::{Command, Event, Reply, Sending, Step},
    faults::Who,
    log::{Action, Log, Payload},
    random::Random,
};

/// Interval of sendings.
const PACE: Nanos = 100 * MS;
/// Clients send nothing in the last seconds: workers must have consumed everything at the end.
const DRAIN: Nanos = 15 * SECOND;
/// A client sends an action at most this often.
const ATTEMPTS: u8 = 4;
/// Users 0 to 3 are of partition 0, 4 to 7 of partition 1, …
const USERS: u64 = 4;
/// Of a consumer that waits for messages: more may follow the first.
const LINGER: Nanos = 50 * MS;
/// Messages of one answer.
const MOST_MESSAGES: usize = 20;
/// Outages begin between these times, and are over with the faults.
const FIRST_OUTAGE: Nanos = 8 * SECOND;
const LAST_OUTAGE: Nanos = 80 * SECOND;

#[derive(Default)]
struct Topic {
    messages: Vec<Payload>,
    /// Consumers at its end, and the offset that each wants.
    waiting: Vec<(Step, u64)>,
    /// Offsets of messages that could not be decoded, by which dead letters are keyed.
    dead_letters: BTreeSet<u64>,
}

#[derive(Default)]
pub(super) struct Broker {
    topics: [Topic; PARTITIONS],
    acknowledged: BTreeSet<Action>,
    /// Begin and end.
    outages: Vec<(Nanos, Nanos)>,
}

impl Broker {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut outage = || {
            let begin = random.range(FIRST_OUTAGE, LAST_OUTAGE);
            (begin, begin + random.range(500 * MS, 15 * SECOND))
        };
        let (first, second) = (outage(), outage());
        let outages = [first, second].into_iter().take(random.range(0, 3) as usize).collect();
        Self { outages, ..Self::default() }
    }

    /// The end of its outage.
    fn returns(&self, now: Nanos) -> Option<Nanos> {
        self.outages.iter().filter(|(begin, end)| (*begin..*end).contains(&now)).map(|(_, end)| *end).max()
    }
}

/// Actions from before the topic, of every other user.
pub(super) fn imported(partition: usize) -> impl Iterator<Item = Action> {
    let users = (0..USERS).step_by(2).map(move |user| partition as u64 * USERS + user);
    users.flat_map(|user| (0..3).map(move |item| Action { user, at_ms: 1_000 * item, item }))
}

impl World {
    /// Clients send a few actions, or many at once.
    pub(super) fn send_actions(&mut self) {
        if self.now + DRAIN > self.config.length {
            return;
        }
        self.after(PACE, Event::SendActions);
        let many = self.log_random.chance(0.01);
        let actions = if many { self.log_random.range(20, 60) } else { self.log_random.range(1, 5) };
        for _ in 0..actions {
            let sending = self.drawn();
            let random = &mut self.log_random;
            let delay = random.range(MS, 5 * MS);
            let again = random.chance(0.02).then(|| random.range(0, 20 * SECOND));
            if let Some(again) = again {
                self.after(again, Event::Send(sending.clone()));
            }
            self.after(delay, Event::Send(sending));
        }
    }

    fn drawn(&mut self) -> Sending {
        let wall_ms = 1_000_000_000 + self.now / MS;
        let random = &mut self.log_random;
        // Some partitions have many events, others wait long for one.
        let uniform = random.range(0, 1_000);
        let partition = (uniform * uniform) as usize * PARTITIONS / 1_000_000;
        let user = partition as u64 * USERS + random.range(0, USERS);
        let is_late = random.chance(0.03);
        let at_ms = if is_late { wall_ms - random.range(0, 3_600_000) } else { wall_ms };
        let mut payload = Some(Action { user, at_ms, item: random.range(0, 20) });
        if random.chance(0.01) {
            payload = None;
        } else if random.chance(0.005) {
            payload = imported(partition).nth(random.range(0, 6) as usize);
        }
        Sending { partition, payload, attempts: ATTEMPTS }
    }

    /// The topic gets it or not, and the client hears of it or not. A client without an answer sends it again, or gives up.
    pub(super) fn append(&mut self, sending: Sending) {
        if self.now + DRAIN > self.config.length {
            return;
        }
        let Sending { partition, payload, attempts } = sending;
        let is_away = self.broker.returns(self.now).is_some();
        let [is_lost, is_unheard] = [(); 2].map(|()| self.log_random.chance(0.01));
        if !is_away && !is_lost {
            self.record(6, Who::Client, partition as u64);
            let topic = &mut self.broker.topics[partition];
            topic.messages.push(payload);
            for (step, offset) in std::mem::take(&mut topic.waiting) {
                self.command_after(LINGER, step, Command::Fetch { offset });
            }
        }
        if is_away || is_lost || is_unheard {
            let pause = self.log_random.range(100 * MS, 3 * SECOND);
            if attempts > 1 && self.log_random.chance(0.9) {
                self.after(pause, Event::Send(Sending { attempts: attempts - 1, ..sending }));
            }
        } else {
            self.broker.acknowledged.extend(payload);
        }
    }

    pub(super) fn fetch(&mut self, step: Step, offset: u64) {
        if let Some(returns) = self.broker.returns(self.now) {
            let reconnected = self.log_random.range(0, SECOND);
            return self.command_after(returns - self.now + reconnected, step, Command::Fetch { offset });
        }
        let topic = &mut self.broker.topics[step.partition];
        let Some(messages) = topic.messages.get(offset as usize..) else {
            let broken = format!("offset {offset} is beyond the end of topic {}", step.partition);
            return self.checks.broken(self.now, &broken);
        };
        if messages.is_empty() {
            topic.waiting.push((step, offset));
            return;
        }
        let messages = messages.iter().take(MOST_MESSAGES).copied().collect();
        self.reply(step, Reply::Fetched(messages));
    }

    /// Keyed by offset: repetitions change nothing.
    pub(super) fn park(&mut self, step: Step, offsets: Vec<u64>) {
        if self.broker.returns(self.now).is_none() {
            self.broker.topics[step.partition].dead_letters.extend(offsets);
            self.reply(step, Reply::Parked);
        }
    }

    /// At the end: everything was consumed, and has had its effect exactly once.
    pub(super) fn check_logs(&mut self) {
        if !self.config.events {
            return;
        }
        for (partition, (topic, log)) in self.broker.topics.iter().zip(&self.logs).enumerate() {
            let expected = Log::imported(imported(partition)).recompute(&topic.messages);
            if let Some(difference) = log.difference(&expected) {
                let broken = format!("partition {partition} is not what its topic gives: {difference}");
                self.checks.broken(self.now, &broken);
            }
            let undecodable = (0..).zip(&topic.messages).filter(|(_, payload)| payload.is_none());
            if !topic.dead_letters.iter().copied().eq(undecodable.map(|(offset, _)| offset)) {
                let broken = format!("the dead letters of partition {partition} are wrong: {:?}", topic.dead_letters);
                self.checks.broken(self.now, &broken);
            }
            self.checks.messages += topic.messages.len() as u64;
            self.checks.logged += log.arrived() as u64;
        }
        let is_missing = |action: &&Action| self.logs.iter().all(|log| !log.contains(action));
        if let Some(missing) = self.broker.acknowledged.iter().find(is_missing) {
            let broken = format!("{missing:?} was acknowledged and is not in the log");
            self.checks.broken(self.now, &broken);
        }
    }
}
