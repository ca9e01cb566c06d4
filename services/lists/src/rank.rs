//! Ranks items for a user, from the raw history or from the prepared features. Both give the same list for the same events.

use std::cell::RefCell;

use model::{Features, HistoryItem, Scratch};
use stores::LoggedEvent;

use crate::model_view::ModelView;

thread_local! {
    /// Ranking adds up scores in a table as large as the catalogue. Each thread has one, so that requests do not allocate it.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The best `wanted` items that the user has not seen, as (item, score). `history`: the newest events, newest first, at most one per
/// action. `None`: the model knows no item of the history.
pub fn rank_history(model: &ModelView, history: &[LoggedEvent], wanted: usize) -> Option<Vec<(u32, f32)>> {
    if history.len() > Features::MAX_ITEMS {
        let mut features = Features::default();
        for event in history.iter().rev() {
            features.fold(&event.item_id, event.kind, event.at_ms, event.weight);
        }
        return rank_window(model, &features, wanted);
    }
    // So few events are a window already: ranking counts a repeated item once, at its latest place with its highest weight.
    rank(model, history.iter().map(|event| (event.item_id.as_str(), event.weight)), wanted)
}

/// As `rank_history`, from the items of the window.
pub fn rank_window(model: &ModelView, features: &Features, wanted: usize) -> Option<Vec<(u32, f32)>> {
    rank(model, features.window(), wanted)
}

/// `items`: ids with weights, newest first.
fn rank<'a>(model: &ModelView, items: impl Iterator<Item = (&'a str, f32)>, wanted: usize) -> Option<Vec<(u32, f32)>> {
    let known: Vec<HistoryItem> = items
        .filter_map(|(item, weight)| Some(HistoryItem { item: model.neighbours.index_of(item)?, weight }))
        .collect();
    if known.is_empty() {
        return None;
    }
    Some(SCRATCH.with_borrow_mut(|scratch| model.neighbours.rank(&known, wanted, scratch)))
}
