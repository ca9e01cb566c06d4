//! The events, by number: any part of the run can compute any of them again. And what is no event. Pure.

use contract::{Event, EventKind, ItemId, SHARDS, ShardId, UserId, event_message, shard_of};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Events per request.
pub const BATCH: u64 = 50;
const LATE_SHARE: f64 = 0.01;
const REPEATED_SHARE: f64 = 0.01;
/// Late by an hour to 30 days.
const LATE_MS: std::ops::Range<i64> = 3_600_000..30 * 86_400_000;
/// Share of the events whose user is not in the imported data.
const NEW_USER_SHARE: f64 = 0.03;
const KINDS: [EventKind; 4] = [EventKind::View, EventKind::Cart, EventKind::Purchase, EventKind::Rating];
/// 1 MB: less than the broker's limit.
const LARGE_BYTES: usize = 1_000_000;
/// Every so many poison messages one is large.
const LARGE_EVERY: u64 = 25;

pub struct Workload {
    users: Vec<UserId>,
    items: Vec<ItemId>,
    pub events: u64,
    pub per_second: f64,
    /// Time of the first event, Unix ms.
    begin_ms: i64,
    seed: u64,
}

impl Workload {
    /// `users`: the most active first. Neither list is empty.
    pub fn new(users: Vec<UserId>, items: Vec<ItemId>, events: u64, per_second: f64, begin_ms: i64, seed: u64) -> Self {
        Self { users, items, events, per_second, begin_ms, seed }
    }

    fn random(&self, what: u64, n: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ (what << 56) ^ n)
    }

    /// The n-th event. Its time is the planned time of its request, unless it is late.
    pub fn event(&self, n: u64) -> Event {
        let mut random = self.random(1, n);
        let user_id = if random.random_bool(NEW_USER_SHARE) {
            UserId::new(&format!("new-{}", random.random_range(0..1 + self.users.len() / 20))).ok()
        } else {
            None
        };
        // Most events come from few users.
        let at = |random: &mut StdRng, count: usize| {
            let share: f64 = random.random();
            (share * share * count as f64) as usize
        };
        let user_id = user_id.unwrap_or_else(|| self.users[at(&mut random, self.users.len())].clone());
        let item_id = self.items[at(&mut random, self.items.len())].clone();
        let kind = KINDS[random.random_range(0..KINDS.len())];
        let weight = match kind {
            EventKind::Rating => random.random_range(1..=10_u8).into(),
            kind => kind.default_weight() * random.random_range(0.5..1.5),
        };
        let late_ms = if self.is_late(n) { random.random_range(LATE_MS) } else { 0 };
        Event { user_id, item_id, kind, at_ms: self.begin_ms + self.planned_ms(n) as i64 - late_ms, weight }
    }

    /// Milliseconds from the begin of a run without outages.
    pub fn planned_ms(&self, n: u64) -> f64 {
        n as f64 * 1e3 / self.per_second
    }

    pub fn is_late(&self, n: u64) -> bool {
        self.random(2, n).random_bool(LATE_SHARE)
    }

    /// Sent again in a later batch, although it was acknowledged.
    pub fn is_repeated(&self, n: u64) -> bool {
        self.random(3, n).random_bool(REPEATED_SHARE)
    }

    /// Events of the batch, by number. Empty after the last one.
    pub fn batch(&self, batch: u64) -> std::ops::Range<u64> {
        (batch * BATCH).min(self.events)..((batch + 1) * BATCH).min(self.events)
    }

    /// A message that is no event of the partition to which it is sent.
    pub fn poison(&self, n: u64) -> (ShardId, Option<Vec<u8>>) {
        let mut random = self.random(4, n);
        let event = self.event(random.random_range(0..self.events));
        let own = shard_of(event.user_id.as_str());
        let payload = match n % 4 {
            _ if n % LARGE_EVERY == LARGE_EVERY - 1 => Some(vec![random.random(); LARGE_BYTES]),
            0 => Some((0..random.random_range(1..300)).map(|_| random.random()).collect()),
            1 => {
                let mut unknown_version = event_message::encode(&event);
                unknown_version[0] = random.random_range(100..=255);
                Some(unknown_version)
            }
            2 => None,
            _ => {
                // A good event in a partition that is not its own.
                let others: Vec<ShardId> = ShardId::all().filter(|shard| *shard != own).collect();
                let other = others[random.random_range(0..usize::from(SHARDS) - 1)];
                return (other, Some(event_message::encode(&event)));
            }
        };
        (own, payload)
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeSet;

    use super::*;

    pub fn workload(events: u64) -> Workload {
        let users = (0..200).map(|n| UserId::new(&format!("u{n}")).unwrap()).collect();
        let items = (0..100).map(|n| ItemId::new(&format!("i{n}")).unwrap()).collect();
        Workload::new(users, items, events, 1_000.0, 1_700_000_000_000, 7)
    }

    #[test]
    fn the_shares_are_as_planned_and_an_event_is_the_same_each_time() {
        let workload = workload(20_000);
        let share = |is: &dyn Fn(u64) -> bool| (0..20_000).filter(|n| is(*n)).count() as f64 / 20_000.0;
        assert!((0.005..0.015).contains(&share(&|n| workload.is_late(n))));
        assert!((0.005..0.015).contains(&share(&|n| workload.is_repeated(n))));
        assert!((0.02..0.04).contains(&share(&|n| workload.event(n).user_id.as_str().starts_with("new-"))));
        assert_eq!(workload.event(77), workload.event(77));
        let late = (0..20_000).find(|n| workload.is_late(*n)).unwrap();
        assert!(workload.event(late).at_ms < 1_700_000_000_000 - 3_000_000);
        let all: Vec<u64> =
            (0..).map(|batch| workload.batch(batch)).take_while(|batch| !batch.is_empty()).flatten().collect();
        assert_eq!(all, (0..20_000).collect::<Vec<_>>());
    }

    #[test]
    fn events_pass_the_checks_and_poison_does_not() {
        let workload = workload(1_000);
        for n in 0..1_000 {
            let event = workload.event(n);
            assert_eq!(event_message::decode(&event_message::encode(&event)).unwrap(), event);
        }
        let mut kinds = BTreeSet::new();
        for n in 0..100 {
            let (partition, payload) = workload.poison(n);
            let Some(payload) = payload else {
                kinds.insert("tombstone");
                continue;
            };
            match event_message::decode(&payload) {
                Ok(event) => {
                    assert_ne!(shard_of(event.user_id.as_str()), partition);
                    kinds.insert("elsewhere");
                }
                Err(_) if payload.len() == LARGE_BYTES => _ = kinds.insert("large"),
                Err(_) => _ = kinds.insert("undecodable"),
            }
        }
        assert_eq!(kinds.len(), 4, "{kinds:?}");
    }
}
