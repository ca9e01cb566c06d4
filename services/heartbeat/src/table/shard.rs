//! One of eight shards: open addressing with linear probing. A slot is a cache line. Ids are not stored: their hashes identify nodes.

use std::hint::black_box;

use super::{NodeEntry, Observation, Recorded};
use crate::{
    Nanos,
    auth::{ReplayWindow, Verdict},
};

/// Load factor at which the slots double: probes get long beyond it.
const FULL_NUMERATOR: usize = 3;
const FULL_DENOMINATOR: usize = 4;
const FIRST_SLOTS: usize = 64;

/// Two nodes are confused only if 128 bits of a seeded hash agree.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Slot {
    /// Zero: free.
    print: u128,
    last_seen: Nanos,
    window: ReplayWindow,
    beats: u32,
    load: f32,
}

const _: () = assert!(size_of::<Slot>() == 64);

#[derive(Debug, Default)]
pub(super) struct Shard {
    slots: Vec<Slot>,
    nodes: usize,
    max_nodes: usize,
}

impl Shard {
    pub(super) fn new(max_nodes: usize) -> Self {
        Self { max_nodes, ..Self::default() }
    }

    /// Loads the cache lines of all, so that the misses overlap.
    pub(super) fn touch(&self, prints: impl Iterator<Item = u128>) {
        if self.slots.is_empty() {
            return;
        }
        let sum = prints.fold(0_u64, |sum, print| sum ^ self.slots[self.home(print)].last_seen);
        black_box(sum);
    }

    pub(super) fn record(&mut self, print: u128, observation: &Observation<'_>) -> Recorded {
        let Some(at) = self.find(print) else {
            return self.insert(print, observation);
        };
        let slot = &mut self.slots[at];
        let verdict = slot.window.check(observation.incarnation, observation.sequence);
        if verdict.accepted() {
            // A heartbeat out of order still arrived now.
            slot.last_seen = slot.last_seen.max(observation.at);
            slot.beats = slot.beats.saturating_add(1);
            if verdict != Verdict::Late {
                slot.load = observation.load;
            }
        }
        Recorded::Known(verdict)
    }

    pub(super) fn get(&self, print: u128) -> Option<NodeEntry> {
        self.find(print).map(|at| entry(&self.slots[at]))
    }

    /// Rebuilds the shard without the old nodes: no tombstones.
    pub(super) fn forget_before(&mut self, instant: Nanos) -> usize {
        let before = self.nodes;
        let stale = self.slots.iter().filter(|slot| slot.print != 0 && slot.last_seen < instant).count();
        if stale > 0 {
            let kept = before - stale;
            let slots = (kept * FULL_DENOMINATOR / FULL_NUMERATOR + 1).next_power_of_two().max(FIRST_SLOTS);
            self.rebuild(slots, |slot| slot.last_seen >= instant);
        }
        before - self.nodes
    }

    pub(super) fn len(&self) -> usize {
        self.nodes
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    fn insert(&mut self, print: u128, observation: &Observation<'_>) -> Recorded {
        if self.nodes >= self.max_nodes {
            return Recorded::Full;
        }
        if (self.nodes + 1) * FULL_DENOMINATOR > self.slots.len() * FULL_NUMERATOR {
            self.rebuild((2 * self.slots.len()).max(FIRST_SLOTS), |_| true);
        }
        self.nodes += 1;
        self.place(Slot {
            print,
            last_seen: observation.at,
            window: ReplayWindow::opened(observation.incarnation, observation.sequence),
            beats: 1,
            load: observation.load,
        });
        Recorded::Known(Verdict::First)
    }

    fn rebuild(&mut self, slots: usize, keep: impl Fn(&Slot) -> bool) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots]);
        self.nodes = 0;
        for slot in old.into_iter().filter(|slot| slot.print != 0 && keep(slot)) {
            self.nodes += 1;
            self.place(slot);
        }
    }

    /// Into the first free slot from its home on; the shard is never full.
    fn place(&mut self, slot: Slot) {
        let mut at = self.home(slot.print);
        while self.slots[at].print != 0 {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    fn find(&self, print: u128) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(print);
        loop {
            match self.slots[at].print {
                0 => return None,
                found if found == print => return Some(at),
                _ => at = self.after(at),
            }
        }
    }

    fn home(&self, print: u128) -> usize {
        let high = (print >> 64) as u64;
        ((u128::from(high) * self.slots.len() as u128) >> 64) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }
}

fn entry(slot: &Slot) -> NodeEntry {
    let ReplayWindow { incarnation, sequence, .. } = slot.window;
    NodeEntry { last_seen: slot.last_seen, incarnation, sequence, load: slot.load, beats: slot.beats }
}
