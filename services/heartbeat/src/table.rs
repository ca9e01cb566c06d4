//! When was each node last heard? One cache line per node, found by a hash of its id; a million nodes fit into 200 MB.
//!
//! Memory latency dominates: a heartbeat of a random node misses every cache. So heartbeats are recorded in groups: the cache lines of the
//! whole group are requested first, and the waits overlap.

mod shard;

use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use self::shard::Shard;
use crate::{Nanos, auth::Verdict};

/// Few shards: a batch is sorted by shard, and each part should be long enough to overlap its cache misses.
const SHARDS: usize = 8;
/// Heartbeats per group.
const GROUP: usize = 128;

/// A heartbeat as the table needs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation<'a> {
    /// A valid name (1 to 64 bytes).
    pub node_id: &'a str,
    pub at: Nanos,
    pub incarnation: u64,
    pub sequence: u64,
    pub load: f32,
}

/// Entry of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeEntry {
    pub last_seen: Nanos,
    pub incarnation: u64,
    /// The highest received.
    pub sequence: u64,
    pub load: f32,
    /// Received so far, of all incarnations; saturating.
    pub beats: u32,
}

/// Result of recording a heartbeat. `Full`: the node is new, and there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    Known(Verdict),
    Full,
}

impl Recorded {
    pub fn accepted(self) -> bool {
        matches!(self, Self::Known(verdict) if verdict.accepted())
    }
}

#[derive(Debug)]
pub struct Table {
    shards: [Mutex<Shard>; SHARDS],
    /// Random per table, so that an attacker cannot prepare colliding ids.
    seed: u64,
}

impl Table {
    /// Holds up to `max_nodes` (rounded up to a multiple of 8; a shard may be full slightly earlier).
    pub fn new(max_nodes: usize) -> Self {
        // Hashing fills shards unevenly: four standard deviations of room.
        let even = max_nodes.div_ceil(SHARDS);
        let max = even + 4 * even.isqrt() + 1;
        Self { shards: std::array::from_fn(|_| Mutex::new(Shard::new(max))), seed: rand::random() }
    }

    pub fn record(&self, observation: &Observation<'_>) -> Recorded {
        let print = self.fingerprint(observation.node_id);
        self.lock(shard_of(print)).record(print, observation)
    }

    /// Records all, and fills `outcomes` (cleared first) in the order of `observations`. Heartbeats of one node keep their order.
    pub fn record_all(&self, observations: &[Observation<'_>], outcomes: &mut Vec<Recorded>) {
        outcomes.clear();
        outcomes.resize(observations.len(), Recorded::Full);
        for (group, outcomes) in observations.chunks(GROUP).zip(outcomes.chunks_mut(GROUP)) {
            self.record_group(group, outcomes);
        }
    }

    fn record_group(&self, group: &[Observation<'_>], outcomes: &mut [Recorded]) {
        let mut prints = [0_u128; GROUP];
        // Counting sort by shard.
        let mut starts = [0_usize; SHARDS + 1];
        for (print, observation) in prints.iter_mut().zip(group) {
            *print = self.fingerprint(observation.node_id);
            starts[shard_of(*print) + 1] += 1;
        }
        for shard in 0..SHARDS {
            starts[shard + 1] += starts[shard];
        }
        let mut order = [0_u8; GROUP];
        let mut next = starts;
        for (n, &print) in prints[..group.len()].iter().enumerate() {
            let place = &mut next[shard_of(print)];
            order[*place] = n as u8;
            *place += 1;
        }
        for shard in 0..SHARDS {
            let members = &order[starts[shard]..starts[shard + 1]];
            if members.is_empty() {
                continue;
            }
            let mut shard = self.lock(shard);
            shard.touch(members.iter().map(|&n| prints[usize::from(n)]));
            for n in members.iter().map(|&n| usize::from(n)) {
                outcomes[n] = shard.record(prints[n], &group[n]);
            }
        }
    }

    pub fn get(&self, node_id: &str) -> Option<NodeEntry> {
        let print = self.fingerprint(node_id);
        self.lock(shard_of(print)).get(print)
    }

    /// Removes nodes last heard before this time, and their replay windows. Returns their number.
    pub fn forget_before(&self, instant: Nanos) -> usize {
        (0..SHARDS).map(|shard| self.lock(shard).forget_before(instant)).sum()
    }

    pub fn len(&self) -> usize {
        (0..SHARDS).map(|shard| self.lock(shard).len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes allocated for nodes.
    pub fn bytes(&self) -> usize {
        (0..SHARDS).map(|shard| self.lock(shard).bytes()).sum()
    }

    /// Never zero, which marks a free slot.
    fn fingerprint(&self, node_id: &str) -> u128 {
        xxh3_128_with_seed(node_id.as_bytes(), self.seed).max(1)
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // A heartbeat is recorded completely or not at all.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By the low bits; the slot within the shard is chosen by the high ones.
fn shard_of(print: u128) -> usize {
    print as usize % SHARDS
}

#[cfg(test)]
mod tests;
