//! The online ranking, from a user's recent items to recommendations. It runs on every miss, so it allocates only its result.

use crate::neighbours::{NeighbourModel, Scored, best_first, strength};

/// Ranking uses this number of the newest items. Older items are only excluded from the result.
const HISTORY_RANKED: usize = 100;

/// An event of a user's log whose item is in the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistoryItem {
    /// Position in the model (`NeighbourModel::index_of`).
    pub item: u32,
    /// The event's weight, > 0.
    pub weight: f32,
}

/// Buffers of `NeighbourModel::rank`, to be reused: 4 bytes per item. They adapt to the model.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Per item: 0 = untouched, above 0 = its score, `SEEN` = in the history. All 0 between calls.
    scores: Vec<f32>,
    candidates: Vec<u32>,
    seen: Vec<u32>,
    recent: Vec<HistoryItem>,
    ranked: Vec<Scored>,
}

/// Adding a score does not change it.
const SEEN: f32 = f32::NEG_INFINITY;

impl NeighbourModel {
    /// Up to `k` items that are not in the history, best first, with scores above 0.
    ///
    /// `history` is in order of time, newest first. A repeated item counts once, at its latest place with its highest weight. Each item
    /// adds its neighbours' scores, halved per `Params::recency_half_life_places`. If these are fewer than `k` items, popular items follow,
    /// with lower scores. If no item of the history is in this model, the result is empty, and the caller uses the popular list.
    pub fn rank(&self, history: &[HistoryItem], k: usize, scratch: &mut Scratch) -> Vec<Scored> {
        scratch.start(self.items().len(), history);
        if scratch.recent.is_empty() {
            return Vec::new();
        }
        self.add_neighbours(scratch);
        let mut answer = scratch.best(k);
        if answer.len() < k {
            self.fill_with_popular(&mut answer, k, scratch);
        }
        scratch.clear();
        answer
    }

    fn add_neighbours(&self, scratch: &mut Scratch) {
        let step = (-1.0 / self.params().recency_half_life_places).exp2();
        let mut recency = 1.0;
        for visit in &scratch.recent {
            let factor = recency * strength(visit.weight);
            recency *= step;
            for &(item, score) in self.neighbours(visit.item) {
                let slot = &mut scratch.scores[item as usize];
                let add = score * factor;
                // A score too small for a float must not add the item twice.
                if *slot == 0.0 && add > 0.0 {
                    scratch.candidates.push(item);
                }
                *slot += add;
            }
        }
    }

    fn fill_with_popular(&self, answer: &mut Vec<Scored>, k: usize, scratch: &Scratch) {
        let Some(&(_, highest)) = self.popular().first() else { return };
        let below = answer.last().map_or(1.0, |&(_, score)| score) / 2.0;
        // Fewer than k candidates: all of them are in the answer, so a score of 0 means "in neither".
        let unmet = self.popular().iter().filter(|&&(item, _)| scratch.scores[item as usize] == 0.0);
        answer.extend(unmet.take(k - answer.len()).map(|&(item, score)| (item, below * (score / highest))));
    }
}

impl Scratch {
    fn start(&mut self, items: usize, history: &[HistoryItem]) {
        if self.scores.len() != items {
            self.scores = vec![0.0; items];
        }
        for visit in history {
            let Some(slot) = self.scores.get_mut(visit.item as usize) else { continue };
            if *slot == SEEN {
                if let Some(known) = self.recent.iter_mut().find(|known| known.item == visit.item) {
                    known.weight = known.weight.max(visit.weight);
                }
                continue;
            }
            *slot = SEEN;
            self.seen.push(visit.item);
            if self.recent.len() < HISTORY_RANKED {
                self.recent.push(*visit);
            }
        }
    }

    fn best(&mut self, k: usize) -> Vec<Scored> {
        self.ranked.clear();
        self.ranked.extend(self.candidates.iter().map(|&item| (item, self.scores[item as usize])));
        best_first(&mut self.ranked, k);
        // `ranked` may be longer than `k`; only `k` items are allocated.
        let mut answer = Vec::with_capacity(k.min(self.scores.len()));
        answer.extend_from_slice(&self.ranked);
        answer
    }

    fn clear(&mut self) {
        for item in self.candidates.drain(..).chain(self.seen.drain(..)) {
            self.scores[item as usize] = 0.0;
        }
        self.recent.clear();
    }
}

#[cfg(test)]
#[path = "rank_tests.rs"]
mod tests;
