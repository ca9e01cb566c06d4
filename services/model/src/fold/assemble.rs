//! The fold of a whole dataset.

use std::{num::NonZero, thread};

use contract::{Event, SHARDS, SegmentId, ShardId, shard_of};

use super::Fold;
use crate::dataset::Dataset;

impl Fold {
    /// Folds a whole dataset, in its order. An event's place in its log, from 1, is its arrival number, as in a store that has only this
    /// dataset. `threads` share the logs; the result does not depend on their number.
    pub fn of(data: &Dataset, held: &[SegmentId], threads: NonZero<usize>) -> Self {
        let logs: Vec<ShardId> = data.users.iter().map(|user| shard_of(user.as_str())).collect();
        let part = |thread: usize| {
            let mut fold = Self::new(held.iter().copied());
            let mut arrivals = [0; SHARDS as usize];
            for e in &data.events {
                let (user, item) = (e.user as usize, e.item as usize);
                let log = logs[user].index();
                if log % threads == thread {
                    arrivals[log] += 1;
                    let (user_id, item_id) = (data.users[user].clone(), data.items[item].clone());
                    let event = Event { user_id, item_id, kind: e.kind, at_ms: e.at_ms, weight: e.weight };
                    fold.add(&event, arrivals[log]);
                }
            }
            fold
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads.get()).map(|thread| scope.spawn(move || part(thread))).collect();
            let mut fold = part(0);
            for other in others {
                let other = other.join().expect("folding does not panic");
                fold.merge(other).expect("each thread has logs of its own");
            }
            fold
        })
    }
}
