//! Step 5: ranks items for a user's history.

use std::{cell::RefCell, time::Instant};

use model::{HistoryItem, Scratch};
use prometheus::Histogram;
use stores::LoggedEvent;

use crate::model_view::ModelView;

thread_local! {
    /// Ranking adds up scores in a table as large as the catalogue. Each thread has one, so that requests do not allocate it.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The best `wanted` items that the user has not seen, as (item, score). `None`: the model knows no item of the history. `seconds` records
/// the duration, unless the result is `None`.
pub fn rank(model: &ModelView, history: &[LoggedEvent], wanted: usize, seconds: &Histogram) -> Option<Vec<(u32, f32)>> {
    let started = Instant::now();
    let known: Vec<HistoryItem> = history
        .iter()
        .filter_map(|event| {
            let item = model.neighbours.index_of(event.item_id.as_str())?;
            Some(HistoryItem { item, weight: event.weight })
        })
        .collect();
    if known.is_empty() {
        return None;
    }
    let ranked = SCRATCH.with_borrow_mut(|scratch| model.neighbours.rank(&known, wanted, scratch));
    seconds.observe(started.elapsed().as_secs_f64());
    Some(ranked)
}
