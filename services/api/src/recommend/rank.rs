//! Step 4: from what the user did to what they may like.

use std::{cell::RefCell, time::Instant};

use model::{HistoryItem, Scratch};
use prometheus::Histogram;
use stores::LoggedEvent;

use crate::model_view::ModelView;

thread_local! {
    /// Ranking adds up scores in a table as long as the catalogue; one a thread, so that a request allocates none.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The best `wanted` items the user has not seen, as (item, score); `None` if the history holds nothing the model knows. `seconds`
/// gets the time of those that are ranked.
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
